"""Somebody got hold of an entry key.

Attack table: "signing-key or pod compromise": the rotation drill.
"""

from dataclasses import replace

import pytest
from fakes.statements import ENTRY, done

from secure_cache.core.keystore import create_keystore, load_keystore, revoke, rotate
from secure_cache.model.errors import CorruptObject
from secure_cache.provenance.statement import sign_entry
from secure_cache.provenance.verify import verify_entry

DAY = 86_400
NOW = ENTRY.stored_at


def prove(envelope, keystore):
    return verify_entry(envelope, keystore.ring, namespace=ENTRY.namespace, key=ENTRY.key)


@pytest.fixture
def folder(tmp_path):
    create_keystore(tmp_path / "keys", log_origin="cache.example.com/log", now=NOW)
    return tmp_path / "keys"


def test_after_the_revocation_no_date_makes_a_stolen_key_good(folder):
    stolen = load_keystore(folder).entry_signer(NOW)
    forged = [
        done(sign_entry(replace(ENTRY, stored_at=at), stolen))
        for at in (NOW, NOW + DAY, NOW + 400 * DAY)
    ]
    revoke(folder, stolen.keyid, NOW + DAY)
    for envelope in forged:
        with pytest.raises(CorruptObject, match="is revoked"):
            prove(envelope, load_keystore(folder))


def test_the_server_goes_on_with_a_new_key_at_once(folder):
    stolen = load_keystore(folder).entry_signer(NOW)
    revoke(folder, stolen.keyid, NOW + DAY)
    keystore = load_keystore(folder)
    entry = replace(ENTRY, stored_at=NOW + DAY)
    assert prove(done(sign_entry(entry, keystore.entry_signer(NOW + DAY))), keystore).entry == entry


def test_a_stolen_retired_key_cannot_sign_for_today(folder):
    stolen = load_keystore(folder).entry_signer(NOW)
    rotate(folder, "entry", NOW + DAY, overlap_seconds=0)
    keystore = load_keystore(folder)
    honest = done(sign_entry(ENTRY, stolen))
    assert prove(honest, keystore).entry == ENTRY
    forged = done(sign_entry(replace(ENTRY, stored_at=NOW + DAY + 1), stolen))
    with pytest.raises(CorruptObject, match="after key"):
        prove(forged, keystore)


def test_a_new_key_cannot_rewrite_what_was_before_it(folder):
    fresh = rotate(folder, "entry", NOW + DAY)
    keystore = load_keystore(folder)
    signer = keystore.entry_signer(NOW + DAY)
    assert signer.keyid == fresh.keyid
    with pytest.raises(CorruptObject, match="before key"):
        prove(done(sign_entry(ENTRY, signer)), keystore)


def test_neither_the_tokens_nor_the_logs_key_can_sign_an_entry(folder):
    keystore = load_keystore(folder)
    assert keystore.token_signer(NOW).kid not in keystore.ring
    assert keystore.entry_signer(NOW).keyid not in keystore.token_public_keys(NOW)
