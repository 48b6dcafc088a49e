"""`secure-cache witness`."""

import base64
import json
import os
from pathlib import Path

import anyio
import click

from secure_cache.cli.boundary import Exit, complain, note
from secure_cache.cli.options import DURATION, json_option
from secure_cache.client.remote import ServerAddress
from secure_cache.compose.witness import following, serve_witness
from secure_cache.core.witness_follow import Contradicted, Followed, Follower
from secure_cache.core.witness_keys import create_witness, load_witness
from secure_cache.model.errors import LogInconsistent, Misconfigured, Unavailable
from secure_cache.tlog.contradiction import MAX_CONTRADICTION_BYTES, Contradiction
from secure_cache.tlog.note import Ed25519Verifier

_FOLDER = click.Path(path_type=Path, file_okay=False)
_TOKEN = "SECURE_CACHE_TOKEN"  # noqa: S105 - the name of a variable


@click.group("witness")
def witness_command() -> None:
    """Watch logs as a third party: cosign what extends the past, keep proof of what does not."""


@witness_command.command("init")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--name", required=True, help="The witness's name, such as witness.example.com/w1.")
@click.option("--log", "vkeys", multiple=True, help="Verifier key of a log to watch; repeatable.")
@click.option("--ml-dsa", "with_mldsa", is_flag=True, help="Also an ML-DSA-44 key (post-quantum).")
def init_witness(folder: Path, *, name: str, vkeys: tuple[str, ...], with_mldsa: bool) -> None:
    """Make the folder of a new witness, and print its verifier keys.

    Its key must never be used by two folders: each would cosign without the other's memory.
    """
    made = create_witness(folder, name=name, vkeys=vkeys, with_mldsa=with_mldsa)
    for cosigner in made.cosigners:
        click.echo(str(cosigner.verifier))
    note(f"Made {folder}. The logs that it watches are in {folder / 'witness.toml'}.")


@witness_command.command("show")
@click.argument("folder", metavar="DIR", type=_FOLDER)
def show_witness(folder: Path) -> None:
    """Print the witness's verifier keys, as a witness policy needs them."""
    for cosigner in load_witness(folder).cosigners:
        click.echo(str(cosigner.verifier))


@witness_command.command("serve")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8643, show_default=True, help="Port."
)
def run_witness(folder: Path, *, host: str, port: int) -> None:
    """Run a C2SP tlog-witness; prints one line with its address when it is ready."""
    serve_witness(
        folder,
        host=host,
        port=port,
        on_ready=lambda url: click.echo(f"secure-cache witness listening on {url}"),
    )


@witness_command.command("follow")
@click.argument("url")
@click.option(
    "--dir", "folder", type=_FOLDER, required=True, help="The folder that `witness init` made."
)
@click.option(
    "--every", type=DURATION, help="Look again after so long, such as 1m. Without it, look once."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the cosigned note here."
)
@click.option("--insecure-http", is_flag=True, help="Allow plain http to another machine.")
@json_option
def follow_log(
    url: str,
    *,
    folder: Path,
    every: int | None,
    out: Path | None,
    insecure_http: bool,
    as_json: bool,
) -> int:
    """Fetch the log at URL (https://cache.example.com/log) and cosign what extends the past.

    Exit 5 when the log was forked or rolled back; both signed checkpoints are kept as evidence.
    Where the tiles are not public, SECURE_CACHE_TOKEN is a token with the auditor's role.
    """
    address = ServerAddress.parse(url, insecure=insecure_http)
    show = _Show(as_json=as_json, out=out)
    return anyio.run(_follow, folder, address, every, show)


@witness_command.command("evidence")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--log", "vkey", required=True, help="Verifier key of the log.")
def check_evidence(file: Path, *, vkey: str) -> int:
    """Check, offline, that FILE proves a fork: two signed checkpoints that can not both be true."""
    verifier = Ed25519Verifier.parse(vkey)
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_CONTRADICTION_BYTES + 1)
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from error
    found = Contradiction.decode(data)
    try:
        older, newer = found.verify([verifier], origin=verifier.name)
    except LogInconsistent as error:
        complain(f"{file} proves nothing: {error}")
        return Exit.NO
    click.echo(
        f"fork: {verifier.name} signed a tree of {older.size} entries with root"
        f" {base64.b64encode(older.root).decode()}, and one of {newer.size} that does not extend it"
    )
    return Exit.OK


class _Show:
    """What each look found, for a person or a program."""

    def __init__(self, *, as_json: bool, out: Path | None) -> None:
        self._as_json = as_json
        self._out = out

    def followed(self, found: Followed) -> None:
        checkpoint = found.checkpoint
        if self._out is not None:
            _replace(self._out, found.note)
        root = base64.b64encode(checkpoint.root).decode()
        if self._as_json:
            facts = {"origin": checkpoint.origin, "size": checkpoint.size, "before": found.before}
            click.echo(json.dumps({"ok": True, **facts, "root": root}))
            return
        grown = f"extends {found.before}" if found.before else "first look"
        click.echo(f"ok: {checkpoint.origin} has {checkpoint.size} entries ({grown}), root {root}")

    def contradicted(self, error: Contradicted) -> None:
        if self._as_json:
            facts = {"ok": False, "kind": error.kind, "why": str(error), "evidence": error.evidence}
            click.echo(json.dumps(facts))


async def _follow(folder: Path, address: ServerAddress, every: int | None, show: _Show) -> int:
    async with following(folder, address, token=os.environ.get(_TOKEN)) as follower:
        while True:
            try:
                await _look(follower, show)
            except Unavailable as error:
                if every is None:
                    raise
                complain(f"{error}; looking again in {every} s")
            if every is None:
                return Exit.OK
            await anyio.sleep(every)


async def _look(follower: Follower, show: _Show) -> None:
    try:
        show.followed(await follower.look())
    except Contradicted as error:
        show.contradicted(error)
        raise


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)
