"""Every YAML that we hand out is linted and tested, and the schema for editors is fresh."""

import json
import re
from pathlib import Path

import pytest
from fakes.policies import EXAMPLES, FOLDER, cases_of, lint, load, text

from secure_cache.policy.cases import load_cases, run_cases
from secure_cache.policy.finding import CODES, Severity
from secure_cache.policy.schema import PolicyDocument, json_schema

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXPECTED_WARNINGS = {"monorepo.yaml": {"W06"}}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_clean_and_passes_its_own_tests(name):
    findings = lint(text(name), tests=cases_of(name))
    assert {finding.code for finding in findings} == EXPECTED_WARNINGS.get(name, set())
    results = run_cases(load(text(name)), load_cases(cases_of(name), name="tests"))
    assert [str(result) for result in results if not result.passed] == []


def test_the_worked_example_has_all_of_its_cases():
    assert len(load_cases(cases_of(), name="tests")) == 26


def test_what_init_writes_is_the_example_for_own_tokens():
    template = FOLDER.parent / "secure_cache" / "compose" / "templates" / "policy.yaml"
    assert template.read_text(encoding="utf-8") == text("self-issued.yaml")


def test_the_schema_for_editors_is_fresh():
    committed = (FOLDER / "policy.v1.schema.json").read_text(encoding="utf-8")
    assert committed == json.dumps(json_schema(), indent=2) + "\n"


def test_the_schema_allows_no_unknown_key_anywhere():
    for name, definition in json_schema()["$defs"].items():
        assert definition["additionalProperties"] is False, name


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "self-issued.yaml"])
def test_an_example_names_the_schema_for_editors(name):
    first = text(name).splitlines()[0]
    assert first == "# yaml-language-server: $schema=policy.v1.schema.json"


def _blocks():
    page = (DOCS / "policy.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)


def test_the_manual_has_examples():
    assert len(_blocks()) >= 8


def _sections(source):
    """The text of each top-level key."""
    parts = re.split(r"^(?=[a-z_]+:)", source, flags=re.MULTILINE)
    return {part.split(":")[0]: part for part in parts if re.match(r"[a-z_]+:", part)}


@pytest.mark.parametrize("index", range(len(_blocks())))
def test_an_example_in_the_manual_is_clean(index):
    """A fragment is laid over the worked example, by its top-level keys."""
    block = _sections(_blocks()[index])
    if "cases" in block:
        results = run_cases(load(), load_cases(_blocks()[index].encode(), name="docs"))
        assert [str(result) for result in results if not result.passed] == []
        return
    whole = "\n".join({**_sections(text()), **block}.values())
    findings = lint(whole, now=1_767_400_000)
    assert [str(finding) for finding in findings if finding.severity is Severity.ERROR] == []
    assert {finding.code for finding in findings} <= {"W02", "W06"}


def test_the_manual_explains_every_lint_code():
    page = (DOCS / "policy.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| ([EW][0-9]{2}) \|", page, re.MULTILINE)) == set(CODES)


def test_the_manual_names_every_key():
    page = (DOCS / "policy.md").read_text(encoding="utf-8")
    for definition in json_schema()["$defs"].values():
        for key in definition["properties"]:
            assert f"`{key}`" in page, key
    assert PolicyDocument.__struct_fields__
