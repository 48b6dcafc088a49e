"""From nodes to documents: what is said about a value of the wrong shape."""

import pytest
from fakes.policies import lint, load, mutated, text

PIN = '    pin: { repository_owner_id: "65" }      # mandatory: issuer is shared by all of GitHub\n'
NONE = "revocations: []"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("when: { branch: main }", "when: main"), "found 'main', expected a mapping"),
        (("when: { branch: main }", "when: [main]"), "found a list, expected a mapping"),
        (("pin: { repository_owner_id", "pin: # { x"), "found nothing, expected a mapping"),
        ((PIN, "    pin: {}\n"), "found a mapping, expected a mapping with at least one key"),
        (
            (PIN, PIN + "    algorithms: []\n"),
            "found a list, expected a list with at least one item",
        ),
        ((PIN, PIN + "    algorithms: RS256\n"), "found 'RS256', expected a list"),
        ((PIN, PIN + '    allow_private: "true"\n'), "found 'true', expected true or false"),
        ((PIN, PIN + "    max_age: 7 days\n"), "found '7 days', expected a time such as 90s"),
        (
            (NONE, "revocations: [{ id: a, match: { run_id: b }, since: x }]"),
            "found 'x', expected a time in UTC such as 2026-01-02T03:04:05Z",
        ),
        ((PIN, PIN + '    jwks_file: ""\n'), "found '', expected text of 1 to 1024 characters"),
        ((PIN, PIN + f"    iss: {'x' * 1025}\n"), "expected text of 1 to 1024 characters"),
        ((PIN, PIN + "    iss: [a]\n"), "found a list, expected text"),
        (("    preset: github ", "    preset: "), "found nothing, expected text"),
        (("version: 1", 'version: "1"'), "found '1', expected 1"),
        (("version: 1", "version: [1]"), "found a list, expected 1"),
        (("tier: candidate", "tier: [trusted]"), "one of candidate, contributor, trusted"),
        ((NONE, 'epochs: { "mono:branch/main": "1" }'), "expected a whole number, without quotes"),
        ((NONE, 'epochs: { "mono:branch/main": true }'), "expected a whole number, without quotes"),
        ((NONE, 'epochs: { "mono:branch/main": 4294967296 }'), "expected a number from 0 to"),
        (('match: { repository_id: "74" }', "match: all"), "expected a mapping or a list"),
        (('{ repository_id: "74" }', "{ repository_id: { a: b } }"), "expected text or a list"),
        (
            ('{ repository_id: "74" }', "{ repository_id: }"),
            "found nothing, expected text or a list",
        ),
        (("name: main\n", 'name: "main\\n"\n'), "expected text without control characters"),
        (("name: main\n", "name: Main\n"), "found 'Main', expected letters a-z"),
        (("  standard:  ", "  Standard:  "), "expected letters a-z"),
    ],
)
def test_a_wrong_shape_is_told_with_what_was_found_and_what_is_expected(change, message):
    messages = [finding.message for finding in lint(mutated(change))]
    assert any(message in found for found in messages), messages


def test_a_file_that_is_not_a_mapping_is_told():
    for source in ("- a\n", "a\n", "1\n"):
        assert [finding.code for finding in lint(source)] == ["E15"]


def test_what_is_shown_of_a_hostile_value_is_short_and_printable():
    (finding,) = lint("version: " + '"' + "\\u202e\\e[31m" * 50 + '"\n' + text().split("\n", 2)[2])
    assert len(finding.message) < 120
    assert finding.message.isascii()


def test_every_error_is_shown_at_once():
    source = mutated(("version: 1", "version: 2"), ("tier: candidate", "tier: x"), (NONE, "log: 1"))
    assert len(lint(source)) == 3


def test_a_time_needs_no_quotes_and_may_have_them():
    line = "revocations: [{{ id: a, match: {{ project: mono }}, reason: x, since: {} }}]"
    for since in ("2026-01-02T03:04:05Z", '"2026-01-02T03:04:05Z"'):
        policy = load(mutated((NONE, line.format(since))))
        assert policy.tables.revocations[0].since == 1_767_323_045
    for since in ("2026-01-02", "2026-01-02 03:04:05", "1767323045", "2026-1-2T3:4:5Z"):
        assert lint(mutated((NONE, line.format(since))))[0].code in {"E09", "E15"}
