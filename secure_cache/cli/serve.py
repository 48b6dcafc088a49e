"""`secure-cache serve`."""

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import click

from secure_cache.compose.serving import serve
from secure_cache.settings import load_settings


@click.command("serve")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default="secure-cache.toml",
    envvar="SECURE_CACHE_CONFIG",
    show_envvar=True,
    show_default=True,
    help="The settings file that `secure-cache init` wrote.",
)
@click.option("--host", help="Address to listen on, instead of server.host.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port, instead of server.port.")
@click.option("--workers", type=click.IntRange(1), help="Processes, instead of server.workers.")
@click.option("--root-path", help="Path prefix, instead of server.root_path.")
@click.option(
    "--strict-status",
    is_flag=True,
    help="True HTTP statuses. Not for Nx: it fails builds on any that it does not know.",
)
def serve_command(config: Path, *, strict_status: bool, **overrides: str | int | None) -> None:
    """Run the server; prints one line with its address when it is ready.

    SIGTERM and Ctrl-C finish what is open, then end it.
    """
    _override({**overrides, "strict_status": "true" if strict_status else None}, os.environ)
    settings = load_settings(config, os.environ)
    serve(config, settings, _announce)


def _override(options: Mapping[str, object], environ: MutableMapping[str, str]) -> None:
    """By environment, because workers are processes of their own and read settings anew."""
    for name, value in options.items():
        if value is not None:
            environ[f"SECURE_CACHE_SERVER__{name.upper()}"] = str(value)


def _announce(url: str) -> None:
    click.echo(f"secure-cache listening on {url}")
