"""`secure-cache audit impact`."""

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
from secure_cache.compose.log_source import LogPlace
from secure_cache.model.clock import system_clock

_SHOWN = 10


@click.command("impact")
@click.argument("revocation", required=False)
@click.option(
    "--policy",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The policy with the change, before it is put in force.",
)
@click.option("--list", "as_list", is_flag=True, help="Also each entry, one JSON object a line.")
@source_options
@json_option
def impact_command(
    revocation: str | None, policy: Path, *, as_list: bool, place: LogPlace, as_json: bool
) -> int:
    """What REVOCATION, an id in the edited policy, would hide; without it: all that changes.

    Compares with the policy that the log says is in force, entry by entry, as they are judged when
    they are read. Ends with 1 when nothing would vanish: then look for a typing error.
    """

    def tell(hit: Hit) -> None:
        if as_list:
            click.echo(inert_json(hit.document()))

    async def work() -> Impact:
        return await impact_of(
            place,
            policy,
            revocation,
            clock=system_clock,
            tell=tell,
            progress=Progress("judging"),
        )

    found = anyio.run(work)
    document = found.document()
    if as_json:
        click.echo(inert_json(document))
    elif not as_list:
        for line in _lines(document):
            click.echo(printable(line))
    if found.effects[Effect.APPEARS]:
        note(
            f"{found.effects[Effect.APPEARS]} entries that are hidden today would be served again."
        )
    if not found.effects[Effect.VANISHES]:
        note("Nothing that is served today would vanish.")
        return Exit.NO
    return Exit.OK


def _lines(document: dict[str, Any]) -> list[str]:
    lines = [
        f"{document['vanishes']:>12,}  entries would vanish, {document['bytes']:,} bytes",
        f"{document['hidden_already']:>12,}  are covered and hidden already",
        f"{document['looked_at']:>12,}  entries of the log were judged",
    ]
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
