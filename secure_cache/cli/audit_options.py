"""Options of the auditor's commands: where to look, and for what."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from secure_cache.audit.filters import NAMES, allowed
from secure_cache.cli.options import read_settings
from secure_cache.client.audit import RemoteAudit
from secure_cache.client.ci_token import clean_token
from secure_cache.client.http_answer import new_client
from secure_cache.client.remote import ServerAddress
from secure_cache.model.errors import InvalidToken, TokenProblem
from secure_cache.settings import Settings

_F = TypeVar("_F", bound=Callable[..., Any])
_TOKEN = "SECURE_CACHE_TOKEN"  # noqa: S105 - the name of a variable
_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Where:
    """A server, or the stores of an installation with an index, or a mirror with its own."""

    server: RemoteAudit | None
    settings: Settings | None
    index: Path | None
    mirror: Path | None = None


def where_options(command: _F) -> _F:
    """`--server`, `--store`, `--mirror`, `--index`; `where` makes a `Where` of them."""
    for option in (
        click.option(
            "--index",
            type=_FILE,
            help="With --store: the index file; by default the server's, else one of your own.",
        ),
        click.option(
            "--mirror",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="Ask this mirror, made by `audit mirror`. It cannot know what is served now.",
        ),
        click.option(
            "--store",
            metavar="CONFIG",
            type=_FILE,
            help="Read the stores that this settings file names, without a server.",
        ),
        click.option("--insecure-http", is_flag=True, help="Allow http to other machines."),
        click.option(
            "--server",
            envvar="SECURE_CACHE_SERVER",
            show_envvar=True,
            help=f"Ask this server, with the auditor's token in {_TOKEN}.",
        ),
    ):
        command = option(command)
    return command


def where(
    *,
    server: str | None,
    store: Path | None,
    index: Path | None,
    mirror: Path | None,
    insecure: bool,
) -> Where:
    """Raises: Malformed, InvalidToken, Misconfigured; UsageError for nothing to look at."""
    if mirror is not None:
        if store is not None or index is not None:
            raise click.UsageError("--mirror stands alone: it has its own index")
        return Where(None, None, None, mirror)
    if store is not None:
        return Where(None, read_settings(store), index)
    if server is None:
        raise click.UsageError("say where to look: --server URL, --store CONFIG or --mirror DIR")
    if index is not None:
        raise click.UsageError("--index goes with --store")
    token = os.environ.get(_TOKEN)
    if not token:
        raise InvalidToken(f"{_TOKEN} is not set: an auditor's token", TokenProblem.MISSING)
    address = ServerAddress.parse(server, insecure=insecure)
    return Where(RemoteAudit(address, clean_token(token, where=_TOKEN), new_client), None, None)


def filter_options(command: _F) -> _F:
    """One option for each filter, named like it."""
    for name in reversed(NAMES):
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            multiple=True,
            metavar="VALUE",
            help=allowed(name) + ".",
        )(command)
    return command


def given_filters(options: dict[str, Any]) -> dict[str, list[str]]:
    """What was asked for, in the form of `Filter.parse`."""
    return {name: list(options[name]) for name in NAMES if options[name]}
