"""`secure-cache audit policies`."""

import re
from collections.abc import Iterator

import anyio
import click

from secure_cache.audit.forms import inert_json
from secure_cache.audit.policy_history import PolicyComparison, PolicyVersion
from secure_cache.cli.boundary import note, printable
from secure_cache.cli.options import json_option
from secure_cache.cli.source_options import source_options, tell_unpinned
from secure_cache.compose.log_source import LogPlace
from secure_cache.compose.policy_log import PolicyLog, open_policy_log
from secure_cache.model.clock import rfc3339, system_clock
from secure_cache.model.errors import NotFound
from secure_cache.policy.past import Verdict
from secure_cache.policy.text_diff import Line, LineKind

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_SIGNS = {LineKind.SAME: " ", LineKind.REMOVED: "-", LineKind.ADDED: "+"}
_WORDS = {
    None: "the first",
    Verdict.LOOSENED: "LOOSENED",
    Verdict.CHANGED: "changed: read its diff",
    Verdict.TIGHTENED: "tightened",
    Verdict.SAME: "same grants",
    Verdict.UNKNOWN: "unknown",
}


@click.command("policies")
@source_options
@click.option(
    "--diff",
    "pair",
    nargs=2,
    metavar="A B",
    help="What changed from policy A to policy B: numbers, or the beginnings of their SHA-256.",
)
@json_option
def policies_command(
    place: LogPlace,
    pair: tuple[str, str] | None,
    as_json: bool,  # noqa: FBT001 - click's flag
) -> None:
    """Which policy was in force when, and which change loosened it.

    Each event is proved to be in the log, and each text by its digest. With --diff two of them are
    compared, in what they grant and line by line.
    """
    if pair is None:
        anyio.run(_list, place, as_json)
    else:
        anyio.run(_compare, place, pair, as_json)


async def _list(place: LogPlace, as_json: bool) -> None:  # noqa: FBT001 - handed on by anyio
    async with open_policy_log(place, clock=system_clock) as log:
        _tell(log)
        versions = await log.history.versions()
    if as_json:
        for version in versions:
            click.echo(inert_json(version.document()))
        return
    for line in _table(versions):
        click.echo(printable(line))
    loosened = sum(version.verdict is Verdict.LOOSENED for version in versions)
    policies = "policy" if len(versions) == 1 else "policies"
    note(f"{len(versions)} {policies}, {loosened} of them loosened the one before")


async def _compare(
    place: LogPlace,
    pair: tuple[str, str],
    as_json: bool,  # noqa: FBT001 - handed on by anyio
) -> None:
    async with open_policy_log(place, clock=system_clock) as log:
        _tell(log)
        older, newer = (_find(log, name) for name in pair)
        found = await log.history.diff(newer, older)
    if as_json:
        click.echo(inert_json(found.document(), indent=2))
        return
    for line in _lines(found):
        click.echo(printable(line))


def _tell(log: PolicyLog) -> None:
    tell_unpinned(log.source)
    for doubt in log.proved.doubts:
        note(doubt)


def _find(log: PolicyLog, name: str) -> str:
    """The digest of a policy that was named by its number or the beginning of its digest.

    Raises: NotFound; UsageError: neither, or more than one.
    """
    number = int(name) if _NUMBER.fullmatch(name) else None
    beginning = name if _DIGEST.fullmatch(name) else None
    if number is None and beginning is None:
        raise click.UsageError("--diff: a policy's number, or at least 8 digits of its SHA-256")
    found = {
        event.sha256
        for event in log.proved.events
        if event.number == number or (beginning and event.sha256.startswith(beginning))
    }
    if not found:
        raise NotFound(f"the log has no policy {name}")
    if len(found) > 1:
        raise click.UsageError(f"--diff: more than one policy is {name}: give its SHA-256")
    return found.pop()


def _table(versions: tuple[PolicyVersion, ...]) -> Iterator[str]:
    yield f"{'policy':>6}  {'in force since':20}  {'entry':>8}  {'sha256':16}  what it changed"
    for version in versions:
        event = version.in_force
        why = f": {version.why}" if version.why else ""
        yield (
            f"{event.number:>6}  {rfc3339(event.at):20}  {event.index:>8}  {event.sha256[:16]}"
            f"  {_WORDS[version.verdict]}{why}"
        )


def _lines(found: PolicyComparison) -> Iterator[str]:
    yield f"from {found.against}"
    yield f"to   {found.sha256}"
    yield f"{_WORDS[found.verdict]}{': ' if found.why else ''}{found.why}"
    yield from (f"  {change}" for change in (*found.grants, *found.decisions))
    for hunk in found.hunks:
        yield f"@@ line {_first(hunk.lines)}"
        yield from (f"{_SIGNS[line.kind]}{line.text}" for line in hunk.lines)
    if found.cut:
        yield "... and more, which is not shown"


def _first(lines: tuple[Line, ...]) -> int | None:
    return next((line.old or line.new for line in lines), None)
