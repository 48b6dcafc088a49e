"""All entries that match a filter, streamed: for the API and for the console alike."""

from collections.abc import AsyncIterator, Mapping

from litestar.response import Stream

from secure_cache.audit.forms import csv_header, csv_lines, json_line
from secure_cache.audit.row import Row
from secure_cache.http.audit_answers import attachment
from secure_cache.http.audit_question import PAGE_NAMES, Asked

_FORMATS = ("jsonl", "csv")


async def export_answer(asked: Asked, headers: Mapping[str, str]) -> Stream:
    """Filters, `format` (jsonl, csv), `after`, `before` and `order`.

    The question is told to the server's log when the stream ends, with how many rows were sent.

    Raises: WrongFilter, and as `Auditor.export`, all before the first byte.
    """
    wanted, page = asked.filter_and_page(PAGE_NAMES - {"limit"} | {"format"})
    form = asked.choice("format", asked.one("format", "jsonl"), _FORMATS)
    rows = asked.auditor().export(wanted, page)
    # What refuses the question must come before the first byte.
    # No tuple as the default: before Python 3.12.9, `anext` then ends in a SystemError.
    first = await anext(rows, None) or ()
    return Stream(
        asked.streaming(_exported(first, rows, form)),
        media_type="text/csv" if form == "csv" else "application/jsonl",
        headers={**headers, **attachment(f"audit.{form}")},
    )


async def _exported(
    first: tuple[Row, ...], rest: AsyncIterator[tuple[Row, ...]], form: str
) -> AsyncIterator[tuple[int, bytes]]:
    """In constant memory: some rows at a time, with how many they are."""
    if form == "csv":
        yield 0, csv_header()
    yield len(first), _part(first, form)
    async for rows in rest:
        yield len(rows), _part(rows, form)


def _part(rows: tuple[Row, ...], form: str) -> bytes:
    return csv_lines(rows) if form == "csv" else b"".join(json_line(row) for row in rows)
