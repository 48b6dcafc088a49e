"""A `.tlog-proof` and its leaf: what verifies is what was logged, and nothing else ever does."""

import functools
import io
import random

import anyio
import pytest
from fakes.audit import leaf_of, numbered, writer
from fakes.signed_log import LOG_KEY, ORIGIN, OTHER_LOG_KEY, SIGNER, TRUST, SignedLog
from fakes.statements import done, ed25519_signer, public_key, ring_for
from fakes.witnesses import cosigner_of
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.client.proofs import hash_stream, judged_entry, prove_entry, prove_logged
from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject
from secure_cache.provenance.keys import KeyStatus, ring_of
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.cosignature import MldsaCosigner
from secure_cache.tlog.fetched import FetchedLog, Trust
from secure_cache.tlog.note import Ed25519NoteSigner, Note
from secure_cache.tlog.tlog_proof import TlogProof
from secure_cache.tlog.witness_policy import WitnessPolicy

SIZE = 300
INDEXES = (0, 2, 128, 255, 256, 299)
RING = ring_for(SIGNER)
LOG = SignedLog().grow_to(SIZE)
WITNESSES = (cosigner_of("w1"), MldsaCosigner("w2.example.com", b"2" * 32))


async def proved_by(log, index):
    read = FetchedLog(log.fetch, TRUST)
    return bytes(await read.proof(index)), await read.entry(index)


def proof_of(index, log):
    return anyio.run(proved_by, log, index)


@functools.cache
def parts(index=256):
    """A proof and its leaf, of a log of SIZE entries."""
    return proof_of(index, LOG)


def cosigned(proof, *cosigners, time=1_700_000_000):
    """The same proof, with a checkpoint that witnesses have signed."""
    parsed = TlogProof.parse(proof)
    note = Note.parse(parsed.checkpoint)
    checkpoint = Checkpoint.parse(note.unverified_text)
    signatures = [cosigner.cosign(checkpoint, time) for cosigner in cosigners]
    signed = Note(note.unverified_text, (*note.unverified_signatures, *signatures))
    return bytes(TlogProof(parsed.index, parsed.hashes, bytes(signed)))


def witness_policy(quorum):
    names = [cosigner.verifier.name for cosigner in WITNESSES]
    lines = [f"witness {n} {c.verifier}" for n, c in zip(names, WITNESSES, strict=True)]
    return WitnessPolicy.parse(
        "\n".join([*lines, f"group all {quorum} {' '.join(names)}", "quorum all", ""]).encode()
    )


# what verifies


@pytest.mark.parametrize("index", INDEXES)
def test_an_entry_is_proved_with_nothing_but_proof_leaf_and_keys(index):
    found = prove_entry(*parts(index), TRUST, RING)
    assert found.row["index"] == index
    assert (found.checkpoint.size, found.keyid) == (SIZE, SIGNER.keyid)
    assert found.document()["signature"] == "valid"
    if index > 1:
        assert found.row["key"] == str(index)
        assert found.row["digest"] == str(Digest.of(b"%d" % index))


def test_without_keys_it_says_that_nobody_checked_the_signature():
    found = prove_entry(*parts(), TRUST)
    assert found.keyid is None
    assert found.document()["signature"] == "not checked"


def test_cosignatures_count_only_where_witnesses_are_asked_for():
    proof, leaf = parts()
    signed = cosigned(proof, *WITNESSES)
    assert prove_entry(signed, leaf, TRUST).cosigned_by == ()
    asked = Trust(TRUST.verifiers, ORIGIN, witness_policy("all"))
    assert prove_entry(signed, leaf, asked).cosigned_by == ("w1.example.com", "w2.example.com")


@pytest.mark.parametrize("cosigners", [(), WITNESSES[:1], WITNESSES[1:]])
def test_too_few_cosignatures_prove_nothing(cosigners):
    proof, leaf = parts()
    asked = Trust(TRUST.verifiers, ORIGIN, witness_policy("all"))
    with pytest.raises(CorruptObject, match=r"checkpoint proves nothing.*not witnessed enough"):
        prove_entry(cosigned(proof, *cosigners), leaf, asked)


def test_a_cosignature_for_another_checkpoint_proves_nothing():
    proof, leaf = parts()
    other = TlogProof.parse(cosigned(parts(255)[0], *WITNESSES)).checkpoint
    moved = Note.parse(TlogProof.parse(proof).checkpoint)
    stolen = Note.parse(other).unverified_signatures[1:]
    changed = Checkpoint(ORIGIN, SIZE + 1, bytes(32))
    note = Note.parse(done(sign_checkpoint(changed, LOG_KEY)))
    forged = Note(note.unverified_text, (*note.unverified_signatures, *stolen))
    assert moved.unverified_text != forged.unverified_text
    parsed = TlogProof.parse(proof)
    with pytest.raises(CorruptObject, match="checkpoint proves nothing"):
        prove_entry(
            bytes(TlogProof(parsed.index, parsed.hashes, bytes(forged))),
            leaf,
            Trust(TRUST.verifiers, ORIGIN, witness_policy("any")),
        )


# who signed


def test_a_logged_entry_of_a_stranger_is_proved_and_not_ours():
    log, stranger = SignedLog(), ed25519_signer(66)
    log.leaves.append(leaf_of(numbered(2), stranger))
    log.publish()
    proof, leaf = proof_of(2, log)
    assert prove_entry(proof, leaf, TRUST).row["key"] == "2"
    with pytest.raises(CorruptObject, match="is in the log, and its signature is not valid"):
        prove_entry(proof, leaf, TRUST, RING)
    judged = judged_entry(prove_logged(proof, leaf, TRUST), leaf, RING)
    assert judged.keyid is None
    assert "not in the key ring" in judged.signature
    assert judged.document()["ok"] is False


def test_an_entry_of_a_key_that_was_revoked_since_is_still_shown_to_be_logged():
    proof, leaf = parts()
    revoked = ring_of([public_key(SIGNER, status=KeyStatus.REVOKED)])
    judged = judged_entry(prove_logged(proof, leaf, TRUST), leaf, revoked)
    assert "is revoked" in judged.signature
    assert judged.row["key"] == "256"


@pytest.mark.parametrize("leaf", [b"", b"junk", b"\x00\xff" * 40, b"{}"])
def test_what_is_in_the_log_and_is_no_statement_is_unreadable(leaf):
    log = SignedLog()
    log.leaves.append(leaf)
    log.publish()
    found = prove_entry(*proof_of(2, log), TRUST)
    assert found.row["event"] == "unreadable"


def test_hostile_words_in_claims_stay_words():
    hostile = "\x1b[2J\u202e<script>"
    log = SignedLog()
    log.leaves.append(leaf_of(numbered(2, writer=writer(subject=hostile)), SIGNER))
    log.publish()
    assert prove_entry(*proof_of(2, log), TRUST, RING).row["subject"] == hostile


# what does not


def changed_lines(proof, change):
    lines = proof.decode().split("\n")
    change(lines, lines.index(""))
    return "\n".join(lines).encode()


def _set(lines, at, text):
    lines[at] = text


BROKEN = {
    "another version": (lambda p: p.replace(b"proof@v1", b"proof@v2"), "damaged: not a tlog-proof"),
    "empty": (lambda _: b"", "damaged: not a tlog-proof"),
    "binary": (lambda _: bytes(range(256)) * 8, "the proof is damaged"),
    "a picture": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100), "the proof is damaged"),
    "huge": (lambda p: p + b"x" * (1 << 22), "damaged: the proof is too large"),
    "cut in its hashes": (lambda p: p[:90], "damaged: not a tlog-proof"),
    "no checkpoint": (lambda p: p[: p.index(b"\n\n") + 2], "damaged: not a tlog-proof"),
    "cut in its checkpoint": (lambda p: p[:-20], "checkpoint proves nothing"),
    "no signature": (lambda p: p[: p.rindex(b"\n\n") + 1], "checkpoint"),
    "line ends of Windows": (lambda p: p.replace(b"\n", b"\r\n"), "the proof is damaged"),
    "a mark of byte order": (lambda p: b"\xef\xbb\xbf" + p, "the proof is damaged"),
    "a blank at an end": (lambda p: p.replace(b"=\n", b"= \n", 1), "damaged: not base64"),
    "one more line end": (lambda p: p + b"\n", "checkpoint"),
    "no index": (
        lambda p: changed_lines(p, lambda lines, _: lines.pop(1)),
        "damaged: a proof has an index",
    ),
    "an index with a sign": (
        lambda p: changed_lines(p, lambda lines, _: _set(lines, 1, "index +256")),
        "damaged: not a decimal number",
    ),
    "a negative index": (
        lambda p: changed_lines(p, lambda lines, _: _set(lines, 1, "index -1")),
        "damaged: not a decimal number",
    ),
    "another index": (
        lambda p: changed_lines(p, lambda lines, _: _set(lines, 1, "index 257")),
        "the leaf is not entry 257",
    ),
    "an index beyond the log": (
        lambda p: changed_lines(p, lambda lines, _: _set(lines, 1, "index 300")),
        "the leaf is not entry 300.*no entry 300",
    ),
    "a hash less": (
        lambda p: changed_lines(p, lambda lines, _: lines.pop(2)),
        "the leaf is not entry 256",
    ),
    "a hash twice": (
        lambda p: changed_lines(p, lambda lines, _: lines.insert(2, lines[2])),
        "the leaf is not entry 256",
    ),
    "hashes exchanged": (
        lambda p: changed_lines(p, lambda lines, _: lines.insert(2, lines.pop(3))),
        "the leaf is not entry 256",
    ),
    "a short hash": (
        lambda p: changed_lines(p, lambda lines, _: _set(lines, 2, "AAAA")),
        "damaged: a hash in a proof has 32 bytes",
    ),
    "a thousand hashes": (
        lambda p: changed_lines(
            p, lambda lines, _: lines.__setitem__(slice(2, 3), [lines[2]] * 99)
        ),
        "damaged: a proof has at most 63 hashes",
    ),
    "a larger log": (
        lambda p: changed_lines(p, lambda lines, blank: _set(lines, blank + 2, "301")),
        "checkpoint does not verify: a signature",
    ),
    "another root": (
        lambda p: changed_lines(p, lambda lines, blank: _set(lines, blank + 3, "A" * 43 + "=")),
        "checkpoint does not verify: a signature",
    ),
    "another log": (
        lambda p: p.replace(b"\n\ncache.", b"\n\nother."),
        "checkpoint does not verify",
    ),
    "an extension line": (
        lambda p: changed_lines(p, lambda lines, blank: lines.insert(blank + 4, "more")),
        "checkpoint",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_proof_is_refused_and_says_which_part(what):
    change, said = BROKEN[what]
    proof, leaf = parts()
    with pytest.raises(CorruptObject, match=f"(?s){said}"):
        prove_entry(change(proof), leaf, TRUST, RING)


OTHER_LEAVES = {
    "nothing": lambda _: b"",
    "cut short": lambda leaf: leaf[:-1],
    "a line end more": lambda leaf: leaf + b"\n",
    "spelled otherwise": lambda leaf: leaf.replace(b'"sig":', b'"sig" :'),
    "the one before": lambda _: parts(255)[1],
}


@pytest.mark.parametrize("what", OTHER_LEAVES)
def test_a_leaf_that_is_not_the_logged_one_is_refused(what):
    proof, leaf = parts()
    with pytest.raises(CorruptObject, match="the leaf is not entry 256"):
        prove_entry(proof, OTHER_LEAVES[what](leaf), TRUST, RING)


def test_a_wrong_key_is_called_by_its_name():
    other = Trust((OTHER_LOG_KEY.verifier,), ORIGIN)
    with pytest.raises(CorruptObject) as refused:
        prove_entry(*parts(), other)
    for key in (LOG_KEY, OTHER_LOG_KEY):
        assert f"{ORIGIN}+{key.key_id.hex()}" in str(refused.value)


def test_a_proof_of_another_log_with_the_same_key_is_refused():
    """Somebody who shares a key between two logs."""
    elsewhere = Ed25519NoteSigner("elsewhere.example.com", b"k" * 32)
    here = Ed25519NoteSigner(ORIGIN, b"k" * 32)
    note = done(sign_checkpoint(Checkpoint(elsewhere.name, 1, bytes(32)), here))
    with pytest.raises(CorruptObject, match="a checkpoint of 'elsewhere"):
        prove_entry(bytes(TlogProof(0, (), note)), b"leaf", Trust((here.verifier,), ORIGIN), RING)


def outcome(proof, leaf):
    """What is proved, or None."""
    try:
        found = prove_entry(proof, leaf, TRUST, RING)
    except CorruptObject:
        return None
    return found.row, found.checkpoint, found.keyid


@pytest.mark.parametrize("index", [0, 255, 256])
def test_no_changed_byte_makes_it_prove_anything_else(index):
    """Each byte of proof and leaf, changed in turn: nothing verifies that was not said."""
    chance = random.Random(index)
    for which in (0, 1):
        for at in range(len(parts(index)[which])):
            files = [bytearray(part) for part in parts(index)]
            files[which][at] ^= 1 << chance.randrange(8)
            assert outcome(bytes(files[0]), bytes(files[1])) is None, (which, at)


def _with_unproved_parts():
    parsed = TlogProof.parse(cosigned(parts()[0], *WITNESSES[:1]))
    return bytes(TlogProof(parsed.index, parsed.hashes, parsed.checkpoint, b"extra"))


EXTRA = _with_unproved_parts()


@given(at=st.integers(0, len(EXTRA) - 1), value=st.integers(1, 255))
def test_what_nobody_authenticates_may_change_and_says_nothing(at, value):
    """`extra`, and signatures of witnesses that nobody asked for."""
    data = bytearray(EXTRA)
    data[at] ^= value
    found = outcome(bytes(data), parts()[1])
    assert found is None or found == outcome(EXTRA, parts()[1])


@given(
    index=st.sampled_from(INDEXES),
    which=st.integers(0, 1),
    start=st.integers(0, 4000),
    length=st.integers(0, 64),
    put=st.binary(max_size=64),
)
def test_nothing_cut_out_or_put_in_makes_it_prove_anything_else(index, which, start, length, put):
    files = list(parts(index))
    data = files[which]
    start %= len(data) + 1
    files[which] = data[:start] + put + data[start + length :]
    found = outcome(*files)
    assert found == (outcome(*parts(index)) if files[which] == data else None)


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_noise_proves_nothing(proof, leaf):
    assert outcome(proof, leaf) is None
    assert outcome(b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + proof, leaf) is None


@given(st.sampled_from(INDEXES), st.sampled_from(INDEXES))
def test_a_proof_fits_its_own_leaf_only(first, second):
    assert (outcome(parts(first)[0], parts(second)[1]) is None) == (first != second)


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_a_stream_is_hashed_whole_however_it_arrives(data, most):
    class Drip(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, most))

    assert hash_stream(Drip(data)) == (str(Digest.of(data)), len(data))
