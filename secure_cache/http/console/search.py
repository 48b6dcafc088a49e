"""Searching the log."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response, Stream

from secure_cache.audit.filters import NAMES, Filter, allowed
from secure_cache.audit.forms import csv_header, csv_lines, json_line
from secure_cache.audit.queries import Page, PageRequest
from secure_cache.audit.row import Row
from secure_cache.audit.segment import GROUPS
from secure_cache.http.audit_answers import attachment
from secure_cache.http.audit_question import PAGE_NAMES, Asked
from secure_cache.http.console.desk import Answer, AnyRequest, Desk, sentence
from secure_cache.http.console.render import PAGE_HEADERS
from secure_cache.model.errors import WrongFilter

_ROWS = 50
_GROUPS_SHOWN = 50
_FIRST = ("namespace", "tier", "key", "digest", "subject", "event", "since", "until")
"""The fields that are always seen; the others are behind "more"."""
_FILTER_OF = {"namespace": "namespace", "rule": "rule", "project": "project", "tier": "tier"}
"""Groups whose values are a filter of the same meaning, so that a click narrows."""


def search_routes(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/search", include_in_schema=False)
    async def search(request: AnyRequest) -> Answer:
        async def work(asked: Asked) -> Answer:
            return await _search(desk, request, asked)

        return await desk.answer(request, work)

    @get("/audit/export", include_in_schema=False)
    async def export(request: AnyRequest) -> Response[bytes] | Stream:
        streams: list[Stream] = []

        async def work(asked: Asked) -> Answer:
            wanted, page = asked.filter_and_page(PAGE_NAMES - {"limit"} | {"format"})
            form = asked.choice("format", asked.one("format", "jsonl"), ("jsonl", "csv"))
            rows = asked.auditor().export(wanted, page)
            # What refuses the question must come before the first byte.
            first = await anext(rows, ())
            kind = "text/csv" if form == "csv" else "application/jsonl"
            headers = PAGE_HEADERS | attachment(f"audit.{form}")
            streams.append(Stream(_exported(first, rows, form), media_type=kind, headers=headers))
            return Response(b"")

        answer = await desk.answer(request, work)
        return streams[0] if streams else answer

    return [search, export]


async def _search(desk: Desk, request: AnyRequest, asked: Asked) -> Answer:
    given = {
        name: [value for value in values if value]
        for name, values in request.query_params.dict().items()
        if any(values)
    }
    filters = {name: values for name, values in given.items() if name in NAMES}
    found: Page | None = None
    counts: Any = None
    wrong: str | None = None
    group = (given.get("group") or [""])[0]
    newest = (given.get("order") or ["newest"])[0] != "oldest"
    try:
        # A filter that is misspelt in a link must not show everything.
        asked.only(*NAMES, "group", "order", "after", "before")
        wanted = Filter.parse(filters)
        page = PageRequest(
            limit=_ROWS,
            after=_cursor(given, "after"),
            before=_cursor(given, "before"),
            newest_first=newest,
        )
        found = await asked.auditor().query(wanted, page)
        asked.answered = len(found.rows)
        if group:
            counts = await asked.auditor().count_by(
                asked.choice("group", group, tuple(GROUPS)), wanted, limit=_GROUPS_SHOWN
            )
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
        following=_following(found, newest=newest),
        order="newest" if newest else "oldest",
        group=group,
        groups=tuple(GROUPS),
        group_filter=_FILTER_OF.get(group),
        counts=counts,
    )


def _following(found: Page | None, *, newest: bool) -> dict[str, int] | None:
    if found is None or not found.more or not found.rows:
        return None
    return {"before" if newest else "after": found.rows[-1].number}


def _cursor(given: dict[str, list[str]], name: str) -> int | None:
    text = (given.get(name) or [""])[0]
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise WrongFilter(f"{name}: the index of an entry")
    return int(text)


async def _exported(
    first: tuple[Row, ...], rest: AsyncIterator[tuple[Row, ...]], form: str
) -> AsyncIterator[bytes]:
    if form == "csv":
        yield csv_header()
    yield _part(first, form)
    async for rows in rest:
        yield _part(rows, form)


def _part(rows: tuple[Row, ...], form: str) -> bytes:
    return csv_lines(rows) if form == "csv" else b"".join(json_line(row) for row in rows)
