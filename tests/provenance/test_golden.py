"""What was signed once must be read for ever."""

import golden_provenance
import pytest

from secure_cache.provenance.event import Event
from secure_cache.provenance.keys import KeyRing
from secure_cache.provenance.record import parse_record
from secure_cache.provenance.verify import VerifiedEntry, check_chunk_list, verify_statement

FOLDER = golden_provenance.FOLDER
ENVELOPES = sorted(path.name for path in FOLDER.glob("*.dsse.json"))


def test_the_golden_files_are_those_that_we_write_today():
    stored = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert stored == golden_provenance.files(), "run: python tests/golden_provenance.py"


@pytest.mark.parametrize("name", ENVELOPES)
def test_a_stored_envelope_still_verifies(name):
    ring = KeyRing.decode((FOLDER / "ring.json").read_bytes())
    verified = verify_statement((FOLDER / name).read_bytes(), ring)
    kind = name.split(".")[0]
    if isinstance(verified, VerifiedEntry):
        assert repr(verified.entry) == repr(golden_provenance.ENTRIES[kind])
    else:
        assert verified.event == Event(
            golden_provenance.EVENTS[kind], golden_provenance.STORED_AT, "secure-cache/0.1.0"
        )


@pytest.mark.parametrize("kind", ["entry", "entry-large"])
def test_a_stored_record_still_verifies(kind):
    ring = KeyRing.decode((FOLDER / "ring.json").read_bytes())
    record = parse_record((FOLDER / f"{kind}.record.json").read_bytes())
    verified = verify_statement(record.envelope, ring)
    check_chunk_list(verified.entry, record.chunks)
