import base64
import json
import os
import stat
import threading

import pytest
from fakes.statements import done

from secure_cache.core import key_files
from secure_cache.core.keystore import (
    ENTRY_OVERLAP_SECONDS,
    create_keystore,
    load_keystore,
    revoke,
    rotate,
)
from secure_cache.identity.presets.self_issued import MAX_LIFETIME_SECONDS
from secure_cache.model.clock import LEEWAY_SECONDS
from secure_cache.model.errors import CorruptObject, Misconfigured
from secure_cache.provenance.algorithms import Algorithm
from secure_cache.provenance.keys import KeyStatus
from secure_cache.tlog.note import Ed25519Verifier

NOW = 1_767_323_045.5
ORIGIN = "cache.example.com/manifest/2026"
DAY = 86_400


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "server" / "keys"
    create_keystore(path, log_origin=ORIGIN, now=NOW)
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def signature(keystore, at=NOW):
    signer = keystore.entry_signer(at)
    return signer.keyid, done(signer.sign(b"message"))


def verify(keystore, signed):
    keyid, made = signed
    return keystore.ring.verify(keyid, b"message", made)


def test_a_new_keystore_signs_entries_tokens_and_checkpoints(folder):
    keystore = load_keystore(folder)
    assert verify(keystore, signature(keystore)).status is KeyStatus.ACTIVE
    token = keystore.token_signer(NOW)
    keystore.token_public_keys(NOW)[token.kid].verify(token.private_key.sign(b"t"), b"t")
    text = f"{ORIGIN}\n0\nroot\n".encode()
    Ed25519Verifier.parse(keystore.vkeys().strip()).verify(text, done(keystore.log.sign(text)))
    assert keystore.log.name == ORIGIN


def test_the_three_kinds_of_key_are_three_keys(folder):
    keystore = load_keystore(folder)
    log = keystore.log.verifier.public_key
    publics = {key.pem for ring in (keystore.ring, keystore.token_ring) for key in ring.keys}
    assert len(publics) == 2
    assert all(base64.b64encode(log).decode() not in pem for pem in publics)


def test_an_entry_key_may_be_es256(tmp_path):
    keystore = create_keystore(
        tmp_path / "keys", log_origin=ORIGIN, now=NOW, algorithm=Algorithm.ES256
    )
    assert keystore.entry_signer(NOW).algorithm is Algorithm.ES256
    verify(keystore, signature(keystore))


def test_keys_are_private_files_in_a_private_folder(folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {
        "entry", "token", "log.key", "keys.json",
    }  # fmt: skip


def test_a_generous_umask_does_not_open_the_keys(tmp_path):
    before = os.umask(0)
    try:
        create_keystore(tmp_path / "keys", log_origin=ORIGIN, now=NOW)
        rotate(tmp_path / "keys", "entry", NOW)
    finally:
        os.umask(before)
    load_keystore(tmp_path / "keys")


def test_a_keystore_is_never_overwritten(folder):
    before = contents(folder)
    with pytest.raises(Misconfigured, match="never overwritten"):
        create_keystore(folder, log_origin=ORIGIN, now=NOW)
    assert contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_file_in_the_way_is_not_overwritten(tmp_path):
    (tmp_path / "keys").write_text("mine")
    with pytest.raises(Misconfigured, match="never overwritten"):
        create_keystore(tmp_path / "keys", log_origin=ORIGIN, now=NOW)
    assert (tmp_path / "keys").read_text() == "mine"


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb"])
def test_an_origin_that_no_note_can_carry_is_refused(tmp_path, origin):
    with pytest.raises(Misconfigured, match="cannot name a log"):
        create_keystore(tmp_path / "keys", log_origin=origin, now=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
@pytest.mark.parametrize("kind", ["entry-", "token-", "log.key", "keys.json"])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(folder, kind, mode):
    (path,) = (path for path in folder.iterdir() if path.name.startswith(kind))
    path.chmod(mode)
    with pytest.raises(Misconfigured, match=f"chmod 600 {path}"):
        load_keystore(folder)


def test_a_folder_that_others_can_enter_is_refused_with_the_remedy(folder):
    folder.chmod(0o755)
    with pytest.raises(Misconfigured, match=f"chmod 700 {folder}"):
        load_keystore(folder)


def test_a_missing_folder_or_key_is_named(folder, tmp_path):
    with pytest.raises(Misconfigured, match="nowhere"):
        load_keystore(tmp_path / "nowhere")
    with pytest.raises(Misconfigured, match="not a folder"):
        load_keystore(folder / "keys.json")
    (path,) = folder.glob("entry-*.pem")
    path.unlink()
    with pytest.raises(Misconfigured, match=path.name):
        load_keystore(folder)


def test_a_pipe_in_the_place_of_a_key_does_not_hang_the_start(folder):
    (folder / "log.key").unlink()
    os.mkfifo(folder / "log.key", 0o600)
    with pytest.raises(Misconfigured, match="not a file"):
        load_keystore(folder)


def test_a_huge_file_in_the_place_of_a_key_is_refused(folder):
    (folder / "log.key").write_bytes(b"x" * 100_000)
    with pytest.raises(Misconfigured, match="larger than"):
        load_keystore(folder)


def test_exchanged_private_keys_are_noticed(folder):
    (entry,) = folder.glob("entry-*.pem")
    (token,) = folder.glob("token-*.pem")
    entry.write_bytes(token.read_bytes())
    with pytest.raises(Misconfigured, match="another key"):
        load_keystore(folder)


def test_another_logs_key_is_noticed(folder, tmp_path):
    create_keystore(tmp_path / "other", log_origin=ORIGIN, now=NOW)
    (folder / "log.key").write_bytes((tmp_path / "other" / "log.key").read_bytes())
    with pytest.raises(Misconfigured, match="not the log key"):
        load_keystore(folder)


def test_a_broken_key_is_refused_and_never_quoted(folder):
    text = (folder / "log.key").read_text()
    secret = text.split("+", 4)[4].strip()
    for broken in (text[:-1], text + "\n", text.replace("PRIVATE", "private"), f"{secret}\n"):
        (folder / "log.key").write_text(broken)
        with pytest.raises(Misconfigured, match="not the private key of a log") as caught:
            load_keystore(folder)
        assert secret not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"extra": 1},
        {"entry": {}},
        {"entry": [{}]},
        {"log": 5},
    ],
    ids=str,
)
def test_a_manifest_of_another_form_is_refused(folder, change):
    document = json.loads((folder / "keys.json").read_text())
    (folder / "keys.json").write_text(json.dumps(document | change))
    with pytest.raises(Misconfigured, match=r"keys\.json"):
        load_keystore(folder)


@pytest.mark.parametrize(
    "change",
    [{"keyid": "ab" * 32}, {"extra": 1}, {"status": "revoke"}, {"notBefore": 0}, {"pem": "x"}],
    ids=str,
)
@pytest.mark.parametrize("which", ["entry", "token"])
def test_a_key_of_another_form_in_the_manifest_is_refused(folder, which, change):
    document = json.loads((folder / "keys.json").read_text())
    document[which][0] |= change
    (folder / "keys.json").write_text(json.dumps(document))
    with pytest.raises(Misconfigured, match=r"keys\.json"):
        load_keystore(folder)


def test_the_log_key_is_read_by_the_form_of_gos_note_tools(folder):
    text = (folder / "log.key").read_text()
    prefix, hash_and_key = text.strip().split(f"+{ORIGIN}+")
    assert prefix == "PRIVATE+KEY"
    key_hash, key = hash_and_key.split("+", 1)
    assert key_hash == load_keystore(folder).log.key_id.hex()
    assert base64.b64decode(key)[0] == 1
    assert len(base64.b64decode(key)) == 33


def test_what_is_shown_is_public(folder):
    text = load_keystore(folder).public_text()
    assert "BEGIN PUBLIC KEY" in text
    assert str(load_keystore(folder).log.verifier) in text
    secrets = [path.read_text().splitlines()[1] for path in folder.glob("*.pem")]
    secrets.append((folder / "log.key").read_text().split("+", 4)[4].strip())
    for secret in secrets:
        assert secret not in text
        assert secret not in repr(load_keystore(folder))


def test_a_rotated_entry_key_signs_and_the_old_one_proves_what_it_signed(folder):
    old = load_keystore(folder)
    before = signature(old)
    later = NOW + 10 * DAY
    fresh = rotate(folder, "entry", later)
    keystore = load_keystore(folder)
    assert keystore.entry_signer(later).keyid == fresh.keyid
    retired = verify(keystore, before)
    assert retired.status is KeyStatus.RETIRED
    retired.require_valid_at(int(NOW))
    # Servers that have not read their keys again still sign with the old one for a day.
    retired.require_valid_at(int(later) + ENTRY_OVERLAP_SECONDS)
    with pytest.raises(CorruptObject, match="retired"):
        retired.require_valid_at(int(later) + ENTRY_OVERLAP_SECONDS + 1)


def test_a_rotated_out_private_key_is_gone(folder):
    (old,) = folder.glob("entry-*.pem")
    rotate(folder, "entry", NOW + DAY)
    assert not old.exists()
    assert len(list(folder.glob("entry-*.pem"))) == 1


def test_a_rotation_announced_ahead_switches_by_itself(folder):
    old = load_keystore(folder).entry_signer(NOW).keyid
    fresh = rotate(folder, "entry", NOW + DAY, lead_seconds=3600)
    keystore = load_keystore(folder)
    assert keystore.entry_signer(NOW + DAY).keyid == old
    assert fresh.keyid in keystore.ring
    assert keystore.entry_signer(NOW + DAY + 3600).keyid == fresh.keyid


def test_replicas_whose_clocks_are_behind_can_sign_with_a_new_key(folder):
    fresh = rotate(folder, "entry", NOW + DAY)
    behind = NOW + DAY - LEEWAY_SECONDS
    assert load_keystore(folder).entry_signer(behind).keyid == fresh.keyid


def test_a_rotation_in_the_second_of_the_creation_counts(folder):
    fresh = rotate(folder, "entry", NOW)
    assert load_keystore(folder).entry_signer(NOW).keyid == fresh.keyid


def test_tokens_of_a_retired_key_are_accepted_until_the_last_has_expired(folder):
    old = load_keystore(folder).token_signer(NOW).kid
    later = NOW + DAY
    fresh = rotate(folder, "token", later)
    keystore = load_keystore(folder)
    assert keystore.token_signer(later).kid == fresh.keyid
    assert keystore.token_public_keys(later).keys() == {old, fresh.keyid}
    last = int(later) + MAX_LIFETIME_SECONDS
    assert old in keystore.token_public_keys(last)
    assert keystore.token_public_keys(last + 1).keys() == {fresh.keyid}


def test_the_logs_key_cannot_be_rotated(folder):
    before = contents(folder)
    with pytest.raises(Misconfigured, match="it is the log's identity"):
        rotate(folder, "log", NOW)
    with pytest.raises(Misconfigured, match="entry or token"):
        rotate(folder, "session", NOW)
    assert contents(folder) == before


@pytest.mark.parametrize("which", ["entry", "token"])
def test_a_revoked_key_proves_nothing_and_has_a_successor(folder, which):
    keystore = load_keystore(folder)
    before = signature(keystore)
    stolen = (
        keystore.entry_signer(NOW).keyid if which == "entry" else keystore.token_signer(NOW).kid
    )
    assert revoke(folder, stolen, NOW + DAY).status is KeyStatus.REVOKED
    after = load_keystore(folder)
    if which == "entry":
        assert after.entry_signer(NOW + DAY).keyid != stolen
        with pytest.raises(CorruptObject, match="revoked"):
            verify(after, before)
    else:
        assert after.token_signer(NOW + DAY).kid != stolen
        assert stolen not in after.token_public_keys(NOW + DAY)
    assert not list(folder.glob(f"{which}-{stolen}.pem"))


def test_revoking_a_retired_key_leaves_the_active_one(folder):
    old = load_keystore(folder).entry_signer(NOW).keyid
    fresh = rotate(folder, "entry", NOW + DAY)
    revoke(folder, old, NOW + 2 * DAY)
    keystore = load_keystore(folder)
    assert keystore.entry_signer(NOW + 2 * DAY).keyid == fresh.keyid
    assert len(keystore.ring.keys) == 2


def test_revoking_the_key_of_a_coming_rotation_does_not_leave_the_server_mute(folder):
    coming = rotate(folder, "entry", NOW + DAY, lead_seconds=DAY)
    revoke(folder, coming.keyid, NOW + DAY + 60)
    keystore = load_keystore(folder)
    for at in (NOW + DAY + 60, NOW + 10 * DAY):
        assert keystore.entry_signer(at).keyid != coming.keyid


def test_revoking_the_signing_key_before_a_coming_rotation_does_not_leave_the_server_mute(folder):
    signing = load_keystore(folder).entry_signer(NOW).keyid
    coming = rotate(folder, "entry", NOW + DAY, lead_seconds=DAY)
    revoke(folder, signing, NOW + DAY + 60)
    keystore = load_keystore(folder)
    assert keystore.entry_signer(NOW + DAY + 60).keyid not in {signing, coming.keyid}
    assert keystore.entry_signer(NOW + 3 * DAY).keyid == coming.keyid


def test_a_key_that_is_not_there_cannot_be_revoked(folder):
    before = contents(folder)
    with pytest.raises(Misconfigured, match="no entry or token key"):
        revoke(folder, "ab" * 32, NOW)
    assert contents(folder) == before


def test_a_server_whose_clock_stands_before_its_keys_says_so(folder):
    with pytest.raises(Misconfigured, match="no entry key may sign now"):
        load_keystore(folder).entry_signer(NOW - DAY)


class Crash(BaseException):
    """The process dies: nothing is cleaned up."""


@pytest.mark.parametrize("change", ["rotate", "revoke"])
@pytest.mark.parametrize("step", range(8))
def test_a_crash_while_keys_change_leaves_the_old_state_or_the_new(
    folder, monkeypatch, change, step
):
    keystore = load_keystore(folder)
    before = signature(keystore)
    left = [step]

    def dying(real):
        def call(*args, **kwargs):
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(key_files.os, "fsync", dying(os.fsync))
    monkeypatch.setattr(key_files.Path, "replace", dying(key_files.Path.replace))
    monkeypatch.setattr(key_files.Path, "unlink", lambda *_args, **_kwargs: None)
    crashed = False
    try:
        if change == "rotate":
            rotate(folder, "entry", NOW + DAY)
        else:
            revoke(folder, before[0], NOW + DAY)
    except Crash:
        crashed = True
    monkeypatch.undo()

    again = load_keystore(folder)
    changed = again.ring != keystore.ring
    assert changed or crashed
    signer = again.entry_signer(NOW + DAY)
    assert (signer.keyid == before[0]) is not changed
    again.ring.verify(signer.keyid, b"message", done(signer.sign(b"message")))
    if change == "rotate" or not changed:
        verify(again, before)
    # The next change works, and sweeps up nothing that is needed.
    rotate(folder, "entry", NOW + 2 * DAY)
    assert load_keystore(folder).entry_signer(NOW + 2 * DAY).keyid != signer.keyid


def test_a_crash_while_a_keystore_is_made_leaves_none(tmp_path, monkeypatch):
    def die(*_args):
        raise Crash

    monkeypatch.setattr(key_files.Path, "rename", die)
    with pytest.raises(Crash):
        create_keystore(tmp_path / "keys", log_origin=ORIGIN, now=NOW)
    monkeypatch.undo()
    assert not (tmp_path / "keys").exists()
    create_keystore(tmp_path / "keys", log_origin=ORIGIN, now=NOW)


def test_two_rotations_at_once_both_count(folder):
    threads = [
        threading.Thread(target=rotate, args=(folder, "entry", NOW + DAY + number))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keystore = load_keystore(folder)
    assert len(keystore.ring.keys) == 7
    assert sum(key.status is KeyStatus.ACTIVE for key in keystore.ring.keys) == 1


def test_an_old_server_and_a_new_one_prove_each_others_entries_during_a_rotation(folder):
    old_server = load_keystore(folder)
    rotate(folder, "entry", NOW + DAY, lead_seconds=3600)
    new_server = load_keystore(folder)
    at = NOW + DAY + 60
    verify(new_server, signature(old_server, at)).require_valid_at(int(at))
    verify(old_server, signature(new_server, at)).require_valid_at(int(at))
