"""Options that several commands share."""

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from secure_cache.cli.duration import Duration
from secure_cache.settings import Settings, load_settings

_F = TypeVar("_F", bound=Callable[..., Any])

DURATION = Duration()


def config_option(command: _F) -> _F:
    """`--config`, given to the command as `settings`."""
    return click.option(
        "--config",
        "settings",
        type=click.Path(path_type=Path),
        default="secure-cache.toml",
        envvar="SECURE_CACHE_CONFIG",
        show_envvar=True,
        show_default=True,
        callback=lambda _context, _parameter, path: read_settings(path),
        help="The settings file that `secure-cache init` wrote.",
    )(command)


def read_settings(path: Path) -> Settings:
    """Raises: Misconfigured."""
    return load_settings(path, os.environ)


def json_option(command: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        command
    )


def print_json(value: object) -> None:
    """A result with structure, for programs."""
    click.echo(json.dumps(msgspec.to_builtins(value), indent=2))


def duration_text(seconds: float) -> str:
    """For people: `1:00:00`."""
    return str(timedelta(seconds=int(seconds)))
