"""Line by line: whatever two texts are, the hunks turn one into the other."""

from hypothesis import given
from hypothesis import strategies as st

from secure_cache.policy.text_diff import MAX_LINES, LineKind, text_diff

lines = st.sampled_from(["a", "b", "  read: [self]", "", "c\r", "\u2028 d"])
texts = st.lists(lines, max_size=30).map(lambda found: "".join(f"{line}\n" for line in found))


def patched(old, found):
    """The new text, from the old one and the hunks; checks that the hunks fit the old one."""
    before = old.split("\n")[:-1]
    after, at = [], 0
    for hunk in found.hunks:
        first = next((line.old for line in hunk.lines if line.old is not None), None)
        if first is None:
            # Nothing of the old text is in it: only a text of nothing has no lines around.
            assert not before
        else:
            after += before[at : first - 1]
            at = first - 1
        for line in hunk.lines:
            if line.kind is not LineKind.ADDED:
                assert (line.old, line.text) == (at + 1, before[at])
                at += 1
            if line.kind is not LineKind.REMOVED:
                after.append(line.text)
                assert line.new == len(after)
    return "".join(f"{line}\n" for line in after + before[at:])


@given(texts, texts)
def test_the_hunks_turn_one_text_into_the_other(old, new):
    found = text_diff(old.encode(), new.encode())
    assert not found.cut
    assert patched(old, found) == new
    assert bool(found.hunks) == (old != new)
    for hunk in found.hunks:
        assert any(line.kind is not LineKind.SAME for line in hunk.lines)
        assert sum(line.kind is LineKind.SAME for line in hunk.lines[:4]) <= 3 or old == new


def test_what_did_not_change_is_left_out():
    old = "".join(f"{number}\n" for number in range(100))
    new = old.replace("\n50\n", "\nfifty\n")
    (hunk,) = text_diff(old.encode(), new.encode()).hunks
    assert [line.text for line in hunk.lines] == [
        *("47", "48", "49"),
        *("50", "fifty"),
        *("51", "52", "53"),
    ]
    assert [line.kind for line in hunk.lines[3:5]] == [LineKind.REMOVED, LineKind.ADDED]


def test_a_missing_last_line_feed_and_bytes_that_are_no_text_are_differences():
    (hunk,) = text_diff(b"a\n", b"a").hunks
    assert [line.kind for line in hunk.lines] == [LineKind.REMOVED, LineKind.ADDED]
    assert text_diff(b"\xff\xfe\n", b"a\n").hunks[0].lines[0].text == "\ufffd\ufffd"


def test_huge_texts_are_compared_within_bounds():
    old = b"".join(b"%d\n" % number for number in range(0, 200_000, 2))
    new = b"".join(b"%d\n" % number for number in range(1, 200_000, 2))
    found = text_diff(old, new)
    assert found.cut
    assert sum(len(hunk.lines) for hunk in found.hunks) == MAX_LINES
    # What both share at the ends is found however much is between.
    found = text_diff(b"x\n" + old + b"y\n", b"x\n" + new + b"y\n")
    assert found.hunks[0].lines[0].text == "x"
