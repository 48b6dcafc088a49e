"""`secure-cache audit mirror`."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from secure_cache.cli.audit_query import Progress
from secure_cache.cli.boundary import Exit, guarded, note, printable
from secure_cache.cli.options import json_option
from secure_cache.cli.source_options import place_of, place_options
from secure_cache.client.mirror_check import Checked
from secure_cache.client.mirror_folder import MirrorProblem, read_pins
from secure_cache.compose.mirroring import MirrorRun, check_whole_mirror, run_mirror
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import CorruptObject, Misconfigured, Unavailable

_SHOWN = 20


@click.command("mirror")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@place_options
@click.option("--check", is_flag=True, help="Check the mirror that is there; fetch nothing.")
@click.option("--repair", is_flag=True, help="Prove all of it again, and fetch what is damaged.")
@json_option
def mirror_command(
    folder: Path,
    *,
    check: bool,
    repair: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Copy the log of a server or an installation to DIR, and verify all of it.

    Run it again to fetch what is new: the log must lead on from what is in DIR. Ends with 5, and
    keeps the proof in DIR/evidence, if it does not. The folder is in C2SP tlog-tiles form;
    `--mirror DIR` of the other commands reads it.
    """
    if check:
        return _check(folder, as_json=as_json)
    if options["mirror"] is not None:
        raise click.UsageError("a mirror is made of --server or --store")
    if options["server"] is None and options["store"] is None:
        raise click.UsageError(f"say where the log is: --server or --store{_last_time(folder)}")
    place = place_of(options)
    progress = _Steps()
    codes: list[int] = []

    def tell(run: MirrorRun) -> None:
        if not run.pinned:
            note(
                "The log's key was taken from the server itself, and is pinned in"
                f" {folder / 'mirror.json'} from now on:"
                " compare it once with what the operator published."
            )
        codes.append(_tell(run, folder, as_json=as_json))

    async def work() -> None:
        await run_mirror(place, folder, tell, clock=system_clock, repair=repair, progress=progress)

    # An index that cannot be made must not turn bad entries into an outage.
    code = guarded(partial(anyio.run, work), os.environ)
    return Exit.INTEGRITY if Exit.INTEGRITY in codes else code


def _last_time(folder: Path) -> str:
    """For people. Not used by itself: a token goes only where somebody has said."""
    try:
        return f"; the last time it was {read_pins(folder).source}"
    except (Misconfigured, CorruptObject, Unavailable):
        return ""


def _tell(run: MirrorRun, folder: Path, *, as_json: bool) -> int:
    done = run.mirrored
    judged = done.judgement
    document = {
        "ok": not judged.bad_count,
        "origin": done.checkpoint.origin,
        "size": done.checkpoint.size,
        "new": done.checkpoint.size - done.before,
        "root": done.checkpoint.root.hex(),
        "bad_count": judged.bad_count,
        "bad": [{"index": index, "why": why} for index, why in judged.bad],
        "revoked": judged.revoked,
        "missing_policies": done.missing_policies,
    }
    if as_json:
        click.echo(json.dumps(document))
    else:
        click.echo(
            f"{printable(done.checkpoint.origin)}: {done.checkpoint.size} entries,"
            f" {document['new']} of them new, root {done.checkpoint.root.hex()}"
        )
        for index, why in judged.bad[:_SHOWN]:
            click.echo(printable(f"entry {index}: {why}"))
        for sha256, why in done.missing_policies.items():
            note(f"The text of the policy {sha256} is not to be had: {why}")
    _tell_revoked(judged.revoked)
    if judged.bad_count:
        note(
            f"{judged.bad_count} entries are in the log and are not signed by its keys. They are"
            f" kept in {folder}, as evidence: somebody who may append was not the server."
        )
        return Exit.INTEGRITY
    return Exit.OK


def _check(folder: Path, *, as_json: bool) -> int:
    problems, checked = anyio.run(_problems, folder)
    if as_json:
        rows = [{"path": p.path, "what": p.what, "remedy": p.remedy} for p in problems]
        document = {
            "ok": not problems,
            "size": checked.size,
            "revoked": checked.revoked,
            "problems": rows,
        }
        click.echo(json.dumps(document))
    else:
        for problem in problems:
            click.echo(printable(str(problem)))
    if problems:
        note(f"{folder} is damaged or was changed: {len(problems)} differences.")
        return Exit.INTEGRITY
    if not as_json:
        click.echo(f"ok: all of {checked.size} entries, under a checkpoint that the log signed")
    _tell_revoked(checked.revoked)
    return Exit.OK


async def _problems(folder: Path) -> tuple[list[MirrorProblem], Checked]:
    checked = Checked()
    found = check_whole_mirror(folder, checked, clock=system_clock, progress=_Steps())
    return [problem async for problem in found], checked


def _tell_revoked(count: int) -> None:
    if count:
        note(
            f"{count} entries are signed by keys that were revoked since: they prove nothing, and"
            " none of them is served."
        )


class _Steps:
    """One line of progress for each step."""

    def __init__(self) -> None:
        self._lines: dict[str, Progress] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        self._lines.setdefault(what, Progress(what))(done, total)
