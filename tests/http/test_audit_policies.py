"""The history of the policy: texts, and what each change did, over the whole application."""

from functools import partial

import pytest
from fakes.app_world import POLICY, AppWorld
from fakes.audit_desk import FAST, running, until

from secure_cache.model.digest import Digest

pytestmark = pytest.mark.anyio

TIGHTER = POLICY.replace("revocations: []", "revocations: [{ id: x, match: { key: k } }]")
LOOSER = POLICY + "log: { public: true }\n"
MOVED = LOOSER.replace('namespace_id: "72"', 'namespace_id: "73"')


@pytest.fixture
def world(tmp_path):
    return AppWorld(tmp_path, **FAST)


def digest(text):
    return str(Digest.of(text.encode()))


async def put_in_force(desk, *texts):
    """One after the other, each told to the log."""
    world = desk.world
    for text in texts:
        world.edit(text)
        world.server._untold.set()
        await until(partial(is_newest, desk, text))


async def is_newest(desk, text):
    answer = await desk.get("policies")
    if answer.status_code != 200:
        return False
    found = answer.json()["policies"]
    return bool(found) and found[-1]["sha256"] == digest(text)


async def history_of(desk, *texts):
    await until(partial(is_newest, desk, POLICY))
    await put_in_force(desk, *texts)
    return (await desk.ask("policies"))["policies"]


async def test_the_history_says_which_change_loosened(world):
    async with running(world) as desk:
        found = await history_of(desk, TIGHTER, POLICY, LOOSER, MOVED)
        assert [version["verdict"] for version in found] == [
            None,
            "tightened",
            "loosened",
            "loosened",
            "changed",
        ]
        assert all(version["why"] == "" for version in found)
        assert [version["sha256"] for version in found] == list(
            map(digest, (POLICY, TIGHTER, POLICY, LOOSER, MOVED))
        )


async def test_the_text_of_a_policy_is_given_byte_for_byte(world):
    async with running(world) as desk:
        await history_of(desk, TIGHTER)
        for text in (POLICY, TIGHTER):
            answer = await desk.get(f"policies/{digest(text)}")
            assert answer.status_code == 200
            assert answer.content == text.encode()
            assert answer.headers["content-type"].startswith("text/plain")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-disposition"].startswith("attachment")
        assert (await desk.get(f"policies/{'0' * 64}")).status_code == 404
        assert (await desk.get(f"policies/{'0' * 64}/diff")).status_code == 404
        again = await desk.get(f"policies/{digest(POLICY)}/diff", against="0" * 64)
        assert again.status_code == 404


async def test_a_diff_says_what_changed_in_lines_and_in_meaning(world):
    async with running(world) as desk:
        await history_of(desk, TIGHTER)
        found = await desk.ask(f"policies/{digest(TIGHTER)}/diff")
        assert (found["against"], found["verdict"]) == (digest(POLICY), "tightened")
        assert found["grants"] == [{"direction": "tightened", "what": "revocation x"}]
        (hunk,) = found["hunks"]
        changed = [line for line in hunk["lines"] if line["kind"] != "same"]
        last = len(POLICY.splitlines())
        assert changed == [
            {"kind": "removed", "old": last, "new": None, "text": "revocations: []"},
            {
                "kind": "added",
                "old": None,
                "new": last,
                "text": "revocations: [{ id: x, match: { key: k } }]",
            },
        ]
        back = await desk.ask(f"policies/{digest(POLICY)}/diff", against=digest(TIGHTER))
        assert (back["against"], back["verdict"]) == (digest(TIGHTER), "loosened")
        same = await desk.ask(f"policies/{digest(POLICY)}/diff", against=digest(POLICY))
        assert (same["verdict"], same["hunks"]) == ("same", [])


async def test_the_first_policy_has_nothing_before_it(world):
    async with running(world) as desk:
        (first,) = await history_of(desk)
        assert first["verdict"] is None
        found = await desk.ask(f"policies/{digest(POLICY)}/diff")
        assert (found["against"], found["verdict"], found["grants"]) == (None, None, [])
        lines = [line["text"] for hunk in found["hunks"] for line in hunk["lines"]]
        assert "\n".join(lines) + "\n" == POLICY


def stored_policy(world, number):
    return world.folder / "data" / "state" / "policy" / f"{number:012d}"


async def test_a_missing_text_is_said_and_never_guessed(world):
    async with running(world) as desk:
        await history_of(desk, TIGHTER)
        stored_policy(world, 1).unlink()
        # The server remembers what it compared; another one would not.
        world.server._auditing._desk.history._verdicts.clear()
        first, second = (await desk.ask("policies"))["policies"]
        assert (second["verdict"], second["why"]) == ("unknown", "a text is not kept here")
        assert first["sha256"] == digest(POLICY)
        assert (await desk.get(f"policies/{digest(POLICY)}")).status_code == 404
        assert (await desk.get(f"policies/{digest(TIGHTER)}")).status_code == 200
        assert (await desk.get(f"policies/{digest(TIGHTER)}/diff")).status_code == 404


async def test_a_text_that_was_changed_is_never_shown_as_the_policy(world):
    async with running(world) as desk:
        await history_of(desk, TIGHTER)
        path = stored_policy(world, 1)
        path.chmod(0o600)
        path.write_text(TIGHTER)
        world.server._auditing._desk.history._verdicts.clear()
        _, second = (await desk.ask("policies"))["policies"]
        assert second["verdict"] == "unknown"
        assert "not the policy that the log names" in second["why"]
        for path in (f"policies/{digest(POLICY)}", f"policies/{digest(TIGHTER)}/diff"):
            answer = await desk.get(path)
            assert (answer.status_code, answer.json()["code"]) == (500, "corrupt")


@pytest.mark.parametrize(
    ("path", "parameters", "says"),
    [
        ("policies", {"limit": "1"}, "no parameter 'limit'; there is none"),
        ("policies/abc", {}, "a policy is named by its SHA-256"),
        (f"policies/{'A' * 64}", {}, "a policy is named by its SHA-256"),
        (f"policies/{'0' * 64}/diff", {"against": "x\u202e"}, "against is named by its SHA-256"),
        (f"policies/{'0' * 64}/diff", {"with": "x"}, "no parameter 'with'; there are: against"),
    ],
    ids=str,
)
async def test_a_wrong_question_says_what_is_allowed(world, path, parameters, says):
    async with running(world) as desk:
        await until(partial(is_newest, desk, POLICY))
        answer = await desk.get(path, **parameters)
        assert (answer.status_code, answer.json()["code"]) == (400, "filter-invalid")
        assert says in answer.json()["title"]


async def test_only_an_auditor_reads_policies(world):
    async with running(world) as desk:
        await until(partial(is_newest, desk, POLICY))
        for path in (
            "policies",
            f"policies/{digest(POLICY)}",
            f"policies/{digest(POLICY)}/diff",
            "timeline",
        ):
            for token in (None, world.main(), world.own(role="developer")):
                answer = await world.request("GET", f"/audit/v1/{path}", token)
                assert answer.status_code == 403, path
