"""The monitor's judgement, entry by entry."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.audit import (
    SIGNER,
    T0,
    leaf_choices,
    leaf_of,
    leaf_of_event,
    make_leaf,
    numbered,
    writer,
)
from fakes.statements import ENTRY, ed25519_signer, entries, ring_for
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.audit.watch import MAX_POLICIES, Watch
from secure_cache.audit.watch_examine import Examined
from secure_cache.audit.watch_limits import DAYS, Hours
from secure_cache.audit.watch_rules import CODES, IGNORABLE, Glob, WatchRules
from secure_cache.audit.watch_signatures import SigningKeys
from secure_cache.model.digest import Digest
from secure_cache.model.errors import InvalidPolicy, Malformed
from secure_cache.model.names import Namespace
from secure_cache.model.tiers import Tier
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.keys import KeyStatus, ring_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
RULES = b"version: 1\nexpect: [{ name: all, issuer: self }]\n"
ANYBODY = b"version: 1\nexpect: [{ name: all, issuer: '*' }]\n"
RING = ring_for(SIGNER)
ROGUE = ed25519_signer(9)
MONDAY = T0 + 4 * 86_400
NOW = T0 + 400 * 86_400
KNOWN = (ENTRY.policy_sha256,)


def rules_of(text):
    return WatchRules.parse(text, name="rules.yaml")


def a_watch(rules=ANYBODY, keys=None, policies=KNOWN, number=None):
    return Watch(rules_of(rules), keys or SigningKeys(RING), policies, number, now=NOW)


def judge(watch, leaves, first=0):
    """As the monitor does it: what follows a revocation is examined anew."""
    found, at = [], first
    while at < first + len(leaves):
        rest = leaves[at - first :]
        alerts, settled = watch.settle(at, rest, watch.examiner().examine(at, rest))
        found += alerts
        at += settled
    return found


def codes(watch, leaves, first=0):
    return [alert.alert for alert in judge(watch, leaves, first)]


def policy(number, previous=None, text=None, signer=SIGNER):
    sha256 = Digest.of(text or b"policy %d" % number)
    before = Digest.of(b"policy %d" % previous) if previous else None
    return leaf_of_event(PolicyTookEffect(sha256, number, before), signer=signer)


def test_the_rules_in_the_document_are_rules():
    (example,) = re.findall(
        r"^```yaml\n(version: 1\nexpect:.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    rules = WatchRules.parse(example.encode(), name="rules.yaml")
    assert next(rule.name for rule in rules.expected) == "main on GitHub"
    assert rules.max_age_seconds == 86_400
    assert rules.ignored == {"removed"}
    assert any(rule.hours for rule in rules.expected)
    assert any(rule.max_size for rule in rules.expected)


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("a*", "a", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("refs/heads/*", "refs/heads/a/b", True),
        ("*/ci.yml@refs/heads/main", "o/r/.github/workflows/ci.yml@refs/heads/main", True),
        ("*/ci.yml@refs/heads/main", "o/r/ci.yml@refs/heads/main2", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "aXcYb", False),
    ],
)
def test_a_star_stands_for_any_characters(pattern, value, matches):
    assert Glob(pattern).matches(value) is matches


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=12))
def test_a_glob_is_what_a_regex_would_say(pattern, value):
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, re.DOTALL)
    assert Glob(pattern).matches(value) is (expected is not None)


@given(st.binary(max_size=400))
def test_no_leaf_stops_the_monitor_and_none_of_a_strangers_is_passed_over(leaf):
    watch = Watch(rules_of(RULES), SigningKeys(ring_of(())), now=NOW)
    assert codes(watch, [leaf], 3) == ["unreadable"]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (b"version: 2\nexpect: [{ name: a, issuer: b }]\n", InvalidPolicy, "from 1 to 1"),
        (b"version: 1\nexpect: []\n", InvalidPolicy, "at least one"),
        (b"version: 1\nexpect: [{ name: a }]\n", InvalidPolicy, "issuer is missing"),
        (b"version: 1\nexpect: [{ name: a, issuer: b, claim: {} }]\n", InvalidPolicy, "'claim'"),
        (RULES + b"expct: []\n", InvalidPolicy, "'expct'"),
        (
            b"version: 1\nexpect: [{ name: a, issuer: b, hours: { mon: a, fry: b } }]\n",
            InvalidPolicy,
            "'fry'",
        ),
        (b"version: 1\nexpect: [{ name: a, issuer: b, hours: {} }]\n", InvalidPolicy, "one key"),
        (
            b"version: 1\nexpect: [{ name: a, issuer: b, max_size: 7 }]\n",
            InvalidPolicy,
            "max_size",
        ),
        (
            b"version: 1\nexpect: [{ name: a, issuer: b }]\nmax_age: soon\n",
            InvalidPolicy,
            "'soon'",
        ),
        (RULES + b"ignore: [stael]\n", Malformed, "'stael' is no alert"),
        (RULES + b"ignore: [unexpected-writer]\n", Malformed, "must not be ignored"),
        *(
            (
                b"version: 1\nexpect: [{ name: a, issuer: b, hours: { mon: %b } }]\n" % window,
                Malformed,
                "hours: mon",
            )
            for window in (b"'25:00-26:00'", b"'20:00-06:00'", b"'06:00-06:00'", b"'6-20'", b"x")
        ),
    ],
)
def test_rules_with_a_mistake_are_refused_and_the_mistake_is_named(text, error, says):
    with pytest.raises(error) as caught:
        rules_of(text)
    shown = f"{caught.value} {getattr(caught.value, 'findings', '')}"
    assert says in shown or says == "max_size"


def test_only_the_logs_own_news_can_be_ignored():
    for code in CODES:
        text = RULES + b"ignore: [%b]\n" % code.encode()
        if code in IGNORABLE:
            assert rules_of(text).ignored == {code}
        else:
            with pytest.raises(Malformed):
                rules_of(text)


# Default deny -----------------------------------------------------------------------------------

_UNEXPECTED = {"unknown-issuer", "unexpected-writer", "unexpected-size", "unexpected-hours"}
_values = {
    "issuer": ["gha", "gitlab", "g*", "*"],
    "project": ["demo", "other", "d*"],
    "tier": ["trusted", "contributor", "*"],
    "namespace": ["demo:branch/main", "demo:pr/*", "*"],
    "subject": ["sub1", "sub*", "nobody"],
    "rule": ["rule0", "rule*"],
}
_claims = {"actor": ["dev1", "dev*"], "repository_id": ["0", "1"], "is_missing": ["*"]}
_rule = st.fixed_dictionaries(
    {"name": st.just("r"), "issuer": st.sampled_from(_values["issuer"])},
    optional={
        **{
            name: st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1)
            for name, values in _values.items()
            if name != "issuer"
        },
        "claims": st.dictionaries(
            st.sampled_from(sorted(_claims)),
            st.sampled_from(["dev1", "dev*", "0", "*"]),
            min_size=1,
        ),
        "hours": st.sampled_from([{"mon-sun": "00:00-24:00"}, {"thu": ["00:00-05:30"]}]),
        "max_size": st.sampled_from(["1KiB", "4KiB", "1GiB"]),
    },
)


def plainly_expected(rule, entry):
    """A rule by the words of the document, said a second time."""
    facts = {
        "issuer": entry.writer.issuer,
        "project": entry.namespace.project,
        "tier": str(entry.tier),
        "namespace": str(entry.namespace),
        "subject": entry.writer.subject,
        "rule": entry.rule,
    }
    claims = dict(entry.writer.claims)
    wanted = [(facts[name], rule[name]) for name in facts if name in rule]
    wanted += [(claims.get(name), value) for name, value in rule.get("claims", {}).items()]
    for value, patterns in wanted:
        if not any(
            value is not None
            and re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, re.DOTALL)
            for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        ):
            return False
    most = {"1KiB": 1024, "4KiB": 4096, "1GiB": 1 << 30}.get(rule.get("max_size"), 1 << 60)
    when = datetime.fromtimestamp(entry.stored_at, UTC)
    inside = "thu" not in rule.get("hours", {}) or (
        when.weekday() == 3 and (when.hour, when.minute) < (5, 30)
    )
    return entry.size <= most and inside


def an_entry(number, namespace, who, when, size):
    return numbered(
        number,
        namespace=namespace,
        tier=(Tier.TRUSTED, Tier.CONTRIBUTOR)[namespace.kind == "pr"],
        writer=writer(
            subject=f"sub{who}",
            issuer=("gha", "gitlab")[who % 2],
            actor=f"dev{who}",
            repository_id=f"{who}",
        ),
        stored_at=T0 + when * 3600,
        size=size,
        rule=f"rule{who}",
    )


_entries = st.builds(
    an_entry,
    st.integers(0, 40),
    st.sampled_from([Namespace("demo", "branch", "main"), Namespace("demo", "pr", "7")])
    | st.just(Namespace("other", "pr", "7")),
    st.integers(0, 2),
    st.integers(0, 50),
    st.sampled_from([0, 1024, 1025, 4096, 4097]),
)


@given(st.lists(_rule, min_size=1, max_size=4), st.lists(_entries, min_size=1, max_size=6))
def test_what_no_rule_covers_is_told_and_nothing_else_is(rules, stored):
    text = json.dumps({"version": 1, "expect": rules, "ignore": sorted(IGNORABLE)})
    found = judge(a_watch(text.encode()), [leaf_of(entry) for entry in stored])
    told = {alert.index for alert in found}
    assert {alert.alert for alert in found} <= _UNEXPECTED
    assert told == {
        index
        for index, entry in enumerate(stored)
        if not any(plainly_expected(rule, entry) for rule in rules)
    }


@given(st.lists(leaf_choices, max_size=12))
def test_both_ways_of_reading_find_the_same(choices):
    leaves = [make_leaf(choice) for choice in choices]
    watch = a_watch(b"version: 1\nexpect: [{ name: a, issuer: gha, tier: trusted }]\n")
    quick, strict = watch.examiner().examine(5, leaves), Examined()
    for index, leaf in enumerate(leaves, 5):
        watch.examiner().examine_strictly(index, leaf, strict)
    assert quick == strict


@given(entries())
def test_any_entry_at_all_is_judged(entry):
    leaves = [leaf_of(entry)]
    known = {"policies": [entry.policy_sha256]}
    keys = SigningKeys(ring_for(SIGNER, not_before=0))
    assert codes(a_watch(keys=keys, **known), leaves) == []
    rules = b"version: 1\nexpect: [{ name: a, issuer: '*', subject: nobody at all }]\n"
    assert codes(a_watch(rules, keys, **known), leaves) == ["unexpected-writer"]
    assert codes(a_watch(keys=keys), leaves) in ([], ["unknown-policy"])


GOOD = leaf_of(numbered(1))


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_anywhere_in_an_entry_is_told(at, change):
    leaf = GOOD[:at] + bytes([GOOD[at] ^ change]) + GOOD[at + 1 :]
    assert set(codes(a_watch(), [leaf])) & {"unreadable", "bad-signature"}
    assert codes(a_watch(), [GOOD]) == []


def test_an_entry_beyond_ascii_is_judged_like_any_other():
    entry = numbered(1, writer=writer(actor="J\u00f6rg", subject="\u202eevil"))
    assert codes(a_watch(), [leaf_of(entry)]) == []
    (alert,) = judge(a_watch(RULES), [leaf_of(entry)])
    assert alert.alert == "unknown-issuer"
    assert alert.sentence.isascii()


# Limits -----------------------------------------------------------------------------------------


@given(st.integers(0, 4_000_000_000))
def test_hours_are_those_of_the_calendar(at):
    when = datetime.fromtimestamp(at, UTC)
    hours = Hours.parse({DAYS[when.weekday()]: [f"{when:%H:%M}-24:00"]})
    assert hours.allows(at)
    others = {day: ["00:00-24:00"] for day in DAYS if day != DAYS[when.weekday()]}
    assert not Hours.parse(others).allows(at)
    if when.hour:
        assert not Hours.parse({"mon-sun": [f"00:00-{when:%H}:00"]}).allows(at)


def test_days_go_over_the_end_of_a_week():
    hours = Hours.parse({"sat-mon": ["06:00-20:00", "22:00-24:00"]})
    noon = MONDAY + 12 * 3600
    days = [hours.allows(noon + day * 86_400) for day in range(7)]
    assert days == [True, False, False, False, False, True, True]
    assert not hours.allows(noon + 9 * 3600)
    assert hours.allows(noon + 11 * 3600)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"size": 1 << 20}, None),
        ({"size": (1 << 20) + 1}, "unexpected-size"),
        ({"stored_at": MONDAY + 20 * 3600 - 1}, None),
        ({"stored_at": MONDAY + 20 * 3600}, "unexpected-hours"),
        ({"stored_at": MONDAY - 3600}, "unexpected-hours"),
    ],
)
def test_limits_of_an_expected_writer_are_held(changes, code):
    rules = (
        b"version: 1\nexpect:\n- name: all\n  issuer: '*'\n  max_size: 1MiB\n"
        b"  hours: { mon-fri: 06:00-20:00 }\n"
    )
    entry = numbered(1, **{"stored_at": MONDAY + 12 * 3600, **changes})
    watch = a_watch(rules, SigningKeys(ring_for(SIGNER, not_before=0)))
    assert codes(watch, [leaf_of(entry)]) == ([] if code is None else [code])


# Signatures -------------------------------------------------------------------------------------


def changed(*, revoked=(), ring=b"ring", signer=ROGUE):
    return leaf_of_event(KeysChanged(Digest.of(ring), revoked=tuple(revoked)), signer=signer)


def both_keys(**changes):
    """A ring of both keys; what `SIGNER`'s has become."""
    mine, other = RING.keys[0], ring_for(ROGUE).keys[0]
    return ring_of([replace(mine, **changes), other])


def test_what_a_key_signed_before_the_log_revoked_it_is_good():
    revoked = both_keys(status=KeyStatus.REVOKED)
    leaves = [leaf_of(numbered(0)), changed(revoked=[SIGNER.keyid]), leaf_of(numbered(2))]
    keys = SigningKeys(revoked, {SIGNER.keyid: 1})
    found = judge(a_watch(keys=keys), leaves)
    assert [(alert.index, alert.alert) for alert in found] == [
        (1, "keys-changed"),
        (2, "bad-signature"),
    ]
    # Nobody said where: it never counted.
    assert codes(a_watch(keys=SigningKeys(revoked)), leaves[:1]) == ["bad-signature"]


def test_a_revocation_that_is_met_counts_whatever_anybody_says():
    leaves = [
        leaf_of(numbered(0)),
        changed(revoked=[SIGNER.keyid]),
        leaf_of(numbered(2)),
        changed(revoked=[SIGNER.keyid]),
        leaf_of(numbered(4)),
    ]
    # The ring does not know of it yet, or hides it, or the index names a later event.
    for keys in (
        SigningKeys(both_keys()),
        SigningKeys(both_keys(status=KeyStatus.REVOKED), {SIGNER.keyid: 3}),
    ):
        watch = a_watch(keys=keys)
        found = judge(watch, leaves)
        bad = [alert.index for alert in found if alert.alert == "bad-signature"]
        assert bad == [2, 4]
        assert watch.keys.revoked_at == {SIGNER.keyid: 1}
        assert watch.announced == str(Digest.of(b"ring"))


def test_a_key_revokes_nobody_once_it_is_revoked_itself():
    keys = SigningKeys(both_keys(status=KeyStatus.REVOKED), {SIGNER.keyid: 1})
    leaves = [changed(revoked=[ROGUE.keyid], signer=SIGNER)]
    watch = a_watch(keys=keys)
    assert codes(watch, leaves, 2) == ["bad-signature"]
    assert watch.announced is None
    assert watch.keys is keys


def test_a_signature_of_nobodys_is_told_and_announces_nothing():
    leaves = [
        policy(1, signer=ROGUE),
        leaf_of(numbered(1, policy_sha256=str(Digest.of(b"policy 1")))),
    ]
    assert codes(a_watch(), leaves) == ["bad-signature", "unknown-policy"]
    assert codes(a_watch(), [leaf_of(numbered(1), ROGUE)]) == ["bad-signature"]


END = T0 + 100


def stored(at, signer=SIGNER):
    return leaf_of(numbered(at - T0, stored_at=at), signer)


def test_what_reaches_the_log_long_after_its_key_was_retired_is_told():
    """Whoever stole the key may write any date, and cannot write into the past of a log."""
    keys = SigningKeys(both_keys(status=KeyStatus.RETIRED, not_after=END))
    leaves = [
        stored(T0 + 50),
        stored(END + 60, ROGUE),
        # On its way when the key ended, and so after an hour at most.
        stored(T0 + 60),
        stored(END + 3600, ROGUE),
        stored(T0 + 70),
        stored(END + 3601, ROGUE),
        stored(T0 + 80),
        # Older again: the newest time counts, not the last.
        stored(T0 + 10, ROGUE),
        leaf_of_event(LogOpened("origin", "vkey"), at=T0 + 90, signer=SIGNER),
    ]
    # However the entries come in.
    for cut in range(len(leaves) + 1):
        watch = a_watch(keys=keys)
        found = judge(watch, leaves[:cut]) + judge(watch, leaves[cut:], cut)
        late = [alert for alert in found if alert.alert == "late-signature"]
        assert [alert.index for alert in late] == [6, 8]
        assert len(found) == 3
        assert SIGNER.keyid in late[0].sentence
        assert watch.newest == END + 3601
    more = b"version: 1\nexpect: [{ name: all, issuer: '*' }]\nmax_late: 2h\n"
    assert codes(a_watch(more, keys), leaves) == ["log-opened-again"]
    # Revoked since, it is told all the same.
    revoked = both_keys(status=KeyStatus.REVOKED, not_after=END)
    found = codes(a_watch(keys=SigningKeys(revoked, {SIGNER.keyid: 9})), leaves)
    assert found.count("late-signature") == 2


@pytest.mark.parametrize(
    "leaf",
    [
        # A clock that was wrong, a key that is not in use, a signature that is not good.
        stored(NOW + 1, ROGUE),
        stored(NOW, ed25519_signer(3)),
        stored(NOW, ROGUE).replace(b'"sig":"', b'"sig":"AAAA'),
    ],
)
def test_only_times_that_a_key_in_use_has_signed_make_others_late(leaf):
    keys = SigningKeys(both_keys(status=KeyStatus.RETIRED, not_after=END))
    assert "late-signature" not in codes(a_watch(keys=keys), [leaf, stored(T0 + 50)])


# Events -----------------------------------------------------------------------------------------


def test_policies_follow_one_another():
    start = {"policies": (), "number": 0}
    good = [policy(1), policy(2, 1), policy(3, 2)]
    assert codes(a_watch(**start), good) == ["policy-changed"] * 3
    # Told twice by a server that was killed in between.
    assert codes(a_watch(**start), [*good, good[-1]]) == ["policy-changed"] * 4
    for leaves in (
        [*good, good[0]],
        [*good, policy(3, 2, b"another")],
        [good[0], good[2]],
        [policy(2, 1)],
    ):
        found = codes(a_watch(**start), leaves)
        assert found == ["policy-changed"] * (len(leaves) - 1) + ["policy-out-of-order"]
    # What goes back changes nothing about what has to come next.
    watch = a_watch(**start)
    codes(watch, [*good, good[0]])
    assert watch.number == 3
    assert codes(watch, [policy(2, 1)]) == ["policy-out-of-order"]


def test_only_announced_policies_are_known_and_only_the_newest():
    sha256 = str(Digest.of(b"policy 1"))
    under = leaf_of(numbered(1, policy_sha256=sha256))
    assert codes(a_watch(), [under, policy(1), under]) == ["unknown-policy", "policy-changed"]
    watch = a_watch(policies=(), number=0)
    leaves = [policy(number, number - 1) for number in range(1, MAX_POLICIES + 2)]
    codes(watch, leaves)
    assert len(watch.policies) == MAX_POLICIES
    assert codes(watch, [under]) == ["unknown-policy"]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (LogOpened("a.example/log", "vkey"), "log-opened-again"),
        (EntryQuarantined.of(ENTRY, reason="a bit"), "quarantined"),
        (EntryRemoved.of(ENTRY, line="retention"), "removed"),
        (EntryRemoved.of(ENTRY, line="superseded"), None),
    ],
)
def test_events_of_the_log_are_told(what, code):
    leaf = leaf_of_event(what)
    assert codes(a_watch(), [leaf], 7) == ([] if code is None else [code])
    if code in IGNORABLE:
        quiet = ANYBODY + b"ignore: [%b]\n" % code.encode()
        assert codes(a_watch(quiet), [leaf], 7) == []


# Alerts -----------------------------------------------------------------------------------------


def test_an_alert_is_the_same_when_it_is_told_again_and_of_bounded_size():
    huge = writer(actor="x" * 1000, subject="s" * 1000)
    leaves = [leaf_of(numbered(number, writer=huge)) for number in range(2)]
    one, two = (alert.document("log") for alert in judge(a_watch(RULES), leaves))
    again, _ = (alert.document("log") for alert in judge(a_watch(RULES), leaves))
    assert one == again
    assert one["id"] != two["id"]
    assert one["entry"]["shortened"] is True
    assert len(json.dumps(one)) < 8192
