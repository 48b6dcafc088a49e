"""What can go wrong with one HTTP exchange, and which exchanges it befalls."""

import asyncio
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from world.http_stream import headers_in

# actions: what befalls the exchange. Offsets and counts are bytes of the body's content, without
# the framing of a chunked body.


@dataclass(frozen=True)
class Pass:
    """Nothing. A rule with it exempts what it matches from the rules after it."""


@dataclass(frozen=True)
class Reset:
    """RST, when so many bytes of the request's body have gone on to the server. With None at
    once: the server never hears of the request."""

    after_request_bytes: int | None = None


@dataclass(frozen=True)
class Hang:
    """Silence for `seconds`, then RST. The server never hears of the request."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """This response, after the request was read to its end. The server never hears of it."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class FlipRequestBit:
    """The lowest bit of one byte of the request's body is flipped on its way to the server."""

    at: int = 0


@dataclass(frozen=True)
class LoseAnswer:
    """The server does what it was asked and answers; the client gets RST instead."""


@dataclass(frozen=True)
class FlipResponseBit:
    """The lowest bit of one byte of the response's body is flipped on its way to the client."""

    at: int = 0


@dataclass(frozen=True)
class CutAnswer:
    """The response ends after so many bytes of its body: with RST, with FIN, or with silence for
    `seconds` and then RST."""

    after: int
    how: Literal["reset", "fin", "stall"] = "reset"
    seconds: float = 30


@dataclass(frozen=True)
class Slow:
    """Both bodies trickle."""

    bytes_per_second: float


@dataclass(frozen=True)
class Delay:
    """The request waits before it goes on."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """The request, or with `answer` the finished response, waits until `Rule.release()`."""

    answer: bool = False


Action: TypeAlias = (
    Pass
    | Reset
    | Hang
    | Answer
    | FlipRequestBit
    | LoseAnswer
    | FlipResponseBit
    | CutAnswer
    | Slow
    | Delay
    | Hold
)


def azure_error(status: int, code: str, **headers: str) -> Answer:
    """A refusal as Azure Blob words it. `Retry_After="1"` is a header too."""
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message/></Error>'
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(
        status,
        {"x-ms-error-code": code, "Content-Type": "application/xml", **more},
        body.encode(),
    )


# requests


@dataclass
class Seen:
    """One request that reached the proxy, and what became of it."""

    number: int
    method: str
    path: str
    """Decoded, without the query."""
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    action: Action = field(default_factory=Pass)
    server_status: int | None = None
    """What the server answered; None while it has not, or was not asked."""
    status: int | None = None
    """What the client got; None where it got no head of a response."""
    done: bool = False
    """The client got the whole response and the connection lives."""

    @property
    def comp(self) -> str:
        """Azure's name of the operation, such as `block`; empty for the plain ones."""
        return self.query.get("comp", "")


@dataclass(frozen=True)
class Match:
    """Which requests are meant; what is None is not looked at."""

    method: str | None = None
    comp: str | None = None
    """The query parameter `comp`; "" means without it."""
    path: str | None = None
    """A part of the decoded path."""
    where: Callable[[Seen], bool] | None = None

    def fits(self, seen: Seen) -> bool:
        return (
            self.method in (None, seen.method)
            and self.comp in (None, seen.comp)
            and (self.path is None or self.path in seen.path)
            and (self.where is None or self.where(seen))
        )


class Rule:
    """An action for those requests that match, from the `skip`-th on, at most `times`, each with
    a chance."""

    def __init__(
        self,
        action: Action,
        match: Match,
        *,
        times: int | None = None,
        skip: int = 0,
        chance: float = 1.0,
    ):
        self.action = action
        self.match = match
        self.hits = 0
        self._left = times
        self._skip = skip
        self._chance = chance
        self._hit = threading.Event()
        self._released = threading.Event()

    def applies(self, seen: Seen, source: random.Random) -> bool:
        """Asked once for each request, in the order of their coming: it counts."""
        if not self.match.fits(seen) or self._left == 0:
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        if source.random() >= self._chance:
            return False
        if self._left is not None:
            self._left -= 1
        self.hits += 1
        return True

    def wait_hit(self, seconds: float = 60) -> None:
        """Until it has befallen a request; with `Hold`, until something is held."""
        assert self._hit.wait(seconds), f"no request within {seconds} s: {self.action}"

    def befell(self) -> None:
        self._hit.set()

    def release(self) -> None:
        """Let go what is held, and hold nothing any more."""
        self._released.set()

    async def released(self) -> None:
        while not self._released.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.005)


def read_head(head: bytes, number: int) -> Seen:
    """The request whose head this is."""
    first = head.decode("latin-1").partition("\r\n")[0]
    method, target, _ = first.split(" ", 2)
    parts = urlsplit(target)
    return Seen(
        number=number,
        method=method,
        path=unquote(parts.path),
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        headers=headers_in(head),
    )
