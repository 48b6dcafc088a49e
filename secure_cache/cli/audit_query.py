"""`secure-cache audit query` and `show`."""

import sys
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click

from secure_cache.audit.filters import Filter
from secure_cache.audit.forms import inert_json, row_document
from secure_cache.audit.index import MAX_GROUPS
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.segment import GROUPS
from secure_cache.cli.audit_options import (
    Where,
    filter_options,
    given_filters,
    where,
    where_options,
)
from secure_cache.cli.boundary import note, printable
from secure_cache.cli.options import json_option
from secure_cache.compose.audit_offline import OfflineAudit, offline_audit, offline_index_path
from secure_cache.compose.mirroring import mirror_audit
from secure_cache.model.clock import system_clock

_COLUMNS = ("index", "time", "event", "tier", "namespace", "key", "size", "rule", "subject")
_WIDEST = 44
_Result = TypeVar("_Result")


@click.command("query")
@where_options
@filter_options
@click.option(
    "--limit",
    default=100,
    show_default=True,
    type=click.IntRange(1, 10_000_000),
    help="Entries at most.",
)
@click.option("--newest", is_flag=True, help="The newest first.")
@click.option("--count", is_flag=True, help="Only say how many.")
@click.option("--group", type=click.Choice(tuple(GROUPS)), help="Count by this.")
@json_option
def query_command(  # noqa: PLR0917 - one parameter for each option
    server: str | None,
    store: Path | None,
    mirror: Path | None,
    index: Path | None,
    insecure_http: bool,  # noqa: FBT001 - click's flag
    limit: int,
    newest: bool,  # noqa: FBT001
    count: bool,  # noqa: FBT001
    group: str | None,
    as_json: bool,  # noqa: FBT001
    **options: Any,
) -> None:
    """Find the entries that match all filters; a filter given twice takes either value.

    With --json one object a line, with its `index` in the log. Without, a table for people, with
    long values cut.
    """
    place = where(server=server, store=store, index=index, mirror=mirror, insecure=insecure_http)
    given = given_filters(options)
    if count or group is not None:
        _print_counts(_counts(place, given, group), as_json=as_json)
        return
    # One more than is shown: whoever is not told would take a part for all.
    rows = iter(_entries(place, given, limit=limit + 1, newest_first=newest))
    shown = islice(rows, limit)
    if as_json:
        for row in shown:
            click.echo(inert_json(row))
    else:
        _print_table(list(shown))
    if next(rows, None) is not None:
        which = "newest" if newest else "oldest"
        note(f"There are more: these are the {which} {limit}. --limit N shows more.")


@click.command("show")
@where_options
@click.argument("number", metavar="INDEX", type=click.IntRange(min=0))
@json_option
def show_command(  # noqa: PLR0917 - one parameter for each option
    server: str | None,
    store: Path | None,
    mirror: Path | None,
    index: Path | None,
    insecure_http: bool,  # noqa: FBT001 - click's flag
    number: int,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Show one entry of the log: what it states, its proof, and what has become of it."""
    place = where(server=server, store=store, index=index, mirror=mirror, insecure=insecure_http)
    if place.server is not None:
        document = place.server.details(number)
    else:

        async def work(audit: OfflineAudit) -> dict[str, Any]:
            return (await audit.auditor.details(number)).document()

        document = _offline(place, work)
    if as_json:
        click.echo(inert_json(document, indent=2))
    else:
        for line in _lines(document):
            click.echo(printable(line))
        if place.server is not None:
            note(f"So says the server. `secure-cache audit prove {number}` proves it.")


def _entries(
    place: Where, given: dict[str, list[str]], *, limit: int, newest_first: bool
) -> Iterable[dict[str, Any]]:
    if place.server is not None:
        return place.server.entries(given, limit=limit, newest_first=newest_first)
    wanted = Filter.parse(given)

    async def work(audit: OfflineAudit) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for rows in audit.auditor.export(wanted, PageRequest(newest_first=newest_first)):
            found += [row_document(row) for row in rows[: limit - len(found)]]
            if len(found) == limit:
                break
        return found

    return _offline(place, work)


def _counts(place: Where, given: dict[str, list[str]], group: str | None) -> dict[str, Any]:
    if place.server is not None:
        return place.server.counts(given, group)
    wanted = Filter.parse(given)

    async def work(audit: OfflineAudit) -> dict[str, Any]:
        if group is None:
            return {"total": await audit.auditor.count(wanted)}
        found = await audit.auditor.count_by(group, wanted, limit=MAX_GROUPS)
        counts = [{"value": value, "entries": entries} for value, entries in found.counts]
        return {"total": found.total, "distinct": found.distinct, "counts": counts}

    return _offline(place, work)


def _offline(place: Where, work: Callable[[OfflineAudit], Awaitable[_Result]]) -> _Result:
    """Bring the index up to date, then do `work`."""
    if place.mirror is not None:
        return anyio.run(_over_mirror, place.mirror, work)
    settings = place.settings
    assert settings is not None  # noqa: S101 - a place has one of the three

    async def run() -> _Result:
        path = offline_index_path(settings, place.index)
        async with offline_audit(settings, path, clock=system_clock) as audit:
            done = await audit.catch_up(Progress("indexing"))
            if not done.ours and done.size < done.published:
                note(f"Another process is indexing: {done.size} of {done.published} entries yet.")
            return await work(audit)

    return anyio.run(run)


async def _over_mirror(folder: Path, work: Callable[[OfflineAudit], Awaitable[_Result]]) -> _Result:
    async with mirror_audit(folder, clock=system_clock) as audit:
        return await work(audit)


class Progress:
    """Says on stderr how far long work has come; on a terminal only, and in place."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = False

    def __call__(self, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if done < total or self._told:
            self._told = True
            end = "\n" if done >= total else ""
            click.echo(f"\r{self._what}: {done:,} of {total:,} entries{end}", nl=False, err=True)


def _print_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        note("No entry matches.")
        return
    cells = [[_cell(row.get(name)) for name in _COLUMNS] for row in rows]
    table = [list(_COLUMNS), *cells]
    widths = [max(len(line[column]) for line in table) for column in range(len(_COLUMNS))]
    for line in table:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
    note(_counted(len(rows), "entry", "entries"))


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _cell(value: object) -> str:
    text = "" if value is None else printable(str(value))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _print_counts(counts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(inert_json(counts))
        return
    for item in counts.get("counts", []):
        value = "(none)" if item["value"] is None else printable(str(item["value"]))
        click.echo(f"{item['entries']:>12,}  {value}")
    if "counts" in counts:
        entries = _counted(counts["total"], "entry", "entries")
        note(f"{entries}, {_counted(counts['distinct'], 'group', 'groups')}")
    else:
        click.echo(counts["total"])


def _lines(document: dict[str, Any]) -> list[str]:
    """For people: the row, then what was verified there, then what became of it."""
    entry, proof, state = document["entry"], document["proof"], document["state"]
    lines = [f"{name:14} {_shown(value)}" for name, value in entry.items()]
    signature = document["signature"]
    if signature is not None:
        lines.append(f"{'signature':14} {'valid' if signature['valid'] else signature['why']}")
    lines.append(
        f"{'in the log':14} proved: entry {proof['index']} of {proof['size']}, root {proof['root']}"
    )
    if state is not None:
        lines.append(f"{'state':14} {state['state']} ({state['line']}): {state['why']}")
    lines += [
        f"{'then':14} entry {event['index']}: {event['event']} at {event.get('time')}"
        for event in document["events"]
    ]
    return lines


def _shown(value: object) -> str:
    return inert_json(value).decode() if isinstance(value, dict) else str(value)


__all__ = ["Progress", "query_command", "show_command"]
