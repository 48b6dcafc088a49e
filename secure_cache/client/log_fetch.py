"""A log's files over HTTP, within bounds, for readers that verify all of it."""

import re
from contextlib import AsyncExitStack
from typing import Self

import anyio
import httpx

from secure_cache.client.body import ACCEPTED, BoundedBody
from secure_cache.client.remote import BUSY, BUSY_WAITS_SECONDS, ServerAddress
from secure_cache.model.errors import Denied, NotFound, Unavailable
from secure_cache.tlog.tiles import MAX_BUNDLE_BYTES

_USER_AGENT = "secure-cache"
_CONNECT_SECONDS = 10.0
_REASON = re.compile(r"[a-z-]{1,40}")


class _Busy(Exception):
    """The server answered that it cannot now."""


class LogFetch:
    """A `tlog.reader.Fetch` for the log below a URL. An asynchronous context manager.

    Args:
        address: such as `https://cache.example.com/log`.
        token: a bearer token, where the tiles are not public.
        deadline_seconds: for each file, whole.
        absent: the statuses that say that there is nothing.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        token: str | None = None,
        deadline_seconds: float = 60.0,
        absent: frozenset[int] = frozenset({404, 410}),
    ) -> None:
        self._url = address.url
        self._absent = absent
        self._deadline = deadline_seconds
        self._headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": ACCEPTED}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._stack = AsyncExitStack()
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        # Follows no redirect: a token goes where it was meant to go, or nowhere.
        self._client = await self._stack.enter_async_context(
            httpx.AsyncClient(
                timeout=_CONNECT_SECONDS, follow_redirects=False, headers=self._headers
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client = None
        await self._stack.aclose()

    async def __call__(self, path: str) -> bytes:
        """The bytes under a path.

        Raises:
            NotFound: there is nothing.
            Denied: this token may not read it.
            Unavailable: no answer, another status, too large, too slow. Who says that it is busy is
                asked again a few times.
        """
        if self._client is None:
            raise Unavailable("the log's address is not open")
        url = f"{self._url}/{path}"
        try:
            with anyio.fail_after(self._deadline):
                return await self._get_patiently(self._client, url)
        except TimeoutError:
            raise Unavailable(f"{url}: no whole answer within {self._deadline:g} s") from None
        except (httpx.HTTPError, OSError, UnicodeError) as error:
            raise Unavailable(f"{url}: {error or type(error).__name__}") from None

    async def _get_patiently(self, client: httpx.AsyncClient, url: str) -> bytes:
        waits = iter(BUSY_WAITS_SECONDS)
        while True:
            try:
                return await self._get(client, url)
            except _Busy as busy:
                seconds = next(waits, None)
                if seconds is None:
                    raise Unavailable(str(busy)) from None
            await anyio.sleep(seconds)

    async def _get(self, client: httpx.AsyncClient, url: str) -> bytes:
        async with client.stream("GET", url) as response:
            match response.status_code:
                case 200:
                    body = BoundedBody(response, where=url, max_bytes=MAX_BUNDLE_BYTES)
                    async for block in response.aiter_raw():
                        body.add(block)
                    return body.whole()
                case 404 | 410 if response.status_code in self._absent:
                    raise NotFound(f"{url}: not there")
                case status if status in self._absent:
                    raise NotFound(f"{url}: answered {status}{_reason(response)}")
                case 401 | 403:
                    raise Denied(f"{url}: this needs the token of an auditor")
                case status:
                    kind = _Busy if status in BUSY else Unavailable
                    raise kind(f"{url}: answered {status}{_reason(response)}")


def _reason(response: httpx.Response) -> str:
    """The code of a refusal of ours, and of nobody's longer or stranger texts."""
    found = _REASON.fullmatch(response.headers.get("x-secure-cache-reason", ""))
    return f" ({found.group()})" if found else ""
