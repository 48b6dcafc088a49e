"""Signed notes, checkpoints, cosignatures: public vectors and what must be refused."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.checkpoint import Checkpoint, open_checkpoint, parse_number, sign_checkpoint
from secure_cache.tlog.cosignature import CosignatureVerifier, cosignature_time
from secure_cache.tlog.merkle import EMPTY_ROOT
from secure_cache.tlog.note import (
    Ed25519NoteSigner,
    Ed25519Verifier,
    Note,
    decode_base64,
    open_note,
    sign_note,
)

# The examples of the Go package note, golang/mod (BSD).
NEUMANN_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NEUMANN_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdn"
    "gotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwn"
    "WLox33WWd1RvMc+QQ=\n"
)


async def test_signing_gives_the_bytes_of_the_go_example():
    signer = Ed25519NoteSigner("PeterNeumann", NEUMANN_SEED)
    note = await sign_note(NEUMANN_TEXT, signer)
    assert note.decode() == NEUMANN_TEXT + "\n" + NEUMANN_LINE
    assert str(signer.verifier) == NEUMANN


async def test_signing_with_the_all_zero_seed_gives_the_bytes_of_the_go_example():
    note = await sign_note(NEUMANN_TEXT, Ed25519NoteSigner("EnochRoot", bytes(32)))
    assert note.decode() == NEUMANN_TEXT + "\n" + ENOCH_LINE


def test_the_example_of_the_signed_note_specification_verifies():
    # C2SP/signed-note.md
    verifier = Ed25519Verifier.parse(
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    )
    note = (
        "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXpp"
        "zi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
    )
    assert open_note(note.encode(), [verifier]).text == "This is an example message.\n"


def test_a_real_checkpoint_of_the_go_checksum_database_verifies():
    # torchwood, cmd/litewitness/testdata/sumdb.txt; its origin is not its key's name
    verifier = Ed25519Verifier.parse(
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    )
    note = (
        "go.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n\n— sum.g"
        "olang.org Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTt"
        "PydhKCExixSfwQ=\n"
    )
    checkpoint = open_checkpoint(note.encode(), [verifier], origin="go.sum database tree")
    assert checkpoint.size == 35_225_469
    with pytest.raises(LogInconsistent, match="of"):
        open_checkpoint(note.encode(), [verifier], origin="sum.golang.org")


def test_a_real_cosignature_verifies_over_its_time():
    # sunlight, cmd/skylight/testdata
    verifier = CosignatureVerifier.parse(
        "witness.example.org+b8a2cf20+BFLN3yikSfFkVAJtrnh/CiY3Zozkoy7clp+P7XB28qUN"
    )
    text = "rome2026h1.example.org\n300\nlCkHUpkmVBEms2r2T1K6Og69+wUuuN3MIEW1/ezu2v0=\n"
    line = (
        "— witness.example.org uKLPIAAAAABpVGeAhm2bOvKc3LaB9PFN1ruG19Y5yqslmcAAbhftnn1Zznmo0LXFZ"
        "q4LGvqKqLX8jWlwLKasxEGTLIqAVusneCBmBw==\n"
    )
    note = open_note(f"{text}\n{line}".encode(), [verifier])
    (signature,) = note.signatures
    assert cosignature_time(signature.value) == 1_767_139_200
    later = signature.value[:7] + b"\xff" + signature.value[8:]
    with pytest.raises(LogInconsistent):
        verifier.verify(text.encode(), later)


@pytest.mark.parametrize(
    "vkey",
    [
        "log2025-alpha1.rekor.sigstage.dev+f30d5a99+AT5/gERB6AWme8IEtcwaqcZi0hp8ocV4+JRcUnVlQfKP",
        "log2025-alpha3.rekor.sigstage.dev+d3d3a70c+AZQ93VXPMmj9uZj7U/7CefQ9yy8RgYFv6mKzOseipjqp",
        "cache.example.com/manifest/2026+1edde122+AYptTYMPfS1rLfFUOsDmaHMMpO8djvWIculAfysNUNwJ",
    ],
)
def test_vkeys_are_read_and_written_the_same(vkey):
    assert str(Ed25519Verifier.parse(vkey)) == vkey


def test_our_own_key_has_the_vkey_that_go_computed():
    seed = hashlib.sha256(b"tloglab log key").digest()
    signer = Ed25519NoteSigner("cache.example.com/manifest/2026", seed)
    assert str(signer.verifier) == (
        "cache.example.com/manifest/2026+1edde122+AYptTYMPfS1rLfFUOsDmaHMMpO8djvWIculAfysNUNwJ"
    )


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        NEUMANN.replace("c74f20a3", "C74F20A3"),
        NEUMANN.replace("c74f20a3", "c74f20a4"),
        NEUMANN.replace("+AR", "+BR"),
        NEUMANN + "=",
        NEUMANN[:-4],
        NEUMANN + "\n",
        NEUMANN.replace("Peter", "Peter "),
        NEUMANN.replace("Peter", "Peter+"),
    ],
)
def test_any_other_vkey_is_refused(vkey):
    with pytest.raises(Malformed):
        Ed25519Verifier.parse(vkey)


@pytest.fixture
def signer():
    return Ed25519NoteSigner("log.example.com", bytes(range(32)))


async def test_unknown_keys_are_ignored(signer):
    note = (await sign_note("text\n", signer)).decode() + NEUMANN_LINE
    opened = open_note(note.encode(), [signer.verifier])
    assert [signature.name for signature in opened.signatures] == ["log.example.com"]
    assert [signature.name for signature in opened.unverified_signatures] == ["PeterNeumann"]


async def test_a_known_key_that_fails_rejects_the_note_though_another_verifies(signer):
    note = (await sign_note("text\n", signer)).decode() + NEUMANN_LINE
    with pytest.raises(LogInconsistent):
        open_note(note.encode(), [signer.verifier, Ed25519Verifier.parse(NEUMANN)])


async def test_a_note_that_no_known_key_signed_is_rejected(signer):
    note = await sign_note("text\n", signer)
    for verifiers in ([], [Ed25519Verifier.parse(NEUMANN)]):
        with pytest.raises(LogInconsistent):
            open_note(note, verifiers)


async def test_the_same_name_with_another_key_is_another_key(signer):
    other = Ed25519NoteSigner(signer.name, bytes(32))
    note = await sign_note("text\n", other)
    with pytest.raises(LogInconsistent, match="no known key"):
        open_note(note, [signer.verifier])


async def test_every_flipped_bit_of_a_signed_note_is_refused(signer):
    note = bytearray(await sign_note(str(Checkpoint("log.example.com", 0, EMPTY_ROOT)), signer))
    for at in range(len(note) * 8):
        note[at // 8] ^= 1 << at % 8
        with pytest.raises((LogInconsistent, Malformed)):
            open_note(bytes(note), [signer.verifier])
        note[at // 8] ^= 1 << at % 8
    open_note(bytes(note), [signer.verifier])


async def test_the_text_may_hold_blank_lines_and_ends_at_the_last_one(signer):
    note = await sign_note("first\n\nsecond\n", signer)
    assert open_note(note, [signer.verifier]).text == "first\n\nsecond\n"


async def test_two_verifiers_for_one_key_are_refused(signer):
    note = await sign_note("text\n", signer)
    with pytest.raises(Malformed):
        open_note(note, [signer.verifier, signer.verifier])


SIG = NEUMANN_LINE


@pytest.mark.parametrize(
    "data",
    [
        "",
        "\n",
        "text\n",
        "text\n\n",
        "\n\n" + SIG[:-1],
        "text\n" + SIG,
        "text\n\n" + SIG[:-1],
        "text\n\n" + SIG + "\n",
        "text\n\n" + SIG + "garbage\n",
        "text\n\ngarbage\n" + SIG,
        "text\n\n" + SIG.replace("— ", "- "),
        "text\n\n" + SIG.replace("— ", "—  "),
        "text\n\n" + SIG.replace("— ", "—\t"),
        "text\n\n " + SIG,
        "text\n\n" + SIG.replace("PeterNeumann ", "PeterNeumann  "),
        "text\n\n" + SIG.replace("PeterNeumann", ""),
        "text\n\n" + SIG.replace("PeterNeumann", "Peter+Neumann"),
        "text\n\n" + SIG.replace("PeterNeumann", "Peter\u00a0Neumann"),
        "text\n\n" + SIG.replace("PeterNeumann", "Peter\u2028Neumann"),
        "text\n\n" + SIG.replace("=", ""),
        "text\n\n" + SIG.replace("=", "=="),
        "text\n\n" + SIG.replace("JnAM=", "JnAN="),
        "text\n\n" + SIG.replace("x08g", "x08g "),
        "text\n\n" + SIG.replace("x08g", "x08-"),
        "text\n\n— PeterNeumann x08goA==\n".replace("x08goA==", "x08goA==")[:-5] + "\n",
        "text\n\n— PeterNeumann x08gow==\n",
        "text\n\n" + SIG.replace("\n", "\r\n"),
        "te\x00xt\n\n" + SIG,
        "te\txt\n\n" + SIG,
        "te\rxt\n\n" + SIG,
        "text\n\n" + SIG * 101,
        "x" * 70_000 + "\n\n" + SIG,
    ],
)
def test_a_note_in_any_other_form_is_refused(data):
    with pytest.raises(Malformed):
        Note.parse(data.encode())


@pytest.mark.parametrize(
    "data", [b"te\xffxt\n\n" + SIG.encode(), b"\xed\xa0\x80\n\n" + SIG.encode()]
)
def test_a_note_that_is_not_utf_8_is_refused(data):
    with pytest.raises(Malformed):
        Note.parse(data)


def test_sixteen_signatures_and_more_are_accepted():
    assert len(Note.parse(("text\n\n" + SIG * 100).encode()).unverified_signatures) == 100


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_malformed(data):
    try:
        note = Note.parse(data + SIG.encode())
    except Malformed:
        return
    assert bytes(note) == data + SIG.encode()


@pytest.mark.parametrize(
    "text",
    ["", "+4", "4_2", " 4", "4 ", "04", "-0", "0x1", "٤", "4\n", "9223372036854775808", "1e3"],
)
def test_a_number_has_one_spelling(text):
    with pytest.raises(Malformed):
        parse_number(text)


@pytest.mark.parametrize("text", ["AA=", "AA", "A A=", "AA==\n", "AB==", "A-==", "AA==AA=="])
def test_base64_has_one_spelling(text):
    with pytest.raises(Malformed):
        decode_base64(text)


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "o\n1\n",
        f"o\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"o\n+1\n{ROOT}\n",
        f"o\n01\n{ROOT}\n",
        f"o\n1_0\n{ROOT}\n",
        f"o\n\n{ROOT}\n",
        f"o\n1 \n{ROOT}\n",
        f"o\n1\n{ROOT[:-2]}\n",
        f"o\n1\n{ROOT}=\n",
        f"o\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"o\n1\n{ROOT}\n\n",
        f"o\n1\n{ROOT}\nextension\n\n",
        f"o\n0\n{ROOT}\n",
        f"o\r\n1\r\n{ROOT}\r\n",
        f"o\n9223372036854775808\n{ROOT}\n",
    ],
)
def test_a_checkpoint_in_any_other_form_is_refused(text):
    with pytest.raises(Malformed):
        Checkpoint.parse(text)


@given(
    st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable()),
    st.integers(1, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_checkpoints_are_read_back(origin, size, root):
    checkpoint = Checkpoint(origin, size, root)
    assert Checkpoint.parse(str(checkpoint)) == checkpoint


async def test_a_checkpoint_with_extension_lines_is_read_but_not_opened(signer):
    text = f"{signer.name}\n1\n{ROOT}\nextension\n"
    assert Checkpoint.parse(text).extensions == ("extension",)
    with pytest.raises(Malformed):
        open_checkpoint(await sign_note(text, signer), [signer.verifier], origin=signer.name)


async def test_a_signer_that_signs_wrongly_is_found_out_before_publication(signer):
    class Faulty(Ed25519NoteSigner):
        async def sign(self, text):
            return (await super().sign(text))[:-1] + b"\x00"

    with pytest.raises(LogInconsistent):
        await sign_checkpoint(
            Checkpoint(signer.name, 0, EMPTY_ROOT), Faulty(signer.name, bytes(range(32)))
        )


pytestmark = pytest.mark.anyio
