"""`secure-cache init`."""

import os
import shlex
from pathlib import Path

import click

from secure_cache.cli.boundary import note
from secure_cache.compose.init import Installation, initialise
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import Misconfigured


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--url",
    help="The https address under which CI will reach the server: the audience of tokens, and"
    " the log's name. Needed when a CI's own tokens (OIDC) are to be accepted.",
)
@click.option(
    "--storage",
    type=click.Choice(["filesystem", "azure"]),
    default="filesystem",
    show_default=True,
    help="Where artifacts go.",
)
@click.option("--container", help="azure: the container.")
@click.option("--account-name", help="azure: the storage account.")
def init_command(
    directory: Path, url: str | None, storage: str, container: str | None, account_name: str | None
) -> None:
    """Make DIRECTORY with settings, policy, keys and an empty store: a server ready to run.

    Nothing that is there already is overwritten.
    """
    if storage != "filesystem":
        raise Misconfigured(
            "--storage azure: this version stores on the local file system only;"
            " leave --storage away"
        )
    if container is not None or account_name is not None:
        raise click.UsageError("--container and --account-name go with --storage azure")
    made = initialise(directory, url=url, clock=system_clock, random_bytes=os.urandom)
    click.echo(made.directory)
    _tell_next_steps(made)


def _tell_next_steps(made: Installation) -> None:
    config = shlex.quote(str(made.config))
    note(f"Made {made.directory} with settings, policy, keys and an empty log. Next:")
    note(f"  secure-cache serve --config {config}")
    note(f"  secure-cache token issue --config {config} --project demo --branch main")
    note(f"Who may read and write what: {made.directory / 'policy.yaml'}")
    note(f"Tokens are made for: {made.audience}")
    note(f"The log's verifier key, for auditors to pin: {made.vkey}")
