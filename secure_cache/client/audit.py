"""A server's audit API, for commands."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from secure_cache.client.remote import BUSY_WAITS_SECONDS, ServerAddress, ask
from secure_cache.model.errors import (
    CorruptObject,
    DamagedIndex,
    LogInconsistent,
    Misconfigured,
    NoAuditIndex,
    NotFound,
    WrongFilter,
)

_MAX_ANSWER_BYTES = 64 << 20
_PAGE = 500
_ERRORS = {
    kind.code: kind
    for kind in (
        WrongFilter,
        NotFound,
        NoAuditIndex,
        DamagedIndex,
        CorruptObject,
        LogInconsistent,
    )
}


class _Page(msgspec.Struct):
    entries: list[dict[str, Any]]
    next: dict[str, int] | None


class _Count(msgspec.Struct):
    value: str | None
    entries: int


class _Counts(msgspec.Struct):
    total: int
    distinct: int = 0
    counts: list[_Count] = []


class _Proof(msgspec.Struct):
    index: int
    size: int
    root: str


class _Signature(msgspec.Struct):
    valid: bool
    why: str | None


class _State(msgspec.Struct):
    state: str
    line: str
    why: str


class _Event(msgspec.Struct):
    index: int
    event: str


class _Details(msgspec.Struct):
    entry: dict[str, Any]
    proof: _Proof
    signature: _Signature | None
    state: _State | None
    events: list[_Event]


@dataclass(frozen=True, slots=True)
class RemoteAudit:
    """What the server says, and proves nothing by itself; its form is checked, so that whoever
    shows it can rely on that. A server that is busy is asked again a few times.

    Raises from all: Unavailable, Denied, InvalidToken, Misconfigured, and what the server says
    of the question or of its log.
    """

    server: ServerAddress
    token: str
    client: Callable[[], httpx.Client]
    sleep: Callable[[float], None] = time.sleep

    def entries(
        self, given: Mapping[str, Sequence[str]], *, limit: int, newest_first: bool
    ) -> Iterator[dict[str, Any]]:
        """Rows, page by page, at most `limit`."""
        cursor: dict[str, Any] = {}
        order = "newest" if newest_first else "oldest"
        with self.client() as http:
            while limit > 0:
                page = {"limit": min(limit, _PAGE), "order": order, **cursor}
                answer = self._get(http, "entries", {**given, **page}, _Page)
                rows, cursor = answer["entries"], answer["next"] or {}
                yield from rows[:limit]
                limit -= len(rows)
                # A page without rows that names another one would be asked for for ever.
                if not rows or not cursor:
                    return

    def counts(self, given: Mapping[str, Sequence[str]], group: str | None) -> dict[str, Any]:
        """The number of entries, also by `group`."""
        with self.client() as http:
            grouped = {**given, **({"group": group} if group else {})}
            return self._get(http, "counts", grouped, _Counts)

    def details(self, index: int) -> dict[str, Any]:
        """Everything about one entry. Raises: NotFound."""
        with self.client() as http:
            try:
                return self._get(http, f"entries/{index}", {}, _Details)
            except NotFound as error:
                raise NotFound(f"the index of {self.server.url} has no entry {index}") from error

    def _get(
        self, http: httpx.Client, path: str, parameters: Mapping[str, Any], form: type
    ) -> dict[str, Any]:
        request = http.build_request(
            "GET",
            f"{self.server.url}/audit/v1/{path}",
            params=dict(parameters),
            headers={"Authorization": f"Bearer {self.token}"},
        )
        answer = ask(
            http,
            request,
            errors=_ERRORS,
            max_bytes=_MAX_ANSWER_BYTES,
            waits=BUSY_WAITS_SECONDS,
            sleep=self.sleep,
        )
        try:
            msgspec.convert(answer, form)
        except msgspec.ValidationError as error:
            raise Misconfigured(
                f"{self.server.url} does not answer as a secure-cache server does ({error})"
            ) from error
        return answer
