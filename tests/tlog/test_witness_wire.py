"""C2SP tlog-witness and tlog-cosignature: bytes that are accepted, and bytes that are not."""

import base64
import contextlib
import hashlib

import pytest
from fakes.logs import ORIGIN, SIGNER, grown_log
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.cosignature import (
    CosignatureVerifier,
    Ed25519Cosigner,
    MldsaCosigner,
    parse_cosigner_key,
)
from secure_cache.tlog.merkle import leaf_hash, tree_hash
from secure_cache.tlog.note import MAX_NOTE_BYTES, Note, Signature, open_note
from secure_cache.tlog.witness_wire import (
    AddCheckpoint,
    add_signatures,
    checkpoint_path,
    read_cosignatures,
    read_size,
    write_cosignatures,
    write_size,
)

pytestmark = pytest.mark.anyio

# C2SP/tlog-witness.md, the example request and answer (its proof and keys are illustrative)
REQUEST = (
    "old 20852014\n"
    "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
    "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
    "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n"
    "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n"
    "\n"
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q"
    "1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V626"
    "7UEjw6QUXTS5Rovnzv++qbSzm9Q=\n"
).encode()
ANSWER = (
    "— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39"
    "QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==\n"
    "— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVl"
    "bQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==\n"
).encode()


def test_the_request_of_the_specification_is_read_and_written_the_same():
    request = AddCheckpoint.parse(REQUEST)
    assert request.old == 20_852_014
    assert len(request.proof) == 4
    assert Checkpoint.parse(Note.parse(request.note).unverified_text).size == 20_852_163
    assert bytes(request) == REQUEST


def test_the_answer_of_the_specification_is_read():
    note = AddCheckpoint.parse(REQUEST).note
    lines = read_cosignatures(note, ANSWER)
    assert [line.name for line in lines] == ["witness.example/w1"] * 2
    assert write_cosignatures(lines) == ANSWER


HASH = base64.b64encode(bytes(32)).decode()
NOTE = REQUEST.partition(b"\n\n")[2].decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 5\n",
        NOTE,
        f"old\n\n{NOTE}",
        f"old 05\n\n{NOTE}",
        f"old -1\n\n{NOTE}",
        f"old 5 \n\n{NOTE}",
        f" old 5\n\n{NOTE}",
        f"Old 5\n\n{NOTE}",
        f"old 5\r\n\r\n{NOTE}",
        f"old {2**63}\n\n{NOTE}",
        f"old 5\nAAAA\n\n{NOTE}",
        f"old 5\n{HASH} \n\n{NOTE}",
        f"old 5\n{HASH[:-1]}\n\n{NOTE}",
        f"old 5\n{HASH[:-2]}B=\n\n{NOTE}",
        "old 5\n" + f"{HASH}\n" * 64 + f"\n{NOTE}",
        f"old 5\n\xe9\n\n{NOTE}",
        f"old 5\n\n{NOTE}" + "x" * 65536,
    ],
)
def test_what_is_not_a_request_is_refused(text):
    with pytest.raises(Malformed):
        AddCheckpoint.parse(text.encode())


def test_sixty_three_hashes_are_the_most():
    data = ("old 5\n" + f"{HASH}\n" * 63 + f"\n{NOTE}").encode()
    assert bytes(AddCheckpoint.parse(data)) == data
    with pytest.raises(Malformed):
        AddCheckpoint(5, (bytes(32),) * 64, b"")
    with pytest.raises(Malformed):
        AddCheckpoint(5, (bytes(31),), b"")
    with pytest.raises(Malformed):
        AddCheckpoint(-1, (), b"")


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parsers_do_anything_but_refuse(data):
    for parse in (
        AddCheckpoint.parse,
        read_size,
        lambda body: read_cosignatures(NOTE.encode(), body),
        Contradiction.decode,
    ):
        with contextlib.suppress(Malformed):
            parse(data)


@pytest.mark.parametrize("body", [b"", b"5", b"5\n\n", b"05\n", b" 5\n", b"5\r\n", b"\xff\n"])
def test_a_size_is_one_number_on_one_line(body):
    assert read_size(write_size(300)) == 300
    with pytest.raises(Malformed):
        read_size(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"ok\n",
        ANSWER[:-1],
        b"\n" + ANSWER,
        ANSWER + b"\n",
        ANSWER * 60,
        b"x\n\n" + ANSWER,
    ],
)
def test_an_answer_is_signature_lines_and_nothing_else(body):
    with pytest.raises(Malformed):
        read_cosignatures(NOTE.encode(), body)


def test_a_cosignature_of_sunlight_is_made_to_the_byte():
    # FiloSottile/sunlight, cmd/skylight/testdata: gen.go says how the seed is made
    cosigner = Ed25519Cosigner(
        "witness.example.org", hashlib.sha256(b"skylight test witness key").digest()
    )
    assert str(cosigner.verifier) == (
        "witness.example.org+b8a2cf20+BFLN3yikSfFkVAJtrnh/CiY3Zozkoy7clp+P7XB28qUN"
    )
    root = base64.b64decode("lCkHUpkmVBEms2r2T1K6Og69+wUuuN3MIEW1/ezu2v0=")
    signature = cosigner.cosign(Checkpoint("rome2026h1.example.org", 300, root), 1_767_139_200)
    assert str(signature) == (
        "— witness.example.org uKLPIAAAAABpVGeAhm2bOvKc3LaB9PFN1ruG19Y5yqslmcAAbhftnn1Zznmo0LXFZ"
        "q4LGvqKqLX8jWlwLKasxEGTLIqAVusneCBmBw==\n"
    )


def test_the_place_of_a_checkpoint_is_the_hash_of_the_origin():
    assert checkpoint_path("example.com/log").endswith("/checkpoint")
    assert len(checkpoint_path("example.com/log")) == 64 + len("/checkpoint")


CHECKPOINT = Checkpoint(ORIGIN, 3, b"\x01" * 32)


@pytest.mark.parametrize("kind", [Ed25519Cosigner, MldsaCosigner])
async def test_a_cosignature_of_either_kind_verifies_and_no_other_does(kind):
    cosigner = kind("witness.example.com", bytes(32))
    verifier = parse_cosigner_key(str(cosigner.verifier))
    assert verifier == cosigner.verifier
    signature = cosigner.cosign(CHECKPOINT, 1_700_000_000)
    note = add_signatures(await sign_checkpoint(CHECKPOINT, SIGNER), [signature])
    assert len(open_note(note, [SIGNER.verifier, verifier]).signatures) == 2
    text = str(CHECKPOINT).encode()
    for other in (
        str(Checkpoint(ORIGIN, 4, b"\x01" * 32)),
        str(Checkpoint(ORIGIN, 3, b"\x02" * 32)),
        str(Checkpoint("other", 3, b"\x01" * 32)),
    ):
        with pytest.raises(LogInconsistent):
            verifier.verify(other.encode(), signature.value)
    later = b"\0\0\0\0\x65\x53\xf1\x01" + signature.value[8:]
    for value in (later, signature.value[:-1], signature.value + b"\0", b"", bytes(8)):
        with pytest.raises(LogInconsistent):
            verifier.verify(text, value)
    flipped = bytearray(signature.value)
    flipped[40] ^= 1
    with pytest.raises(LogInconsistent):
        verifier.verify(text, bytes(flipped))


def test_an_mldsa_cosignature_holds_the_witness_name_and_a_time():
    cosigner = MldsaCosigner("one", bytes(32))
    other = MldsaCosigner("two", bytes(32)).verifier
    text = str(CHECKPOINT).encode()
    with pytest.raises(LogInconsistent):
        other.verify(text, cosigner.cosign(CHECKPOINT, 5).value)
    with pytest.raises(LogInconsistent):
        cosigner.verifier.verify(text, cosigner.cosign(CHECKPOINT, 0).value)
    with pytest.raises(LogInconsistent):
        cosigner.verifier.verify(b"not a checkpoint\n", cosigner.cosign(CHECKPOINT, 5).value)


def test_a_vkey_of_another_kind_is_no_witness():
    one, other = (
        Ed25519Cosigner("w", bytes(32)).verifier,
        MldsaCosigner("w", bytes(32)).verifier,
    )
    for vkey in (str(SIGNER.verifier), "w", "w++", "w+00000000+AA==", str(one)[:-4] + "AAAA"):
        with pytest.raises(Malformed):
            parse_cosigner_key(vkey)
    with pytest.raises(Malformed):
        type(other).parse(str(one))
    with pytest.raises(Malformed):
        CosignatureVerifier.parse(str(other))
    with pytest.raises(Malformed):
        type(other)("x" * 256, other.public_key)
    with pytest.raises(Malformed):
        type(other)("x", bytes(5))
    for kind in (Ed25519Cosigner, MldsaCosigner):
        with pytest.raises(Malformed):
            kind("w", bytes(31))


async def test_a_fresh_cosignature_takes_the_place_of_the_old_one_of_its_key():
    cosigner = Ed25519Cosigner("w", bytes(32))
    note = await sign_checkpoint(CHECKPOINT, SIGNER)
    old = add_signatures(note, [cosigner.cosign(CHECKPOINT, 5)])
    new = add_signatures(old, [cosigner.cosign(CHECKPOINT, 6)])
    assert len(new) == len(old)
    assert new != old
    assert add_signatures(new, []) == new


async def test_a_note_never_grows_beyond_what_readers_accept():
    note = await sign_checkpoint(CHECKPOINT, SIGNER)
    big = [MldsaCosigner(f"w{i}", bytes([i]) * 32).cosign(CHECKPOINT, 5) for i in range(30)]
    small = [Ed25519Cosigner("s", bytes(32)).cosign(CHECKPOINT, 5)]
    full = add_signatures(note, [*big, *small])
    assert MAX_NOTE_BYTES - 4000 < len(full) <= MAX_NOTE_BYTES
    assert small[0] in Note.parse(full).unverified_signatures
    many = [Signature(f"w{i}", bytes(4), bytes(72)) for i in range(200)]
    assert len(Note.parse(add_signatures(note, many)).unverified_signatures) == 100


LEAVES = [leaf_hash(b"record %d" % i) for i in range(20)]
OTHERS = [leaf_hash(b"forged %d" % i) for i in range(20)]


async def signed(leaves, signer=SIGNER):
    return await sign_checkpoint(Checkpoint(ORIGIN, len(leaves), tree_hash(leaves)), signer)


async def contradiction_at(older, newer):
    """Of the log of `LEAVES` at `newer` with that of `OTHERS` at `older`."""
    log = await grown_log(None, (older, newer) if older < newer else (newer,))
    return Contradiction(
        await signed(OTHERS[:older]),
        await log.checkpoint_note(),
        tree_hash(LEAVES[:older]) if older < newer else None,
        await log.consistency_proof(older, newer) if older < newer else (),
    )


@pytest.mark.parametrize(("older", "newer"), [(5, 5), (5, 9), (8, 9), (4, 20), (1, 2)])
async def test_a_contradiction_is_proved_to_whoever_has_the_logs_key(older, newer):
    found = Contradiction.decode((await contradiction_at(older, newer)).encode())
    first, second = found.verify([SIGNER.verifier], origin=ORIGIN)
    assert (first.size, second.size) == (older, newer)


async def test_what_may_both_be_true_is_no_contradiction():
    good = await contradiction_at(5, 9)
    harmless = await signed(LEAVES[:5])
    for claim in (
        Contradiction(harmless, good.newer, good.root_at_older, good.proof),
        Contradiction(harmless, harmless),
        Contradiction(good.older, good.newer),
        Contradiction(good.older, good.newer, good.root_at_older),
        Contradiction(good.older, good.newer, b"\x01" * 32, good.proof),
        Contradiction(good.newer, good.older, good.root_at_older, good.proof),
        Contradiction(good.older, good.newer, good.root_at_older, (*good.proof, bytes(32))),
    ):
        with pytest.raises(LogInconsistent):
            claim.verify([SIGNER.verifier], origin=ORIGIN)
    for origin, verifiers in (("other", [SIGNER.verifier]), (ORIGIN, [])):
        with pytest.raises(LogInconsistent):
            good.verify(verifiers, origin=origin)


async def test_a_damaged_contradiction_is_refused():
    data = (await contradiction_at(5, 9)).encode()
    for broken in (
        b"",
        b"[]",
        b"{}",
        data.replace(b'"v": 1', b'"v": 2'),
        data.replace(b'"kind"', b'"sort"'),
        data.replace(b'"proof": [', b'"proof": [1, '),
        data.replace(b'"rootAtOlder": "', b'"rootAtOlder": "AAAA'),
        data.replace(b'"older": "', b'"older": 5, "x": "'),
    ):
        with pytest.raises(Malformed):
            Contradiction.decode(broken)
