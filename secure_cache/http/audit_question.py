"""One question to the audit API: who asks, what exactly, and the line in the server's log."""

import re
from asyncio import CancelledError
from collections.abc import AsyncIterator, Mapping
from time import perf_counter
from typing import Self, TypeVar

import structlog
from litestar import Request
from litestar.datastructures import State

from secure_cache.audit.auditor import Auditor
from secure_cache.audit.filters import NAMES, Filter
from secure_cache.audit.overviews import Overviews
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.audit.queries import MAX_PAGE, PageRequest
from secure_cache.core.access import Caller, proved_of
from secure_cache.http.services import Services
from secure_cache.model.digest import Digest
from secure_cache.model.errors import Denied, WrongFilter

_log = structlog.get_logger(__name__)

AnyRequest = Request[object, object, State]
_Default = TypeVar("_Default")

PAGE_NAMES = frozenset({"limit", "after", "before", "order"})
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_ORDERS = ("oldest", "newest")


class Asked:
    """One question: who asks, what, and the line that says so in the end."""

    def __init__(self, services: Services, caller: Caller, request: AnyRequest) -> None:
        if not caller.decision.audit:
            raise Denied("the audit API needs an auditor").of(proved_of(caller))
        self._services = services
        self._caller = caller
        self._request = request
        self._given: Mapping[str, list[str]] = request.query_params.dict()
        self._began = perf_counter()
        self._streams = False
        self.answered: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None or not self._streams:
            self._tell(error)

    def streaming(self, parts: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[bytes]:
        """Hands on what is to be sent; the line is written when that ends, or the client leaves.

        Args:
            parts: how many rows, and their bytes.
        """
        self._streams = True
        return self._counted(parts)

    async def _counted(self, parts: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[bytes]:
        self.answered, failed = 0, None
        try:
            async for count, data in parts:
                yield data
                # Only here it is known that the client took it.
                self.answered += count
        except BaseException as error:
            failed = error
            raise
        finally:
            self._tell(failed)

    def _tell(self, error: BaseException | None) -> None:
        identity = self._caller.identity
        gone = isinstance(error, GeneratorExit | CancelledError)
        refused = "" if error is None else getattr(error, "code", type(error).__name__)
        _log.info(
            "audit.query",
            path=self._request.scope["path"],
            given={name: list(values) for name, values in self._given.items()},
            answered=self.answered,
            refused="client-left" if gone else refused,
            issuer=identity.issuer if identity else "",
            subject=identity.subject if identity else "",
            project=self._caller.decision.project,
            rule=self._caller.decision.rule,
            ms=round((perf_counter() - self._began) * 1000, 3),
        )

    def auditor(self) -> Auditor:
        return self._services.audit.auditor()

    def history(self) -> PolicyHistory:
        return self._services.audit.history()

    def overviews(self) -> Overviews:
        return self._services.audit.overviews()

    def without_blanks(self) -> Mapping[str, list[str]]:
        """Forgets empty values, which a form sends for its empty fields; gives what is left."""
        self._given = {
            name: [value for value in values if value]
            for name, values in self._given.items()
            if any(values)
        }
        return self._given

    def only(self, *names: str) -> None:
        """No parameter but these. Raises: WrongFilter."""
        for name in self._given:
            if name not in names:
                known = f"there are: {', '.join(names)}" if names else "there is none"
                raise WrongFilter(f"there is no parameter {name[:80]!a}; {known}")

    def filter_and_page(self, others: frozenset[str]) -> tuple[Filter, PageRequest]:
        """Raises: WrongFilter: says which parameter is wrong, and what is allowed."""
        for name in self._given:
            if name not in others and name not in NAMES:
                known = ", ".join((*NAMES, *sorted(others)))
                raise WrongFilter(f"there is no parameter {name[:80]!a}; there are: {known}")
        wanted = Filter.parse(
            {name: values for name, values in self._given.items() if name in NAMES}
        )
        order = self.choice("order", self.one("order", "oldest"), _ORDERS)
        page = PageRequest(
            limit=self.number("limit", 100, at_least=1, at_most=MAX_PAGE),
            after=self.number("after", None),
            before=self.number("before", None),
            newest_first=order == "newest",
        )
        return wanted, page

    def one(self, name: str, default: _Default) -> str | _Default:
        values = self._given.get(name, [])
        if len(values) > 1:
            raise WrongFilter(f"{name}: exactly one value")
        return values[0] if values else default

    def several(
        self, name: str, allowed: tuple[str, ...], default: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Some of `allowed`, each once, in the order given."""
        values = self._given.get(name) or default
        return tuple(dict.fromkeys(self.choice(name, value, allowed) for value in values))

    def span(self, longest: int, *, by_default: int) -> tuple[int, int]:
        """`since` and `until` in seconds since 1970, `by_default` seconds before now."""
        given = {name: [self.one(name, "")] for name in ("since", "until") if name in self._given}
        ranges = Filter.parse(given).ranges
        low, high = (ranges[0].low, ranges[0].high) if ranges else (None, None)
        until = int(self._services.clock()) if high is None else high
        since = until - by_default if low is None else low
        if until < since:
            raise WrongFilter("until: before since")
        if until - since > longest:
            raise WrongFilter(f"since: at most {longest // 86_400} days before until")
        return since, until

    def number(
        self, name: str, default: _Default, *, at_least: int = 0, at_most: int = 10**18
    ) -> int | _Default:
        text = self.one(name, None)
        if text is None:
            return default
        if _NUMBER.fullmatch(text) is None or not at_least <= int(text) <= at_most:
            raise WrongFilter(f"{name}: a whole number from {at_least} to {at_most}")
        return int(text)

    @staticmethod
    def choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
        if value not in allowed:
            raise WrongFilter(f"{name}: one of {', '.join(allowed)}")
        return value

    @staticmethod
    def digest(what: str, text: str) -> str:
        """A SHA-256 in its one spelling. Raises: WrongFilter."""
        try:
            return str(Digest.parse(text))
        except ValueError:
            raise WrongFilter(f"{what} is named by its SHA-256: 64 lower-case hex digits") from None

    @staticmethod
    def index(text: str) -> int:
        if _NUMBER.fullmatch(text) is None:
            raise WrongFilter("an entry is named by its index in the log: a whole number")
        return int(text)
