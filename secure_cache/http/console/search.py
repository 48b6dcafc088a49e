"""Searching the log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response, Stream

from secure_cache.audit.filters import NAMES, Filter, allowed
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.row import Row
from secure_cache.audit.segment import GROUPS
from secure_cache.http.audit_export import export_answer
from secure_cache.http.audit_question import Asked
from secure_cache.http.console.desk import Answer, AnyRequest, Desk, sentence
from secure_cache.http.console.render import PAGE_HEADERS
from secure_cache.model.errors import WrongFilter

_ROWS = 50
_GROUPS_SHOWN = 50
_ORDERS = ("newest", "oldest")
_FIRST = ("namespace", "tier", "key", "digest", "subject", "event", "since", "until")
"""The fields that are always seen; the others are behind "more"."""
_FILTER_OF = {"namespace": "namespace", "rule": "rule", "project": "project", "tier": "tier"}
"""Groups whose values are a filter of the same meaning, so that a click narrows."""


def search_routes(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/search", include_in_schema=False)
    async def search(request: AnyRequest) -> Answer:
        async def work(asked: Asked) -> Answer:
            return await _search(desk, asked)

        return await desk.answer(request, work)

    @get("/audit/export", include_in_schema=False)
    async def export(request: AnyRequest) -> Response[bytes] | Stream:
        streams: list[Stream] = []

        async def work(asked: Asked) -> Answer:
            streams.append(await export_answer(asked, PAGE_HEADERS))
            return Response(b"")

        answer = await desk.answer(request, work)
        return streams[0] if streams else answer

    return [search, export]


async def _search(desk: Desk, asked: Asked) -> Answer:
    given = asked.without_blanks()
    filters = {name: values for name, values in given.items() if name in NAMES}
    found: _Shown | None = None
    counts: Any = None
    wrong: str | None = None
    group, newest = "", True
    try:
        # A filter that is misspelt in a link must not show everything.
        asked.only(*NAMES, "group", "order", "after", "before")
        newest = asked.choice("order", asked.one("order", "newest"), _ORDERS) == "newest"
        group = asked.one("group", "")
        if group:
            asked.choice("group", group, tuple(GROUPS))
        wanted = Filter.parse(filters)
        found = await _look(asked, wanted, given, newest=newest)
        asked.answered = len(found.rows)
        if group:
            counts = await asked.auditor().count_by(group, wanted, limit=_GROUPS_SHOWN)
    except WrongFilter as error:
        wrong = sentence(error)
    return desk.pages.page(
        "search",
        status=200 if wrong is None else 400,
        page="search",
        filters=filters,
        fields=[(name, allowed(name)) for name in NAMES],
        first=_FIRST,
        wrong=wrong,
        wrong_field=None if wrong is None else wrong.partition(":")[0],
        found=found,
        order="newest" if newest else "oldest",
        orders=_ORDERS,
        group=group,
        groups=tuple(GROUPS),
        group_filter=_FILTER_OF.get(group),
        counts=counts,
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """One page of entries, and the cursors of its neighbours; None where there is none."""

    rows: tuple[Row, ...]
    previous: dict[str, int] | None
    following: dict[str, int] | None


async def _look(
    asked: Asked, wanted: Filter, given: Mapping[str, list[str]], *, newest: bool
) -> _Shown:
    """The rows behind one cursor, or the last ones before the other: then looked for backwards."""
    behind, ahead = ("before", "after") if newest else ("after", "before")
    back = ahead in given and behind not in given
    page = PageRequest(
        limit=_ROWS,
        after=asked.number("after", None),
        before=asked.number("before", None),
        newest_first=newest is not back,
    )
    answer = await asked.auditor().query(wanted, page)
    rows = answer.rows[::-1] if back else answer.rows
    if not rows:
        return _Shown(rows, None, None)
    return _Shown(
        rows,
        previous={ahead: rows[0].number} if (answer.more if back else behind in given) else None,
        following={behind: rows[-1].number} if back or answer.more else None,
    )
