"""`secure-cache audit impact`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import click

from secure_cache.audit.forms import inert_json
from secure_cache.audit.impact import GROUPS, Effect, Hit, Impact
from secure_cache.cli.audit_query import Progress
from secure_cache.cli.boundary import Exit, note, printable
from secure_cache.cli.options import json_option
from secure_cache.cli.source_options import source_options
from secure_cache.compose.impact import impact_of
from secure_cache.compose.impact_question import Asked, Change
from secure_cache.compose.log_source import LogPlace
from secure_cache.model.clock import system_clock

_SHOWN = 10


@click.command("impact")
@click.argument("revocation", required=False)
@click.option(
    "--policy",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The policy with the change, before it is put in force.",
)
@click.option("--list", "as_list", is_flag=True, help="Also each entry, one JSON object a line.")
@source_options
@json_option
def impact_command(
    revocation: str | None, policy: Path | None, *, as_list: bool, place: LogPlace, as_json: bool
) -> int:
    """What REVOCATION would hide: its id in the edited policy, or, without --policy, a YAML file
    with it. With --policy alone: all that the edit changes.

    Compares with the policy that the log says is in force, entry by entry, as they are judged when
    they are read. Ends with 1 when nothing would vanish: then look for a typing error.
    """
    if revocation is None and policy is None:
        raise click.UsageError("give a file with a revocation, or --policy with the edited one")

    def tell(hit: Hit) -> None:
        if as_list:
            click.echo(inert_json(hit.document()))

    async def work() -> Impact:
        return await impact_of(
            place,
            Change(policy, revocation),
            clock=system_clock,
            asked=_tell_question,
            tell=tell,
            progress=Progress("judging"),
        )

    found = anyio.run(work)
    document = found.document()
    if as_json:
        click.echo(inert_json(document))
    else:
        # With --list the entries alone are the result.
        say: Callable[[str], None] = note if as_list else click.echo
        for line in _lines(document):
            say(printable(line))
    return _verdict(found)


def _tell_question(asked: Asked) -> None:
    question = asked.question
    for warning in asked.warnings:
        note(printable(str(warning)))
    note(f"Compared with policy {question.today.sha256}, which the log says is in force.")
    if question.today.sha256 == question.then.sha256:
        note("That is the very file that was given: nothing can change.")


def _verdict(found: Impact) -> int:
    appear, covered = found.effects[Effect.APPEARS], sum(found.effects.values())
    if appear:
        note(f"{appear} entries that are hidden today would be served again.")
    if found.effects[Effect.VANISHES]:
        return Exit.OK
    note("Nothing that is served today would vanish.")
    if not covered:
        note("It covers no entry at all: look for a typing error.")
    return Exit.NO


def _lines(document: dict[str, Any]) -> list[str]:
    counts = {
        "vanishes": f"entries would vanish, {document['bytes']:,} bytes",
        "hidden_already": "are covered, and the policy in force hides them already",
        "not_served": "are covered, and were replaced or quarantined, or their key is revoked",
        "appears": "entries that are hidden today would be served again",
        "looked_at": "entries of the log were judged",
        "writers_refused": "writers of these have a token that would be refused",
        "writers_not_refused": "of them have none: only what they wrote goes",
    }
    lines = [f"{document[name]:>12,}  {text}" for name, text in counts.items()]
    if document["first"] is not None:
        first, last = document["first"], document["last"]
        lines.append(
            f"from entry {first['index']} ({first['time']}) to {last['index']} ({last['time']})"
        )
    for name in GROUPS:
        found = document[f"by_{name}"]
        lines += [f"by {name}:"] if found else []
        lines += [f"{count:>12,}  {value}" for value, count in list(found.items())[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"{'':>12}  and {len(found) - _SHOWN} more")
    return lines
