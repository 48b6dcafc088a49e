"""The strict YAML subset."""

import pytest
import yaml
from fakes.policies import lint, text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secure_cache.model.errors import InvalidPolicy
from secure_cache.policy.loader import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    ListNode,
    MapNode,
    ScalarNode,
    load_yaml,
)


def refused(source):
    data = source if isinstance(source, bytes) else source.encode()
    with pytest.raises(InvalidPolicy) as caught:
        load_yaml(data, name="p.yaml")
    return caught.value.findings


def check_refusal(error):
    assert error.findings
    assert all(finding.line >= 1 and finding.column >= 1 for finding in error.findings)


def scalar(source):
    node = load_yaml(f"k: {source}\n".encode(), name="p.yaml")
    return node.entries[0][1]


def plain(node):
    """What PyYAML would build, for documents that both read alike."""
    if isinstance(node, MapNode):
        return {key.value: plain(value) for key, value in node.entries}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return node.value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("74", 74),
        ("0", 0),
        ("-3", -3),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("main", "main"),
        ('"74"', "74"),
        ("'on'", "on"),
        ("release/1.2", "release/1.2"),
        ("5GiB", "5GiB"),
        ("mono:branch/main", "mono:branch/main"),
    ],
)
def test_a_scalar_that_every_yaml_reads_alike_has_its_value(source, value):
    node = scalar(source)
    assert (node.value, node.unclear) == (value, False)
    assert type(node.value) is type(value)


@pytest.mark.parametrize(
    "source",
    [
        "0123",
        "1_000",
        "1:30",
        "on",
        "off",
        "yes",
        "NO",
        "On",
        "y",
        "n",
        "0x1F",
        "0o17",
        "0b11",
        "1.5",
        ".5",
        "1e3",
        "1E400",
        ".inf",
        ".nan",
        "-.inf",
        "+1",
        "-0",
        "2026-01-02",
        "2026-01-02T03:04:05Z",
        "12345678901234567890",
        "1.0",
        "685_230.15",
        "=",
        "1:30:00",
    ],
)
def test_a_scalar_that_yaml_versions_read_differently_stays_text_and_is_marked(source):
    node = scalar(source)
    assert (node.value, node.unclear) == (source, True)


@pytest.mark.parametrize("line", ["a: 1\na: 2\n", "\"a\": 1\n'a': 2\n", "{a: 1, a: 2}\n"])
def test_a_duplicate_key_is_refused_with_the_place_of_both(line):
    (finding,) = refused(line)
    assert finding.code == "E02"
    assert "line 1" in finding.fix


def test_every_duplicate_key_is_shown_at_once():
    found = refused("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [(finding.line, finding.column) for finding in found] == [(2, 1), (3, 11)]


@pytest.mark.parametrize(
    "source",
    [
        "a: &x 1\nb: *x\n",
        "a: *x\n",
        "a: &x [1]\n",
        "<<: {a: 1}\n",
        "a: !!str 1\n",
        "a: !x 1\n",
        "a: ! 1\n",
        "a: !!python/object/apply:os.system [id]\n",
        "!!map {a: 1}\n",
        "%YAML 1.1\n---\na: 1\n",
        "%TAG ! tag:x,2000:\n---\na: 1\n",
        "a: 1\n---\nb: 1\n",
        "",
        "# only a comment\n",
        "? [a]\n: 1\n",
        "{a: 1}: 2\n",
        "a: [1\n",
        "a: b: c\n",
        "\ta: 1\n",
        'a: "\\U00110000"\n',
        'a: "\\ud800"\n',
        "%YAML 9" + "9" * 5000 + ".1\n---\na: 1\n",
    ],
)
def test_what_is_not_one_plain_document_is_refused(source):
    assert [finding.code for finding in refused(source)] == ["E16"]


@pytest.mark.parametrize("key", ["on", "74", "true", "~", "1:30", "2026-01-02"])
def test_a_key_that_is_not_text_is_refused(key):
    assert [finding.code for finding in refused(f"{key}: 1\n")] == ["E09"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfa: 1\n",
        "a: 1\n".encode("utf-16"),
        "a: 1\n".encode("utf-16-le"),
        b"a: \xff\n",
        b"a: \x00\n",
        b"a: \x07\n",
    ],
)
def test_only_utf8_without_a_byte_order_mark_is_read(data):
    assert [finding.code for finding in refused(data)] == ["E16"]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\u202e", "\u2066", "\u200b"])
def test_what_a_reviewer_cannot_see_is_refused(character):
    (finding,) = refused(f"a: 1\nb: x # {character} c: 2\n")
    assert (finding.code, finding.line, finding.column) == ("E16", 2, 8)


@pytest.mark.parametrize(
    ("source", "at", "fix"),
    [
        ("a:\n\tb: 1\n", (2, 1), "spaces"),
        ("a:\tb\n", (1, 3), "spaces"),
        ("when: { branch: * }\n", (1, 18), "in quotes"),
        ("when: { branch: ** }\n", (1, 18), "in quotes"),
        ("a:\n  - b: 1\n   c: 2\n", (3, 4), "same column"),
        ("a:\n  - b: 1\n      c: 2\n", (3, 8), "indentation"),
        ("a: b: c\n", (1, 5), "quote a text"),
        ("a: 1\nb\nc:\n", (3, 1), "add the colon"),
        ("a\nb: c\n", (2, 2), "colon"),
        ("a: { b: c\nd: e\n", (2, 2), "close the bracket"),
        ('a: "b\n', (2, 1), "close the quote"),
    ],
)
def test_broken_syntax_is_told_with_what_to_do_about_it(source, at, fix):
    (finding,) = refused(source)
    assert (finding.code, (finding.line, finding.column)) == ("E16", at), str(finding)
    assert fix in finding.fix, str(finding)


def test_the_limits_hold():
    assert refused(b"a: " + b"x" * MAX_BYTES)[0].code == "E16"
    assert refused("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))[0].code == "E16"
    assert refused("[" + "1," * MAX_NODES + "]")[0].code == "E16"
    assert isinstance(load_yaml(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, name="p"), ListNode)


def test_every_node_knows_its_place():
    node = load_yaml(b"a:\n  - b\n  - {c: d}\n", name="p.yaml")
    items = node.find("a")[1].items
    assert [item.at for item in items] == [(2, 5), (3, 5)]
    assert items[1].entries[0][1].at == (3, 9)


keys = st.text(alphabet="abcdefgh", min_size=2, max_size=6)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text("abc /:#'\"-{}[],&*!?|>%@`", max_size=12)
)
documents = st.dictionaries(
    keys,
    st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12
    ),
    min_size=1,
)


@settings(deadline=None)
@given(documents)
def test_what_yaml_writes_is_read_back(document):
    node = load_yaml(yaml.safe_dump(document).encode(), name="p.yaml")
    assert plain(node) == document


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"- \r- x\r")
def test_no_bytes_make_the_loader_fail_otherwise_than_with_findings(data):
    try:
        node = load_yaml(data, name="p.yaml")
    except InvalidPolicy as error:
        check_refusal(error)
    else:
        assert isinstance(node, ScalarNode | ListNode | MapNode)


@settings(deadline=None)
@given(st.text(alphabet="ab:-?[]{},&*!|>'\"%@` \n#\t<~0123", max_size=80))
def test_no_text_makes_the_loader_fail_otherwise_than_with_findings(source):
    try:
        load_yaml(source.encode(), name="p.yaml")
    except InvalidPolicy as error:
        check_refusal(error)


@settings(deadline=None)
@given(st.data())
def test_no_damage_to_a_policy_makes_lint_raise(data):
    source = text()
    start = data.draw(st.integers(0, len(source)))
    length = data.draw(st.integers(0, 30))
    junk = data.draw(st.text(max_size=12).filter(lambda t: t.isprintable() or "\n" in t))
    damaged = source[:start] + junk + source[start + length :]
    for finding in lint(damaged.encode("utf-8", "replace")):
        assert str(finding).isascii() or str(finding).isprintable()
        assert "\n" not in str(finding)
