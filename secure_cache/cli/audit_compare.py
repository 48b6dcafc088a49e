"""`secure-cache audit compare`."""

import base64
import json
from pathlib import Path
from typing import Any

import anyio
import click

from secure_cache.cli.boundary import Exit, complain, note, printable
from secure_cache.cli.options import json_option
from secure_cache.cli.source_options import place_of, place_options, read_log_keys, tell_unpinned
from secure_cache.client.comparison import Compared, Relation, compare, compare_with_now
from secure_cache.client.log_folder import read_bounded
from secure_cache.client.mirror_folder import put
from secure_cache.compose.log_source import LogPlace, open_log_source
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import (
    HistoryChanged,
    LogInconsistent,
    Malformed,
    Misconfigured,
    NotFound,
)
from secure_cache.tlog.contradiction import MAX_CONTRADICTION_BYTES, Contradiction
from secure_cache.tlog.fetched import CHECKPOINT, Trust
from secure_cache.tlog.note import MAX_NOTE_BYTES

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("compare")
@click.argument("first", metavar="CHECKPOINT", type=_FILE, required=False)
@click.argument("second", metavar="[CHECKPOINT]", type=_FILE, required=False)
@place_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to keep the proof when the two contradict each other.",
)
@click.option("--evidence", type=_FILE, help="Verify such a proof, offline, instead.")
@json_option
def compare_command(
    first: Path | None,
    second: Path | None,
    *,
    out: Path | None,
    evidence: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Compare two signed checkpoints, or one with the log as it is now.

    Either the later one continues the earlier one, which is proved, or they contradict each other:
    then it ends with 5, and both are kept as a proof that anybody can verify.
    """
    if evidence is not None:
        return _verify_evidence(evidence, options["log_key"], as_json=as_json)
    if first is None:
        raise click.UsageError("give one or two files with signed checkpoints")
    notes = [_read(path) for path in (first, second) if path is not None]
    try:
        found = anyio.run(_compare, notes, options)
    except HistoryChanged as error:
        return _contradicted(error, out, as_json=as_json)
    if as_json:
        click.echo(json.dumps(_document(found)))
    elif found.relation is Relation.SAME:
        click.echo(f"same: both are {found.newer.size} entries, root {found.newer.root.hex()}")
    else:
        click.echo(
            f"extends: {found.newer.size} entries continue {found.older.size};"
            f" proved by {len(found.proof)} hashes"
        )
    return Exit.OK


async def _compare(notes: list[bytes], options: dict[str, Any]) -> Compared:
    has_place = any(options[name] is not None for name in ("server", "store", "mirror"))
    if has_place:
        place: LogPlace = place_of(options)
        async with open_log_source(place, clock=system_clock) as source:
            tell_unpinned(source)
            if len(notes) == 1:
                now = await source.fetch(CHECKPOINT)
                return await compare_with_now(notes[0], now, source.trust, source.fetch)
            return await compare(notes[0], notes[1], source.trust, source.fetch)
    if len(notes) == 1:
        raise click.UsageError("one checkpoint is compared with a log: --server, --store, --mirror")
    if options["log_key"] is None:
        raise click.UsageError("say what proves the log: --log-key VKEY, or where the log is")
    vkeys = read_log_keys(options["log_key"])
    return await compare(notes[0], notes[1], Trust(vkeys, vkeys[0].name), None)


def _contradicted(error: HistoryChanged, out: Path | None, *, as_json: bool) -> int:
    complain(str(error))
    kept: list[str] = []
    if out is not None:
        files = {"older.checkpoint": error.older, "newer.checkpoint": error.newer}
        if error.proof is not None:
            files["contradiction.json"] = error.proof
        for name, data in files.items():
            put(out / name, data)
            kept.append(str(out / name))
        note(f"Kept: {', '.join(kept)}")
    elif error.proof is not None:
        note("Run it again with --out DIR to keep the proof: it convinces everybody.")
    if as_json:
        document = {"relation": "contradicts", "why": str(error), "kept": kept}
        click.echo(json.dumps(document))
    return Exit.INTEGRITY


def _verify_evidence(path: Path, log_key: str | None, *, as_json: bool) -> int:
    if log_key is None:
        raise click.UsageError("say what proves the log: --log-key VKEY, as you know it")
    vkeys = read_log_keys(log_key)
    try:
        older, newer = Contradiction.decode(_read(path, MAX_CONTRADICTION_BYTES)).verify(
            vkeys, origin=vkeys[0].name
        )
    except (Malformed, LogInconsistent) as error:
        complain(f"{path} proves nothing: {error}")
        return Exit.NO
    text = (
        f"proved: the key of {older.origin} has signed {older.size} entries with root"
        f" {older.root.hex()} and {newer.size} entries with root {newer.root.hex()},"
        " which contradict each other"
    )
    click.echo(json.dumps({"ok": True, "why": text}) if as_json else printable(text))
    return Exit.OK


def _document(found: Compared) -> dict[str, Any]:
    return {
        "relation": str(found.relation),
        "older": {"size": found.older.size, "root": found.older.root.hex()},
        "newer": {"size": found.newer.size, "root": found.newer.root.hex()},
        "proof": [base64.b64encode(hash_).decode() for hash_ in found.proof],
    }


def _read(path: Path, max_bytes: int = MAX_NOTE_BYTES) -> bytes:
    try:
        return read_bounded(path, max_bytes, follow_links=True)
    except NotFound as error:
        raise Misconfigured(f"{path} is not there") from error
