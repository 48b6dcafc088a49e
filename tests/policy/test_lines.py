"""Where in the file the line stands that decides."""

import pytest
from fakes.policies import NOW, entry, github, load, mutated

from secure_cache.policy.lines import line_of
from secure_cache.policy.loader import load_yaml

NONE = "revocations: []"
TAKEN = """
revocations:
  - id: incident-7
    match: { run_id: "5" }
    reason: x
  - { reason: y, id: "incident-8", match: { run_id: "6" } }
epochs:
  "mono:branch/main": 3
  'web:branch/main': 1
"""


def where(source, decisive):
    return line_of(load_yaml(source.encode(), name="p"), decisive)


def text_at(source, decisive):
    return source.splitlines()[where(source, decisive) - 1].strip()


@pytest.mark.parametrize(
    ("decisive", "text"),
    [
        ("revocation incident-7", "- id: incident-7"),
        ("revocation incident-8", '- { reason: y, id: "incident-8", match: { run_id: "6" } }'),
        ("epoch of mono:branch/main", '"mono:branch/main": 3'),
        ("epoch of web:branch/main", "'web:branch/main': 1"),
    ],
)
def test_what_takes_back_is_found_where_it_stands(decisive, text):
    assert text_at(mutated((NONE, TAKEN)), decisive) == text


def test_a_rule_is_found_by_its_name():
    source = mutated()
    policy = load(source)
    line = policy.hides(entry(github(policy), "mono:branch/other"), now=NOW).line
    assert text_at(source, line).startswith("- name: main")


@pytest.mark.parametrize(
    "decisive", ["default deny", "revocation other", "epoch of docs:branch/main", "rule nobody", ""]
)
def test_what_no_line_says_has_none(decisive):
    assert where(mutated((NONE, TAKEN)), decisive) is None


def test_a_name_that_two_rulesets_have_names_no_line():
    source = "rulesets:\n  a:\n    - name: main\n  b:\n    - name: main\n    - name: other\n"
    assert where(source, "rule main") is None
    assert where(source, "rule other") == 6
    assert where("[]", "rule main") is None
