"""`secure-cache audit prove`, `verify-proof` and `verify`."""

import sys
from pathlib import Path

import anyio
import click

from secure_cache.audit.forms import inert_json
from secure_cache.cli.boundary import Exit, complain, note, printable
from secure_cache.cli.options import json_option
from secure_cache.cli.source_options import (
    key_options,
    read_given,
    read_keys,
    read_log_keys,
    read_witnesses,
    source_options,
    tell_unpinned,
)
from secure_cache.client.log_folder import read_bounded
from secure_cache.client.mirror_folder import put
from secure_cache.client.proofs import ProvedEntry, hash_stream, prove_entry
from secure_cache.compose.log_source import LogPlace, open_log_source
from secure_cache.compose.proving import MAX_SERVED, Proved, Served, ServedAs, prove, served_as
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import AlreadyExists, CorruptObject, NotFound
from secure_cache.tlog.fetched import Trust
from secure_cache.tlog.tiles import MAX_ENTRY_BYTES
from secure_cache.tlog.tlog_proof import MAX_PROOF_BYTES

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("prove")
@click.argument("number", metavar="INDEX", type=click.IntRange(min=0))
@click.option(
    "--out",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for INDEX.tlog-proof and INDEX.leaf.",
)
@click.option("--bundle", is_flag=True, help="Also write INDEX.sigstore.json.")
@source_options
@json_option
def prove_command(
    number: int, folder: Path, *, bundle: bool, place: LogPlace, as_json: bool
) -> int:
    """Write the proof that entry INDEX is in the log, for people who have no access to it.

    What is written was verified here first. `audit verify-proof` needs these files and the log's
    key, and nothing else. Ends with 1 when no key in force has signed the entry; that it is in the
    log is proved all the same.
    """

    async def work() -> Proved:
        async with open_log_source(place, clock=system_clock) as source:
            tell_unpinned(source)
            return await prove(source, number, with_bundle=bundle)

    proved = anyio.run(work)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_once({folder / name: data for name, data in proved.files.items()})
    _tell(proved.entry, as_json=as_json)
    note(f"Written: {', '.join(str(folder / name) for name in proved.files)}")
    if proved.entry.why_unsigned is not None:
        complain(
            f"entry {number} is in the log, which is proved, and its signature is not valid:"
            f" {proved.entry.why_unsigned}"
        )
        return Exit.NO
    return Exit.OK


@click.command("verify-proof")
@click.argument("proof", type=_FILE)
@click.option("--leaf", type=_FILE, help="The entry; by default PROOF with the ending .leaf.")
@key_options[0]
@key_options[1]
@key_options[2]
@json_option
def verify_proof_command(
    proof: Path,
    leaf: Path | None,
    log_key: str | None,
    keys: Path | None,
    witness_policy: Path | None,
    *,
    as_json: bool,
) -> int:
    """Verify a .tlog-proof offline: with the proof, the leaf and the keys, and nothing else.

    Ends with 1 when it does not verify, and says which part.
    """
    if log_key is None:
        raise click.UsageError("say what proves the log: --log-key VKEY, as you know it")
    vkeys = read_log_keys(log_key)
    witnesses = None if witness_policy is None else read_witnesses(witness_policy)
    trust = Trust(vkeys, vkeys[0].name, witnesses)
    ring = None if keys is None else read_keys(keys)
    try:
        found = prove_entry(
            _part(proof, MAX_PROOF_BYTES, "proof"),
            _part(leaf or proof.with_suffix(".leaf"), MAX_ENTRY_BYTES, "leaf"),
            trust,
            ring,
        )
    except CorruptObject as error:
        complain(str(error))
        if as_json:
            click.echo(inert_json({"ok": False, "why": str(error)}))
        return Exit.NO
    _tell(found, as_json=as_json)
    if ring is None:
        note("Who signed the entry was not checked: give --keys.")
    return Exit.OK


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--key", help="Only what was stored under this cache key.")
@source_options
@json_option
def verify_command(file: Path, key: str | None, *, place: LogPlace, as_json: bool) -> int:
    """Is FILE what the cache served, under which keys, and who made it?

    FILE (- for stdin) is an artifact as the build tool sent it. Every entry that is named was
    proved to be in the log and to be signed. Ends with 1 when the log has no such artifact.
    """
    digest, size = _hash(file)

    async def work() -> ServedAs:
        async with open_log_source(place, clock=system_clock) as source:
            tell_unpinned(source)
            return await served_as(source, place, digest, size, key=key, clock=system_clock)

    served = anyio.run(work)
    valid = [one for one in served.found if one.entry.keyid is not None]
    if as_json:
        entries = [_served_document(one) for one in served.found]
        document = {"ok": bool(valid), "sha256": digest, "size": size, "entries": entries}
        click.echo(inert_json({**document, "more": served.more}))
    else:
        click.echo(f"sha256 {digest}, {size} bytes")
        for one in served.found:
            for line in _served_lines(one):
                click.echo(printable(line))
    if served.more:
        note(f"There are more: these are the newest {MAX_SERVED}. --key HASH narrows it down.")
    if valid:
        return Exit.OK
    note(_why_not(served, key))
    return Exit.NO


def _why_not(served: ServedAs, key: str | None) -> str:
    if served.found:
        return "These bytes are in the log, but no key in force has signed an entry for them."
    under = "" if key is None else f" under the key {key}"
    if served.whole:
        return f"The log has no entry for these bytes{under}: the cache never served them."
    return (
        f"The server names no entry for these bytes{under}: by its word the cache never served"
        " them. A mirror, which has the whole log, can prove it."
    )


def _served_document(served: Served) -> dict[str, object]:
    entry = served.entry
    return {**entry.row, "state": served.state, "signature": entry.signature}


def _served_lines(served: Served) -> list[str]:
    row = served.entry.row
    writer = f"{row.get('issuer')} {row.get('subject')}"
    lines = [
        f"entry {row['index']}  {row.get('time')}  {row.get('tier')}  {row.get('namespace')}",
        f"    key     {row.get('key')}",
        f"    writer  {writer}, by rule {row.get('rule')}",
        f"    state   {served.state}",
    ]
    if served.entry.why_unsigned is not None:
        lines.append(f"    signed  {served.entry.signature}")
    return lines


def _tell(found: ProvedEntry, *, as_json: bool) -> None:
    if as_json:
        click.echo(inert_json(found.document()))
        return
    log = found.checkpoint
    lines = [f"{name:14} {value}" for name, value in found.row.items() if value is not None]
    lines.append(
        f"{'in the log':14} proved: {log.origin}, {log.size} entries, root {log.root.hex()}"
    )
    if found.cosigned_by:
        lines.append(f"{'witnesses':14} {', '.join(found.cosigned_by)}")
    lines.append(f"{'signature':14} {found.signature}")
    for line in lines:
        click.echo(printable(line))


def _hash(file: Path) -> tuple[str, int]:
    if str(file) == "-":
        return hash_stream(sys.stdin.buffer)
    with file.open("rb") as stream:
        return hash_stream(stream)


def _part(path: Path, max_bytes: int, what: str) -> bytes:
    try:
        return read_given(path, max_bytes)
    except CorruptObject as error:
        raise CorruptObject(
            f"the {what} is damaged: {path} is no plain file of at most {max_bytes} bytes"
        ) from error


def _write_once(files: dict[Path, bytes]) -> None:
    """All or, if one of them would replace something else, none: a proof of today's checkpoint
    does not replace one of yesterday's behind somebody's back."""
    for path, data in files.items():
        try:
            same = read_bounded(path, max(len(data), 1)) == data
        except NotFound:
            continue
        except CorruptObject:
            same = False
        if not same:
            raise AlreadyExists(f"{path} is there, and is another file: choose another folder")
    for path, data in files.items():
        put(path, data)


__all__ = ["prove_command", "verify_command", "verify_proof_command"]
