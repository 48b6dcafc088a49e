"""`secure-cache storage`."""

import anyio
import click

from secure_cache.cli.boundary import note
from secure_cache.cli.options import config_option, json_option, print_json
from secure_cache.compose.stores import open_stores, opened
from secure_cache.settings import Settings


@click.group("storage")
def storage_command() -> None:
    """What the store can do, tried and not believed."""


@storage_command.command("check")
@config_option
@json_option
def check_storage(settings: Settings, *, as_json: bool) -> None:
    """Prove by doing that each store can create, replace, lock and make durable."""
    _prove(settings, as_json=as_json)


@storage_command.command("create")
@config_option
@json_option
def create_storage(settings: Settings, *, as_json: bool) -> None:
    """Make what is missing, then check it. The log inside is made by `secure-cache init` only."""
    _prove(settings, as_json=as_json)
    note("The store is there. A log is only ever begun by `secure-cache init`.")


def _prove(settings: Settings, *, as_json: bool) -> None:
    checked = anyio.run(_check, settings)
    if as_json:
        print_json({"kind": settings.storage.kind, "stores": checked})
        return
    for name in checked:
        click.echo(f"{name}: ok")


async def _check(settings: Settings) -> list[str]:
    async with opened(open_stores(settings.storage)) as stores:
        await stores.check()
        return list(stores.distinct())
