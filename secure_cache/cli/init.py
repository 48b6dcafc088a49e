"""`secure-cache init`."""

import os
import shlex
from pathlib import Path

import click

from secure_cache.cli.boundary import note
from secure_cache.compose.azure import NEEDS
from secure_cache.compose.init import Installation, initialise
from secure_cache.compose.init_azure import AzureInit, initialise_azure
from secure_cache.model.clock import system_clock


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
@click.option("--container", help="azure: the container. It must exist.")
@click.option("--account-name", help="azure: the storage account.")
@click.option("--endpoint", help="azure: the account's URL, where the name does not say it.")
@click.option(
    "--credential",
    type=click.Choice(["managed-identity", "workload-identity", "service-principal", "azure-cli"]),
    help="azure: as whom; not needed where AZURE_STORAGE_CONNECTION_STRING is set.",
)
@click.option(
    "--separate-containers",
    is_flag=True,
    help="azure: a container for each store, named CONTAINER-artifacts, CONTAINER-tiles and so on,"
    " so that each can have its own roles and policies.",
)
@click.option(
    "--create-containers", is_flag=True, help="azure: make those that are missing; development."
)
def init_command(
    directory: Path, url: str | None, storage: str, **azure: str | bool | None
) -> None:
    """Make DIRECTORY with settings, policy, keys and an empty store: a server ready to run.

    Nothing that is there already is overwritten.
    """
    if storage == "azure":
        made = initialise_azure(
            directory,
            _asked(url, **azure),
            clock=system_clock,
            random_bytes=os.urandom,
        )
    elif any(azure.values()):
        names = sorted(f"--{name.replace('_', '-')}" for name, value in azure.items() if value)
        raise click.UsageError(f"{' and '.join(names)} go with --storage azure")
    else:
        made = initialise(directory, url=url, clock=system_clock, random_bytes=os.urandom)
    click.echo(made.directory)
    _tell_next_steps(made)


def _asked(url: str | None, **azure: str | bool | None) -> AzureInit:
    container = azure["container"]
    if not isinstance(container, str):
        raise click.UsageError("--storage azure needs --container, and mostly --account-name")
    values = {"storage.kind": "azure"}
    if azure["separate_containers"]:
        values |= {f"storage.containers.{name}": f"{container}-{name}" for name in NEEDS}
    else:
        values["storage.container"] = container
    for option, name in (
        ("account_name", "accountName"),
        ("endpoint", "endpoint"),
        ("credential", "credential"),
    ):
        value = azure[option]
        if isinstance(value, str):
            values[f"storage.{name}"] = value
    return AzureInit(
        values=values,
        create_containers=bool(azure["create_containers"]),
        url=url,
        environ=os.environ,
    )


def _tell_next_steps(made: Installation) -> None:
    config = shlex.quote(str(made.config))
    note(f"Made {made.directory} with settings, policy, keys and an empty log. Next:")
    note(f"  secure-cache serve --config {config}")
    note(f"  secure-cache token issue --config {config} --project demo --branch main")
    note(f"Who may read and write what: {made.directory / 'policy.yaml'}")
    note(f"Tokens are made for: {made.audience}")
    note(f"The log's verifier key, for auditors to pin: {made.vkey}")
