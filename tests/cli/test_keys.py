"""`secure-cache keys`."""

import json

import pytest

from secure_cache.core.keystore import load_keystore
from secure_cache.model.clock import system_clock
from secure_cache.provenance.keys import KeyStatus


@pytest.fixture
def keys(call, installation):
    return lambda command, *options: call(
        "keys", command, "--config", installation.config, *options
    )


def secrets(installation) -> set[str]:
    """Every line of a private key that could be recognised in an output."""
    found = set()
    for path in installation.keys.iterdir():
        if path.suffix in {".pem", ".key"}:
            found |= {
                line for line in path.read_text().splitlines() if line and "-----" not in line
            }
    return found


@pytest.mark.parametrize("command", ["list", "show"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_no_private_half_is_ever_shown(command, options, keys, installation):
    done = keys(command, *options)
    assert done.code == 0
    assert "PRIVATE" not in done.out
    assert not [secret for secret in secrets(installation) if secret in done.out]


def test_list_names_every_key_and_its_status(keys, installation):
    keystore = load_keystore(installation.keys)
    said = json.loads(keys("list", "--json").out)
    assert said["log"] == str(keystore.log.verifier)
    assert {(row["kind"], row["id"], row["status"]) for row in said["keys"]} == {
        ("entry", keystore.ring.keys[0].keyid, "active"),
        ("token", keystore.token_ring.keys[0].keyid, "active"),
    }


def test_show_gives_verifiers_the_vkey_and_each_public_key(keys, installation):
    keystore = load_keystore(installation.keys)
    assert keys("show", "--vkey").out == f"{keystore.log.verifier}\n"
    shown = keys("show", "--public").out
    assert str(keystore.log.verifier) in shown
    assert shown.count("BEGIN PUBLIC KEY") == 2
    assert len(json.loads(keys("show", "--json").out)["keys"]) == 2


def test_rotate_makes_a_new_entry_key_that_signs_at_once(keys, installation):
    before = load_keystore(installation.keys).ring.keys[0].keyid
    fresh = keys("rotate", "entry").out.strip()
    keystore = load_keystore(installation.keys)
    assert keystore.entry_signer(system_clock()).keyid == fresh != before
    assert {key.keyid: key.status for key in keystore.ring.keys} == {
        before: KeyStatus.RETIRED,
        fresh: KeyStatus.ACTIVE,
    }


def test_a_new_token_key_signs_only_when_every_server_can_know_it(keys, call, installation):
    before = load_keystore(installation.keys).token_ring.keys[0].keyid
    fresh = keys("rotate", "token").out.strip()
    keystore = load_keystore(installation.keys)
    now = system_clock()
    assert keystore.token_signer(now).kid == before
    assert keystore.token_signer(now + 60).kid == fresh
    assert set(keystore.token_public_keys(now)) == {before, fresh}


def test_the_lead_can_be_chosen(keys, installation):
    fresh = keys("rotate", "entry", "--lead", "1h", "--overlap", "2h").out.strip()
    ring = {key.keyid: key for key in load_keystore(installation.keys).ring.keys}
    new = ring.pop(fresh)
    (old,) = ring.values()
    assert 3500 < new.not_before - system_clock() <= 3600
    assert 7200 <= old.not_after - new.not_before <= 7230


def test_the_logs_key_is_never_rotated(keys, installation):
    before = load_keystore(installation.keys).vkeys()
    done = keys("rotate", "log")
    assert done.code == 2
    assert "the log's identity" in done.err
    assert load_keystore(installation.keys).vkeys() == before


def test_revoke_takes_back_a_key_and_leaves_one_that_signs(keys, installation):
    old = load_keystore(installation.keys).ring.keys[0].keyid
    assert keys("revoke", old).out == f"{old}\n"
    keystore = load_keystore(installation.keys)
    assert {key.keyid: key.status for key in keystore.ring.keys}[old] is KeyStatus.REVOKED
    assert keystore.entry_signer(system_clock()).keyid != old


def test_revoking_an_unknown_key_changes_nothing(keys, installation):
    before = (installation.keys / "keys.json").read_bytes()
    done = keys("revoke", "0" * 64)
    assert done.code == 2
    assert "0" * 64 in done.err
    assert (installation.keys / "keys.json").read_bytes() == before
