"""`secure-cache policy explain --entry`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import click

from secure_cache.audit.forms import inert_json
from secure_cache.cli.boundary import Exit, printable
from secure_cache.cli.source_options import place_of
from secure_cache.compose.impact import Judged, judge_entry
from secure_cache.model.clock import system_clock
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.explain import explain


def explain_entry(
    policy: Path, compiled: CompiledPolicy, index: int, place: Mapping[str, Any], *, as_json: bool
) -> int:
    """Print whether entry `index` of a log is served under a policy, and what decides."""

    async def work() -> Judged:
        return await judge_entry(place_of(place), index, policy, compiled, clock=system_clock)

    found = anyio.run(work)
    entry, hidden = found.entry, found.hidden
    where = f"{policy}:{found.number}" if found.number is not None else str(policy)
    if as_json:
        document = {
            "index": index,
            "served": hidden is None,
            "line": found.line,
            "number": found.number,
            "why": None if hidden is None else hidden.why,
            "namespace": str(entry.namespace),
            "key": str(entry.key),
        }
        click.echo(inert_json(document))
    else:
        lines = [
            f"entry {index}: {entry.tier} {entry.namespace}, key {entry.key}",
            f"writer: {entry.writer.issuer} {entry.writer.subject}, by rule {entry.rule}",
            "served" if hidden is None else f"hidden: {hidden.why}",
            f"decided by: {found.line} ({where})",
        ]
        for line in lines:
            click.echo(printable(line))
        for line in str(explain(compiled, entry.writer)).split("\n"):
            click.echo(printable(f"    {line}"))
    return Exit.OK if hidden is None else Exit.NO
