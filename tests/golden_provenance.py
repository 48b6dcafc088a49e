"""Golden files of our statements: `python tests/golden_provenance.py` writes them anew.

They pin what version 1 of each predicate looks like, byte for byte. A difference here means that
statements already signed and logged may no longer be read.
"""

import json
from dataclasses import replace
from pathlib import Path

from fakes.statements import (
    CHUNKS,
    ENTRY,
    LARGE_ENTRY,
    STORED_AT,
    done,
    ed25519_signer,
    es256_signer,
    public_key,
)

from secure_cache.model.digest import Digest
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.provenance.bundle import sigstore_bundle
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.event_statement import build_event, sign_event
from secure_cache.provenance.keys import ring_of
from secure_cache.provenance.record import Record, encode_record
from secure_cache.provenance.statement import build_statement, sign_entry

FOLDER = Path(__file__).parent / "vectors" / "provenance"

ED25519 = ed25519_signer()
ES256 = es256_signer()
RING = ring_of([public_key(ED25519), public_key(ES256, not_after=STORED_AT + 86_400)])

PULL_REQUEST_ENTRY = replace(
    ENTRY,
    entry_id="01KDYBV6D80000000000000011",
    namespace=Namespace("demo", "pr", "4711"),
    tier=Tier.CONTRIBUTOR,
    rule="pull-requests",
    epoch=3,
    writer=replace(
        ENTRY.writer,
        issuer="self",
        iss="https://cache.example.com",
        subject="ci",
        claims=(("base", "main"), ("prj", "demo"), ("pull_request", "4711"), ("x", (1, True, "ü"))),
        family="01KDYBV6D80000000000000012",
    ),
)
ENTRIES = {"entry": ENTRY, "entry-large": LARGE_ENTRY, "entry-pull-request": PULL_REQUEST_ENTRY}
EVENTS = {
    "event-opened": LogOpened(
        "cache.example.com/manifest/2026",
        "cache.example.com/manifest/2026+1edde122+AYptTYMPfS1rLfFUOsDmaHMMpO8djvWIculAfysNUNwJ",
    ),
    "event-policy": PolicyTookEffect(Digest.of(b"policy 2"), 2, Digest.of(b"policy 1")),
    "event-keys": KeysChanged(RING.digest, added=(ES256.keyid,), retired=(ED25519.keyid,)),
    "event-quarantined": EntryQuarantined.of(LARGE_ENTRY, reason="the bytes from 0 on differ"),
    "event-removed": EntryRemoved.of(
        ENTRY, line="revocation leaked-token", replaced_by="01KDYBV6D80000000000000013"
    ),
}


def files():
    """Name and bytes of every golden file."""
    made = {"ring.json": RING.encode()}
    for name, entry in ENTRIES.items():
        made[f"{name}.statement.json"] = build_statement(entry)
        made[f"{name}.ed25519.dsse.json"] = done(sign_entry(entry, ED25519))
        made[f"{name}.es256.dsse.json"] = done(sign_entry(entry, ES256))
    for name, what in EVENTS.items():
        event = Event(what, STORED_AT, "secure-cache/0.1.0")
        made[f"{name}.statement.json"] = build_event(event)
        made[f"{name}.ed25519.dsse.json"] = done(sign_event(event, ED25519))
    for name, chunks in (("entry", b""), ("entry-large", CHUNKS)):
        envelope = made[f"{name}.ed25519.dsse.json"]
        record = Record(envelope, chunks, "pending/0123456789abcdef/000000000001", 7)
        made[f"{name}.record.json"] = encode_record(record)
    bundle = sigstore_bundle(made["entry.ed25519.dsse.json"])
    made["entry.sigstore.json"] = (json.dumps(bundle, indent=2) + "\n").encode()
    for signer in (ED25519, ES256):
        made[f"{signer.algorithm}.pem"] = signer.public_pem.encode()
    return made


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, data in files().items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
