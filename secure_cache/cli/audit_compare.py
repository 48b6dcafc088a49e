"""`secure-cache audit compare`."""

import base64
import json
from pathlib import Path
from typing import Any

import anyio
import click

from secure_cache.cli.boundary import Exit, complain, note, printable
from secure_cache.cli.options import json_option
from secure_cache.cli.source_options import (
    place_of,
    place_options,
    read_given,
    read_log_keys,
    tell_unpinned,
)
from secure_cache.client.comparison import Compared, Relation, Shown, compare, compare_with_now
from secure_cache.client.log_folder import read_bounded
from secure_cache.client.mirror_folder import put
from secure_cache.compose.log_source import LogPlace, open_log_source
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import (
    CorruptObject,
    HistoryChanged,
    LogInconsistent,
    Malformed,
    NotFound,
    StorageUnavailable,
)
from secure_cache.tlog.contradiction import MAX_CONTRADICTION_BYTES, Contradiction
from secure_cache.tlog.fetched import Trust, advised
from secure_cache.tlog.note import MAX_NOTE_BYTES

_FILE = click.Path(path_type=Path, dir_okay=False)


class _ProvesNothingError(Exception):
    """A file that was given is no checkpoint that the log's key has signed."""


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

    Either the later one continues the earlier one, which is proved, or they contradict each other,
    or the log was put back: then it ends with 5, and both are kept, as a proof that anybody can
    verify. It ends with 1 when a file is no checkpoint that the log's key has signed, and when a
    mirror is too old to tell.
    """
    if evidence is not None:
        if first is not None:
            raise click.UsageError("--evidence stands alone: it holds both checkpoints")
        return _verify_evidence(evidence, options["log_key"], as_json=as_json)
    if first is None:
        raise click.UsageError("give one or two files with signed checkpoints")
    paths = [first] if second is None else [first, second]
    try:
        found = anyio.run(_compare, paths, options)
    except _ProvesNothingError as error:
        return _no(str(error), as_json=as_json)
    except HistoryChanged as error:
        return _changed(error, out, as_json=as_json)
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


async def _compare(paths: list[Path], options: dict[str, Any]) -> Compared:
    if all(options[name] is None for name in ("server", "store", "mirror")):
        if len(paths) == 1:
            raise click.UsageError(
                "one checkpoint is compared with a log: --server, --store, --mirror"
            )
        vkeys = read_log_keys(_pinned(options["log_key"]))
        trust = Trust(vkeys, vkeys[0].name)
        first, second = (_signed(path, trust) for path in paths)
        return await compare(first, second, trust, None)
    place: LogPlace = place_of(options)
    async with open_log_source(place, clock=system_clock) as source:
        tell_unpinned(source)
        notes = [_signed(path, source.trust) for path in paths]
        now = await source.log.checkpoint_note()
        with advised(source.remedy):
            shown = Shown(now, source.fetch, is_copy=place.mirror is not None)
            if len(notes) == 1:
                return await compare_with_now(notes[0], shown, source.trust)
            return await compare(notes[0], notes[1], source.trust, shown)


def _signed(path: Path, trust: Trust) -> bytes:
    """A checkpoint from a file; what it says against a log is worth its signature."""
    try:
        data = read_given(path, MAX_NOTE_BYTES)
        trust.open_last(data)
    except (CorruptObject, LogInconsistent) as error:
        why = str(error.__cause__ or error)
        raise _ProvesNothingError(
            f"{path} is no checkpoint that the key of {trust.origin} has signed: {why}"
        ) from error
    return data


def _changed(error: HistoryChanged, out: Path | None, *, as_json: bool) -> int:
    complain(str(error))
    kept: list[str] = []
    if out is None:
        note("Run it again with --out DIR to keep both checkpoints: they are evidence.")
    else:
        files = {"older.checkpoint": error.older, "newer.checkpoint": error.newer}
        if error.proof is not None:
            files["contradiction.json"] = error.proof
        try:
            kept = _keep(out, files)
            note(f"Kept: {', '.join(kept)}")
        except StorageUnavailable as failed:
            # What was found counts more than that it could not be kept.
            complain(f"the evidence is not kept: {failed}")
    if as_json:
        relation = "put-back" if error.proof is None else "contradicts"
        click.echo(json.dumps({"relation": relation, "why": str(error), "kept": kept}))
    return Exit.INTEGRITY


def _keep(out: Path, files: dict[str, bytes]) -> list[str]:
    """Beside nothing that is evidence for something else. Raises: StorageUnavailable."""
    for name, data in files.items():
        try:
            other = read_bounded(out / name, max(len(data), 1)) != data
        except NotFound:
            other = False
        except CorruptObject:
            other = True
        if other:
            raise StorageUnavailable(f"{out / name} is there, and is another file")
    for name, data in files.items():
        put(out / name, data)
    return [str(out / name) for name in files]


def _verify_evidence(path: Path, log_key: str | None, *, as_json: bool) -> int:
    vkeys = read_log_keys(_pinned(log_key))
    try:
        data = read_given(path, MAX_CONTRADICTION_BYTES)
        older, newer = Contradiction.decode(data).verify(vkeys, origin=vkeys[0].name)
    except (Malformed, LogInconsistent, CorruptObject) as error:
        return _no(f"{path} proves nothing: {error}", as_json=as_json)
    text = (
        f"proved: the key of {older.origin} has signed {older.size} entries with root"
        f" {older.root.hex()} and {newer.size} entries with root {newer.root.hex()},"
        " which contradict each other"
    )
    click.echo(json.dumps({"ok": True, "why": text}) if as_json else printable(text))
    return Exit.OK


def _pinned(log_key: str | None) -> str:
    if log_key is None:
        raise click.UsageError("say what proves the log: --log-key VKEY, as you know it")
    return log_key


def _no(why: str, *, as_json: bool) -> int:
    complain(why)
    if as_json:
        click.echo(json.dumps({"ok": False, "why": why}))
    return Exit.NO


def _document(found: Compared) -> dict[str, Any]:
    return {
        "relation": str(found.relation),
        "older": {"size": found.older.size, "root": found.older.root.hex()},
        "newer": {"size": found.newer.size, "root": found.newer.root.hex()},
        "proof": [base64.b64encode(hash_).decode() for hash_ in found.proof],
    }
