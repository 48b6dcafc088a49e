"""`secure-cache storage`."""

import os

import anyio
import click

from secure_cache.cli.boundary import Exit, complain, note
from secure_cache.cli.options import config_option, json_option, print_json
from secure_cache.compose.azure import make_containers
from secure_cache.compose.posture import Examined, examine, prove
from secure_cache.compose.stores import open_stores, opened
from secure_cache.settings import Settings
from secure_cache.storage.capabilities import StoreCapabilities

_YES_NO = {True: "yes", False: "no", None: "?"}
_COLUMNS = ("store", "create", "replace", "delete", "conditional", "WORM", "where")


@click.group("storage")
def storage_command() -> None:
    """What the store can do, tried and not believed."""


@storage_command.command("check")
@config_option
@json_option
def check_storage(settings: Settings, *, as_json: bool) -> int:
    """Prove by doing that each store can create, replace, lock and make durable.

    With Azure: what this identity may do in each container, which conditions and policies the
    account really enforces, and the clock. Exit code 1: the server lacks something that it needs.
    """
    if settings.storage.kind != "azure":
        return _prove(settings, as_json=as_json)
    examined = anyio.run(_examine, settings)
    if as_json:
        print_json(_document(examined))
    else:
        _print(examined)
    for line in examined.weaknesses:
        note(f"warning: {line}")
    for line in examined.lacks:
        complain(line)
    return Exit.NO if examined.lacks else Exit.OK


@storage_command.command("create")
@config_option
@json_option
def create_storage(settings: Settings, *, as_json: bool) -> int:
    """Make what is missing, for development. The log inside is made by `secure-cache init` only."""
    if settings.storage.kind != "azure":
        code = _prove(settings, as_json=as_json)
    else:
        made = anyio.run(_make, settings)
        if as_json:
            print_json({"kind": "azure", "containers": made})
        for name, is_new in made.items():
            if not as_json:
                click.echo(f"{name}: {'made' if is_new else 'was there'}")
        code = Exit.OK
    note("The store is there. A log is only ever begun by `secure-cache init`.")
    return code


def _prove(settings: Settings, *, as_json: bool) -> Exit:
    checked = anyio.run(_check, settings)
    if as_json:
        print_json({"kind": settings.storage.kind, "stores": checked})
    else:
        for name in checked:
            click.echo(f"{name}: ok")
    return Exit.OK


async def _check(settings: Settings) -> list[str]:
    async with opened(open_stores(settings.storage)) as stores:
        await prove(stores)
        return list(stores.distinct())


async def _examine(settings: Settings) -> Examined:
    async with opened(open_stores(settings.storage)) as stores:
        return await examine(stores, require_worm=settings.storage.require_worm)


async def _make(settings: Settings) -> dict[str, bool]:
    return await make_containers(settings.storage, environ=os.environ)


def _document(examined: Examined) -> dict[str, object]:
    posture = examined.posture
    return {
        "kind": "azure",
        "ok": not examined.lacks,
        "stores": {
            name: {
                "container": examined.places[name].container,
                "prefix": examined.places[name].prefix,
                "account": examined.places[name].account,
                "host": examined.places[name].host,
                **_facts(granted),
            }
            for name, granted in posture.stores.items()
        },
        "lacks": examined.lacks,
        "warnings": examined.weaknesses,
    }


def _facts(granted: StoreCapabilities) -> dict[str, object]:
    return {
        "create": granted.can_create,
        "replace": granted.can_replace,
        "delete": granted.can_delete,
        "conditional_create": granted.create_is_conditional,
        "conditional_replace": granted.replace_is_conditional,
        "worm": granted.immutable,
        "clock_skew_seconds": granted.clock_skew_seconds,
    }


def _print(examined: Examined) -> None:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for name, granted in examined.posture.stores.items():
        conditional = granted.create_is_conditional and granted.replace_is_conditional is not False
        answers = (
            granted.can_create,
            granted.can_replace,
            granted.can_delete,
            conditional,
            granted.immutable,
        )
        rows.append((name, *(_YES_NO[answer] for answer in answers), str(examined.places[name])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    skews = [granted.clock_skew_seconds for granted in examined.posture.stores.values()]
    known = [skew for skew in skews if skew is not None]
    if known:
        click.echo(f"clock: the storage is {max(known, key=abs):+.1f} s from this machine")
