"""Options that several commands share."""

import json
import os
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from secure_cache.cli.duration import Duration
from secure_cache.settings import Settings, load_settings

_F = TypeVar("_F", bound=Callable[..., Any])
_R = TypeVar("_R")

DURATION = Duration()


def config_option(command: Callable[..., _R]) -> Callable[..., _R]:
    """`--config`, given to the command as `settings`: read after the command line was parsed, so
    that a typing error in it is told first."""

    @wraps(command)
    def with_settings(*arguments: Any, settings: Path, **options: Any) -> _R:
        return command(*arguments, settings=read_settings(settings), **options)

    return click.option(
        "--config",
        "settings",
        type=click.Path(path_type=Path),
        default="secure-cache.toml",
        envvar="SECURE_CACHE_CONFIG",
        show_envvar=True,
        show_default=True,
        help="The settings file that `secure-cache init` wrote.",
    )(with_settings)


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
