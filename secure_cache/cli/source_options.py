"""Options of commands that read a log: where it is, and what must prove it."""

import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from secure_cache.cli.boundary import note
from secure_cache.cli.options import read_settings
from secure_cache.client.ci_token import clean_token
from secure_cache.client.key_ring import read_ring
from secure_cache.client.log_folder import read_bounded
from secure_cache.client.remote import ServerAddress
from secure_cache.compose.log_source import LogPlace, LogSource, parse_vkeys
from secure_cache.model.errors import (
    CorruptObject,
    InvalidToken,
    Malformed,
    Misconfigured,
    NotFound,
    TokenProblem,
    Unavailable,
)
from secure_cache.provenance.keys import KeyRing
from secure_cache.tlog.note import Ed25519Verifier
from secure_cache.tlog.witness_policy import MAX_POLICY_BYTES, WitnessPolicy

_R = TypeVar("_R")
TOKEN = "SECURE_CACHE_TOKEN"  # noqa: S105 - the name of a variable
_FILE = click.Path(path_type=Path, dir_okay=False)
_MAX_KEYS_BYTES = 1 << 18


def source_options(command: Callable[..., _R]) -> Callable[..., _R]:
    """`--server`, `--store`, `--mirror`, and the keys; given to the command as `place`."""

    @wraps(command)
    def with_place(*arguments: Any, **options: Any) -> _R:
        mine = {name: options.pop(name) for name in PLACE_NAMES}
        return command(*arguments, place=place_of(mine), **options)

    return place_options(with_place)


def place_options(command: Callable[..., _R]) -> Callable[..., _R]:
    """The same options, given to the command as they are; `place_of` understands them."""
    wrapped = command
    for option in (*reversed(key_options), *reversed(_PLACES)):
        wrapped = option(wrapped)
    return wrapped


def place_of(options: Mapping[str, Any]) -> LogPlace:
    """Raises: as `log_place`."""
    # The variable for the server stands in many shells: an option on the line counts more.
    elsewhere = options["store"] is not None or options["mirror"] is not None
    return log_place(
        server=None if elsewhere else options["server"],
        store=options["store"],
        mirror=options["mirror"],
        log_key=options["log_key"],
        keys=options["keys"],
        witness_policy=options["witness_policy"],
        insecure=options["insecure_http"],
    )


PLACE_NAMES = (
    "server",
    "store",
    "mirror",
    "log_key",
    "keys",
    "witness_policy",
    "insecure_http",
)

_PLACES = (
    click.option(
        "--server",
        envvar="SECURE_CACHE_SERVER",
        show_envvar=True,
        help=f"Read the log of this server, with the auditor's token in {TOKEN}.",
    ),
    click.option("--insecure-http", is_flag=True, help="Allow http to other machines."),
    click.option(
        "--store",
        metavar="CONFIG",
        type=_FILE,
        help="Read the stores that this settings file names, without a server.",
    ),
    click.option(
        "--mirror",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Read this mirror, made by `audit mirror`.",
    ),
)

key_options = (
    click.option(
        "--log-key",
        metavar="VKEY|FILE",
        help="The log's verifier key, as you know it from elsewhere.",
    ),
    click.option(
        "--keys",
        metavar="FILE",
        type=_FILE,
        help="The keys of entries, as you know them: what `keys show --json` or /log/keys gives."
        " Without it those that the log announced.",
    ),
    click.option(
        "--witness-policy",
        metavar="FILE",
        type=_FILE,
        help="Ask for cosignatures by this C2SP tlog-policy.",
    ),
)
"""What has to prove a log, for commands that read it from nowhere, too."""


def log_place(
    *,
    server: str | None = None,
    store: Path | None = None,
    mirror: Path | None = None,
    log_key: str | None = None,
    keys: Path | None = None,
    witness_policy: Path | None = None,
    insecure: bool = False,
) -> LogPlace:
    """What the options mean.

    Raises:
        UsageError: no place, or two.
        Malformed, Misconfigured, InvalidToken: an option.
    """
    if sum(place is not None for place in (server, store, mirror)) != 1:
        raise click.UsageError("say where the log is: one of --server, --store and --mirror")
    address, token = None, None
    if server is not None:
        address = ServerAddress.parse(server, insecure=insecure)
        token = os.environ.get(TOKEN)
        if not token:
            raise InvalidToken(f"{TOKEN} is not set: an auditor's token", TokenProblem.MISSING)
        token = clean_token(token, where=TOKEN)
    return LogPlace(
        server=address,
        settings=None if store is None else read_settings(store),
        mirror=mirror,
        token=token,
        log_keys=() if log_key is None else read_log_keys(log_key),
        keys=None if keys is None else read_keys(keys),
        witnesses=None if witness_policy is None else read_witnesses(witness_policy),
    )


def read_log_keys(text: str) -> tuple[Ed25519Verifier, ...]:
    """`--log-key`: a vkey, or a file with some. Raises: Malformed, Misconfigured."""
    if "+" in text and not Path(text).exists():
        return parse_vkeys(text.encode(errors="surrogateescape"), where="--log-key")
    return parse_vkeys(_read(Path(text)), where=text)


def read_keys(path: Path) -> KeyRing:
    """`--keys`. Raises: Malformed, Misconfigured."""
    try:
        return read_ring(_read(path))
    except Malformed as error:
        raise Malformed(f"{path}: {error}") from error


def read_witnesses(path: Path) -> WitnessPolicy:
    """`--witness-policy`. Raises: Malformed, Misconfigured."""
    try:
        return WitnessPolicy.parse(_read(path, MAX_POLICY_BYTES))
    except Malformed as error:
        raise Malformed(f"{path}: {error}") from error


def tell_unpinned(source: LogSource) -> None:
    """Say that a key was believed that nobody has pinned."""
    if not source.pinned:
        keys = " ".join(str(verifier) for verifier in source.verifiers)
        note(
            "The log's key was taken from the server itself, so this proves nothing against the"
            f" server. Once you have compared it: --log-key {keys}"
        )


def read_given(path: Path, max_bytes: int) -> bytes:
    """A file that the user names.

    Raises:
        Misconfigured: not there, or cannot be read.
        CorruptObject: no plain file, or too large.
    """
    try:
        return read_bounded(path, max_bytes, follow_links=True)
    except NotFound as error:
        raise Misconfigured(f"{path} is not there") from error
    except Unavailable as error:
        raise Misconfigured(str(error)) from error


def _read(path: Path, max_bytes: int = _MAX_KEYS_BYTES) -> bytes:
    try:
        return read_given(path, max_bytes)
    except CorruptObject as error:
        raise Malformed(f"{path}: no plain file of at most {max_bytes} bytes") from error
