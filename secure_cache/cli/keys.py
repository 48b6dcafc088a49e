"""`secure-cache keys`."""

import math

import click

from secure_cache.cli.boundary import note
from secure_cache.cli.options import DURATION, config_option, json_option, print_json
from secure_cache.core.keystore import Keystore, load_keystore, revoke, rotate
from secure_cache.model.clock import LEEWAY_SECONDS, rfc3339, system_clock
from secure_cache.provenance.keys import PublicKey
from secure_cache.settings import Settings

_SHORTEST_LEAD_SECONDS = 10


@click.group("keys")
def keys_command() -> None:
    """Keys that sign entries, tokens and the log. Private halves are never shown."""


@keys_command.command("list")
@config_option
@json_option
def list_keys(settings: Settings, *, as_json: bool) -> None:
    """Every key: what it signs, its id, its status and when it may be used."""
    keystore = load_keystore(settings.keys)
    rows = [_row(which, key) for which, key in _all(keystore)]
    if as_json:
        print_json({"log": str(keystore.log.verifier), "keys": rows})
        return
    click.echo(f"log    {keystore.log.verifier}")
    for row in rows:
        until = row["not_after"] or "no end"
        click.echo(
            f"{row['kind']:<6} {row['id']} {row['algorithm']} {row['status']:<7}"
            f" {row['not_before']} to {until}"
        )


@keys_command.command("show")
@click.option("--public", is_flag=True, help="The public halves. There is nothing else to show.")
@click.option("--vkey", is_flag=True, help="Only the log's verifier key, as auditors pin it.")
@config_option
@json_option
def show_keys(settings: Settings, *, public: bool, vkey: bool, as_json: bool) -> None:  # noqa: ARG001 - said for clearness
    """What verifiers need: the log's verifier key, and every public key as PEM."""
    keystore = load_keystore(settings.keys)
    if vkey:
        click.echo(keystore.vkeys(), nl=False)
    elif as_json:
        rows = [{**_row(which, key), "pem": key.pem} for which, key in _all(keystore)]
        print_json({"log": str(keystore.log.verifier), "keys": rows})
    else:
        click.echo(keystore.public_text(), nl=False)


@keys_command.command("rotate")
@click.argument("kind", type=click.Choice(["entry", "token", "log"]), default="entry")
@click.option(
    "--lead",
    type=DURATION,
    help="The new key signs only after so long, so that every server has read it before it"
    " meets its first signature. By default long enough for token keys, and none for entry keys.",
)
@click.option("--overlap", type=DURATION, help="How long the old key is still good afterwards.")
@config_option
def rotate_key(settings: Settings, kind: str, lead: int | None, overlap: int | None) -> None:
    """Make a new key of KIND the one in use and retire the one before; prints the new id.

    A server that is running takes it up by itself.
    """
    fresh = rotate(
        settings.keys,
        kind,
        system_clock(),
        lead_seconds=_lead(settings, kind) if lead is None else lead,
        overlap_seconds=overlap,
    )
    click.echo(fresh.keyid)
    note(f"The new {kind} key may sign from {rfc3339(fresh.not_before)} on.")
    note("The one before it is retired: what it has signed can still be verified.")


@keys_command.command("revoke")
@click.argument("key_id")
@config_option
def revoke_key(settings: Settings, key_id: str) -> None:
    """Take back KEY_ID: nothing that it ever signed counts any more. This cannot be undone."""
    revoked = revoke(settings.keys, key_id, system_clock())
    click.echo(revoked.keyid)
    note("Revoked. Entries or tokens that it signed are refused from now on, whatever their date.")


def _lead(settings: Settings, kind: str) -> int:
    """An unknown entry key makes a server read its keys again; an unknown token key is a 401."""
    looks = max(_SHORTEST_LEAD_SECONDS, math.ceil(2 * settings.policy_poll_seconds))
    # A new key is good a little before its start, for servers whose clocks are behind.
    return looks + LEEWAY_SECONDS if kind == "token" else 0


def _all(keystore: Keystore) -> list[tuple[str, PublicKey]]:
    return [("entry", key) for key in keystore.ring.keys] + [
        ("token", key) for key in keystore.token_ring.keys
    ]


def _row(kind: str, key: PublicKey) -> dict[str, str | None]:
    document = key.document()
    return {
        "kind": kind,
        "id": key.keyid,
        "algorithm": str(key.algorithm),
        "status": str(key.status),
        "not_before": str(document["notBefore"]),
        "not_after": document.get("notAfter"),
    }
