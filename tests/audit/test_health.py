"""What is said of witnesses is what they signed."""

import pytest
from fakes.logs import SIGNER
from fakes.witnesses import NOW, cosigner_of, policy_of

from secure_cache.audit.health import see_witnesses
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.note import Note, Signature
from secure_cache.tlog.witness_wire import add_signatures

pytestmark = pytest.mark.anyio

CHECKPOINT = Checkpoint(SIGNER.name, 5, b"\7" * 32)
NAMES = ("w1", "w2", "w3")


async def note_of(*names, checkpoint=CHECKPOINT, signed=CHECKPOINT):
    """A checkpoint, cosigned by these; `signed` is what they cosigned."""
    note = await sign_checkpoint(checkpoint, SIGNER)
    return add_signatures(note, [cosigner_of(name).cosign(signed, int(NOW)) for name in names])


def seen(note, quorum="2"):
    return see_witnesses(note, policy_of(NAMES, quorum), profile="fail-open", trouble=None)


async def test_who_cosigned_and_when_and_whether_that_is_enough():
    found = seen(await note_of("w1", "w3"))
    assert [(item.name, item.cosigned_at, item.fault) for item in found.witnesses] == [
        ("w1", int(NOW), False),
        ("w2", None, False),
        ("w3", int(NOW), False),
    ]
    assert found.quorum
    assert not seen(await note_of("w1")).quorum
    assert found.document()["witnesses"][0] == {
        "name": "w1",
        "key": "w1.example.com",
        "vkey": found.witnesses[0].vkey,
        "cosigned_at": "2023-11-14T22:13:20Z",
        "fault": False,
    }


async def test_a_cosignature_of_something_else_counts_for_nothing_and_is_a_fault():
    other = Checkpoint(SIGNER.name, 5, b"\x08" * 32)
    found = seen(await note_of("w1", "w2", signed=other))
    assert [(item.cosigned_at, item.fault) for item in found.witnesses[:2]] == [(None, True)] * 2
    assert not found.quorum
    # A flipped bit, a time that nobody can write, and a note that is none.
    note = Note.parse(await note_of("w1"))
    for value in (
        bytes([note.unverified_signatures[1].value[0] ^ 1])
        + note.unverified_signatures[1].value[1:],
        b"\xff" * 72,
        b"short",
    ):
        signature = note.unverified_signatures[1]
        bad = Note(
            note.unverified_text,
            (
                note.unverified_signatures[0],
                Signature(signature.name, signature.key_id, value),
            ),
        )
        assert seen(bytes(bad)).witnesses[0].fault
    assert not seen(b"junk").quorum


async def test_a_time_beyond_all_calendars_is_shown_all_the_same():
    note = await sign_checkpoint(CHECKPOINT, SIGNER)
    late = add_signatures(note, [cosigner_of("w1").cosign(CHECKPOINT, 2**62)])
    assert seen(late).document()["witnesses"][0]["cosigned_at"] == "9999-12-31T23:59:59Z"
