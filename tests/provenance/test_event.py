import json

import pytest
import rfc8785
from fakes.statements import ENTRY, events
from hypothesis import given

from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject, Malformed
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.event_statement import build_event, parse_event

DIGEST = Digest.of(b"policy")
AT = 1_767_323_045


def event(what):
    return Event(what, AT, "secure-cache/0.1.0")


@given(events)
def test_an_event_survives_the_round_trip(logged):
    payload = build_event(logged)
    assert parse_event(payload) == logged
    assert build_event(parse_event(payload)) == payload


def test_a_policy_event_names_the_policy_before_it():
    document = json.loads(build_event(event(PolicyTookEffect(DIGEST, 2, Digest.of(b"before")))))
    assert document["predicateType"] == "https://secure-cache.dev/attestations/log-event/v1"
    assert document["subject"] == [{"name": "policy", "digest": {"sha256": str(DIGEST)}}]
    assert document["predicate"] == {
        "at": "2026-01-02T03:04:05Z",
        "server": "secure-cache/0.1.0",
        "event": {
            "type": "policy",
            "number": 2,
            "policySha256": str(DIGEST),
            "previousSha256": str(Digest.of(b"before")),
        },
    }


def test_events_about_an_entry_have_the_entrys_own_subject():
    quarantined = event(EntryQuarantined.of(ENTRY, reason="bytes differ"))
    removed = event(EntryRemoved.of(ENTRY, line="revocation r1"))
    for logged in (quarantined, removed):
        assert json.loads(build_event(logged))["subject"] == [
            {
                "name": "demo:branch/main/12345678901234567890",
                "digest": {"sha256": str(ENTRY.digest)},
            }
        ]


@pytest.mark.parametrize(
    "what",
    [
        PolicyTookEffect(DIGEST, 0, None),
        PolicyTookEffect(DIGEST, 2, None),
        PolicyTookEffect(DIGEST, 1, DIGEST),
        KeysChanged(DIGEST, added=("zz",)),
        KeysChanged(DIGEST, added=("cd" * 32, "ab" * 32)),
        KeysChanged(DIGEST, revoked=("ab" * 32, "ab" * 32)),
        LogOpened("", "vkey"),
        LogOpened("origin", "two\nlines"),
        EntryQuarantined.of(ENTRY, reason=""),
        EntryQuarantined.of(ENTRY, reason="x" * 513),
        EntryRemoved.of(ENTRY, line="r", replaced_by=ENTRY.entry_id),
        EntryRemoved.of(ENTRY, line="r", replaced_by="x"),
    ],
)
def test_what_could_not_be_read_back_is_never_stated(what):
    with pytest.raises(Malformed):
        build_event(event(what))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["extra"], 1),
        (["predicateType"], "https://example.com/v1"),
        (["subject"], []),
        (["subject", 0, "name"], "policy"),
        (["predicate", "extra"], 1),
        (["predicate", "at"], "yesterday"),
        (["predicate", "event", "extra"], 1),
        (["predicate", "event", "type"], "other"),
        (["predicate", "event", "type"], "opened"),
        (["predicate", "event", "reason"], None),
        (["predicate", "event", "key"], "999"),
        (["predicate", "event", "namespace", "id"], ""),
    ],
)
def test_an_event_of_another_form_is_refused(path, value):
    document = json.loads(build_event(event(EntryQuarantined.of(ENTRY, reason="bytes differ"))))
    *above, last = path
    parent = document
    for step in above:
        parent = parent[step]
    parent[last] = value
    with pytest.raises(CorruptObject):
        parse_event(rfc8785.dumps(document))


def test_an_event_in_another_spelling_is_refused():
    payload = build_event(event(LogOpened("example.com/log", "vkey")))
    with pytest.raises(CorruptObject, match="canonical"):
        parse_event(payload + b" ")
