"""What a change of the policy does to entries, said before it is made."""

from dataclasses import replace

import pytest
from fakes.policies import NOW, entry, github, load, mutated

from secure_cache.audit.impact import Effect, Impact, Question
from secure_cache.model.clock import rfc3339
from secure_cache.model.tiers import Tier

NONE = "revocations: []"
MAIN = "mono:branch/main"


def revoking(*matches, rest=""):
    lines = [
        f"  - {{ id: r{number}, match: {match}, reason: x{rest} }}\n"
        for number, match in enumerate(matches)
    ]
    return load(mutated((NONE, "revocations:\n" + "".join(lines))))


def about(then, *, today=None, ids=("r0",)):
    wanted = tuple(item for item in then.tables.revocations if item.id in ids)
    return Question.about(load() if today is None else today, then, wanted, now=NOW)


def whole(today, then):
    return Question.about(today, then, None, now=NOW)


def written(run_id="5", **changes):
    return entry(github(load(), run_id=run_id), MAIN, **changes)


def test_what_it_covers_vanishes_and_nothing_else():
    question = about(revoking('{ run_id: "5" }'))
    hit = question.ask(7, written())
    assert (hit.index, hit.effect, hit.line) == (7, Effect.VANISHES, "revocation r0")
    assert question.ask(8, written("6")) is None


def test_only_the_revocation_that_is_asked_about_counts():
    then = revoking('{ run_id: "5" }', '{ run_id: "6" }')
    assert about(then).ask(0, written("6")) is None
    assert about(then, ids=("r1",)).ask(0, written("6")).line == "revocation r1"
    # Another one that covers it, too, and comes first, takes nothing away from this one.
    both = revoking("{ project: mono }", '{ run_id: "5" }')
    assert about(both, ids=("r1",)).ask(0, written()).line == "revocation r1"


def test_what_is_hidden_today_does_not_vanish_a_second_time():
    question = about(revoking('{ run_id: "5" }'), today=revoking("{ project: mono }"))
    assert question.ask(0, written()).effect is Effect.HIDDEN_ALREADY
    question = about(revoking('{ run_id: "5" }'))
    assert question.ask(0, written(tier=Tier.CONTRIBUTOR)).effect is Effect.HIDDEN_ALREADY


@pytest.mark.parametrize(
    ("match", "rest", "refused"),
    [
        ('{ run_id: "5" }', "", True),
        ('{ run_id: "5" }', f", until: {rfc3339(NOW)}", True),
        ('{ run_id: "5" }', f", until: {rfc3339(NOW - 1)}", False),
        ('{ run_id: "5", key: "123" }', "", False),
    ],
)
def test_it_says_whether_the_writer_could_come_back_with_a_new_token(match, rest, refused):
    hit = about(revoking(match, rest=rest)).ask(0, written(stored_at=int(NOW) - 100))
    assert hit.token_refused is refused


def test_a_whole_policy_is_compared_with_the_one_in_force():
    today, then = load(), revoking('{ run_id: "5" }', '{ run_id: "6" }')
    assert whole(today, then).ask(0, written()).line == "revocation r0"
    assert whole(today, then).ask(0, written("6")).line == "revocation r1"
    assert whole(today, then).ask(0, written("7")) is None
    assert whole(then, then).ask(0, written()) is None


def test_an_epoch_and_a_rule_are_part_of_a_whole_policy():
    epoch = load(mutated((NONE, f'epochs: {{ "{MAIN}": 3 }}')))
    assert whole(load(), epoch).ask(0, written()).line == f"epoch of {MAIN}"
    gone = load(mutated(('repository_owner_id: "65"', 'repository_owner_id: "66"')))
    assert whole(load(), gone).ask(0, written()).line == "default deny"


def test_what_a_careless_edit_would_serve_again_is_said():
    hit = whole(revoking('{ run_id: "5" }'), load()).ask(3, written())
    assert (hit.effect, hit.line) == (Effect.APPEARS, "")


def test_the_sum_counts_each_entry_once_and_groups_what_vanishes():
    question = about(revoking("{ project: mono }"))
    found = Impact()
    times = (int(NOW) - 86_400, int(NOW) - 5, int(NOW))
    hits = [
        question.ask(index, written(stored_at=time, size=10)) for index, time in enumerate(times)
    ]
    for hit in (*hits[:2], hits[2].not_served()):
        found.add(hit)
    document = found.document()
    assert (document["vanishes"], document["not_served"], document["bytes"]) == (2, 1, 20)
    assert document["by_namespace"] == {MAIN: 2}
    assert document["by_tier"] == {"trusted": 2}
    assert set(document["by_day"].values()) == {1}
    assert document["first"] == {"index": 0, "time": rfc3339(times[0])}
    assert document["last"] == {"index": 1, "time": rfc3339(times[1])}
    assert (document["writers_refused"], document["writers_not_refused"]) == (1, 0)


def test_what_was_replaced_is_not_said_to_vanish_and_stays_hidden_where_it_was():
    vanishing = about(revoking('{ run_id: "5" }')).ask(0, written())
    assert vanishing.not_served().effect is Effect.NOT_SERVED
    hidden = about(revoking('{ run_id: "5" }'), today=revoking("{ project: mono }")).ask(
        0, written()
    )
    assert hidden.not_served().effect is Effect.HIDDEN_ALREADY


def test_the_question_never_differs_from_the_policy_that_then_decides():
    then = revoking('{ run_id: ["5", "6"] }')
    for run_id in ("5", "6", "7"):
        made = replace(written(run_id))
        hit = about(then).ask(0, made)
        hidden = then.hides(made, now=NOW)
        assert (hit is None) is (hidden is None)
        assert hit is None or hit.line == hidden.line
