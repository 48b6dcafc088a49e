"""The threat model names a test for every attack, and each of these tests exists."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATUSES = {"prevented", "detected", "documented"}
_ROW = re.compile(r"\|\s*(?P<id>[A-Z]\d{1,2}b?)\s*\|(?P<rest>.*)\|")
_TEST = re.compile(r"`(tests/[^`]*?)`")
_FILE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)`")


def sections():
    """The text of each numbered section, by its number."""
    text = (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (\d+)\. .*$", text, flags=re.MULTILINE)
    return dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))


def rows(*numbers):
    """(id, cells) of the tables in these sections."""
    found = []
    for number in numbers:
        for line in sections()[number].splitlines():
            match = _ROW.fullmatch(line)
            if match is not None:
                found.append((match["id"], [cell.strip() for cell in match["rest"].split("|")]))
    return found


@functools.cache
def defined_in(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    } | {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def trouble(row_id, cells):
    """What is wrong with one row, or None."""
    if len(cells) != 4 or not all(cells):
        return f"{row_id}: not every column is filled"
    *_, status, tests = cells
    if status not in STATUSES:
        return f"{row_id}: {status!r} is no status"
    named = _TEST.findall(tests)
    if not named:
        return f"{row_id}: names no test"
    for name in named:
        path, separator, test = name.partition("::")
        if not separator or not (ROOT / path).is_file() or test not in defined_in(path):
            return f"{row_id}: there is no {name}"
        if not test.lower().startswith("test"):
            return f"{row_id}: {name} is no test"
    return None


def test_every_attack_has_a_test_that_exists():
    found = [trouble(*row) for row in rows(5, 6, 7, 8)]
    assert [line for line in found if line is not None] == []


def test_every_promise_has_a_row():
    assert [row_id for row_id, _ in rows(5)] == [f"P{number}" for number in range(1, 8)]


def test_every_attack_of_our_catalogues_is_answered_or_put_off_in_so_many_words():
    tokens = {row_id for row_id, _ in rows(6)}
    cache = {row_id for row_id, _ in rows(7)}
    later = {row_id for row_id, _ in rows(11)}
    assert {f"T{number:02}" for number in range(1, 36)} <= tokens
    assert {f"C{number:02}" for number in range(1, 31)} <= cache | later
    assert not cache & later, "claimed, and put off"


def test_no_row_stands_twice():
    ids = [row_id for row_id, _ in rows(5, 6, 7, 8, 11)]
    assert len(ids) == len(set(ids))


def test_every_file_that_stops_something_exists():
    for row_id, cells in rows(5, 6, 7, 8):
        for name in _FILE.findall(cells[1]):
            if not name.startswith("tests/"):
                assert (ROOT / "secure_cache" / name).is_file(), f"{row_id}: {name}"


def test_every_preset_says_what_main_means():
    from secure_cache.identity.presets import load_presets

    text = sections()[9]
    assert [name for name in load_presets() if f"`{name}`" not in text] == []


def test_a_row_without_a_test_or_with_one_that_is_not_there_is_noticed():
    good = "`tests/repository/test_threat_model.py::test_no_row_stands_twice`"
    row = ["an attack", "a file", "prevented", good]
    assert trouble("X1", row) is None
    for bad in (
        [*row[:3], "none yet"],
        [*row[:3], good.replace("twice", "thrice")],
        [*row[:3], "`tests/repository/test_threat_model.py`"],
        [*row[:3], "`tests/repository/test_gone.py::test_it`"],
        [*row[:3], good.replace("test_no_row_stands_twice", "trouble")],
        [*row[:2], "hoped for", good],
        [row[0], "", *row[2:]],
        row[:3],
    ):
        assert trouble("X1", bad) is not None
