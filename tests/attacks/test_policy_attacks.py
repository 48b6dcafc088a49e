"""Attacks on the policy: through names, through tokens, and through the file itself."""

import pytest
from fakes.policies import codes, entry, github, load, mutated, text

from secure_cache.model.tiers import Tier
from secure_cache.policy.cases import identity_of

NASTY = [
    "main-evil", "main\n", "main\r", "main\x00", " main", "main ", "main\t", "Main", "MAIN", "maIn",
    "main/", "/main", "//main", "main//", "./main", "../main", "main/..", "%6dain", "main%0a",
    "main%00",
    "ma\u0131n", "\uff4dain", "mai\u0274", "main\u200b", "\u202emain", "main\u2028", "\ufeffmain",
    "ma\u0303in", "refs/heads/main", "heads/main", "origin/main", "main;release/1", "main|release",
    "main,release", "*", "**", "release/*", "release/**", "release/evil/x", "release-evil",
    "release",
    "release/", "release/\n", "release/1.2\n", "release/1 2", "release//1", "xrelease/1",
    "release\\1",
    "$(id)", "`id`", "${IFS}", "'; drop table entries;--", "<script>", "{{7*7}}", "undef", "null",
    "None", "true", "NaN", "self", "base", "any", "branch/main", "mono:branch/main", "a" * 600,
    "\U0001f4a9", "\u0627\u0644\u0639", "gh-readonly-queue/main/pr-1-abc", "@", "HEAD", "-main",
]  # fmt: skip


@pytest.mark.parametrize("branch", NASTY)
@pytest.mark.parametrize("preset", ["github", "self"])
def test_no_odd_branch_name_becomes_a_trusted_branch(branch, preset):
    if preset == "github":
        policy = load()
        decision = policy.decide(github(policy, ref=f"refs/heads/{branch}"))
    else:
        policy = load(text("self-issued.yaml"))
        claims = {"iss": "self", "prj": "demo", "branch": branch}
        decision = policy.decide(identity_of(policy, claims))
    assert decision.tier in {None, Tier.CONTRIBUTOR}
    if decision.write is not None:
        assert decision.write.id == branch
        assert decision.write.path != policy.decide(_main(policy, preset)).write.path


def _main(policy, preset):
    if preset == "github":
        return github(policy)
    return identity_of(policy, {"iss": "self", "prj": "demo", "branch": "main"})


@pytest.mark.parametrize(
    ("claims", "who"),
    [
        ({"event_name": "pull_request_target"}, "a fork, with the base's token"),
        ({"event_name": "issue_comment"}, "anybody who can comment"),
        ({"event_name": "workflow_run"}, "anybody whose run came before"),
        ({"event_name": "pull_request", "base_ref": "main"}, "a merged pull request"),
        ({"event_name": "fork"}, "anybody"),
        ({"event_name": "watch"}, "anybody with a star to give"),
        ({"event_name": "check_suite"}, "any app"),
        ({"event_name": "discussion"}, "anybody"),
        ({"event_name": "gollum"}, "anybody who edits the wiki"),
        ({"event_name": "delete"}, "whoever deletes a branch"),
        ({"event_name": "workflow_dispatch"}, "whoever chooses the inputs"),
        ({"ref": "refs/tags/main", "ref_type": "tag"}, "a tag called main"),
        ({"ref": "refs/heads/main", "ref_type": "tag"}, "a contradiction"),
        ({"ref": "main"}, "a short ref"),
        ({"ref": ""}, "a deployment without a ref"),
        ({"ref": "refs/heads/gh-readonly-queue/main/pr-1-abc"}, "a push to the queue's prefix"),
    ],
)
def test_a_token_whose_ref_is_main_is_not_main_unless_the_event_says_so(claims, who):
    policy = load()
    decision = policy.decide(github(policy, **claims))
    assert (decision.write, decision.read) == (None, ()), who


def test_a_fork_whose_branch_is_called_main_writes_its_own_namespace():
    policy = load()
    fork = github(
        policy, event_name="pull_request", ref="refs/pull/7/merge", base_ref="main", head_ref="main"
    )
    assert str(policy.decide(fork).write) == "mono:pr/7"


def test_a_repository_that_took_over_a_name_gets_nothing():
    policy = load()
    thief = github(policy, repository="acme/mono", repository_id="999", repository_owner="acme")
    assert not policy.decide(thief).allowed


def test_a_stacked_pull_request_does_not_read_the_branch_below_it():
    policy = load()
    stacked = github(policy, event_name="pull_request", ref="refs/pull/9/merge", base_ref="feat-a")
    assert [str(read) for read in policy.decide(stacked).read] == ["mono:branch/main", "mono:pr/9"]


def test_a_base_that_only_looks_trusted_is_not_read():
    policy = load()
    for base in ("release-evil", "release/a/b", "Main", "main\n", "release/*"):
        pull = github(policy, event_name="pull_request", ref="refs/pull/9/merge", base_ref=base)
        for read in policy.decide(pull).read:
            assert read.local in {"branch/main", "pr/9"}


def test_an_entry_moved_to_a_trusted_namespace_is_hidden():
    """A contributor's entry, as somebody with the bucket's keys might sign it for main."""
    policy = load()
    pull = github(policy, event_name="pull_request", ref="refs/pull/7/merge", base_ref="main")
    for tier in Tier:
        assert policy.hides(entry(pull, "mono:branch/main", tier=tier), now=2e9) is not None


def test_a_tier_that_the_writer_never_had_is_hidden():
    policy = load()
    pull = github(policy, event_name="pull_request", ref="refs/pull/7/merge", base_ref="main")
    assert policy.hides(entry(pull, "mono:pr/7", tier=Tier.CONTRIBUTOR), now=2e9) is None
    assert policy.hides(entry(pull, "mono:pr/7", tier=Tier.TRUSTED), now=2e9) is not None


def test_an_unprotected_main_on_gitlab_cannot_write_what_main_reads():
    policy = load(text("gitlab.yaml"))
    claims = {
        "iss": "https://gitlab.com", "namespace_id": "72", "project_id": "20",
        "pipeline_source": "push", "ref": "main", "ref_type": "branch",
        "ref_path": "refs/heads/main", "ref_protected": "false",
    }  # fmt: skip
    assert policy.decide(identity_of(policy, claims)).write is None


MAIN_READ = "      read: [self]                          # main never reads anything else\n"
FILE_TRICKS = [
    ("a second read far below", (MAIN_READ, MAIN_READ + "      read: [pr/7]\n"), "E02"),
    ("a second ruleset of the same name", ("projects:\n", "  standard: []\nprojects:\n"), "E02"),
    ("an octal id", ('repository_id: "74"', "repository_id: 0112"), "E09"),
    ("a sexagesimal id", ('repository_id: "74"', "repository_id: 1:14"), "E09"),
    ("an id with underscores", ('repository_id: "74"', "repository_id: 7_4"), "E09"),
    ("a branch called on", ("{ branch: main }", "{ branch: on }"), "E09"),
    ("a branch called no", ("{ branch: main }", "{ branch: no }"), "E09"),
    ("a partial glob", ('"release/*"', '"release*"'), "E04"),
    ("an alternation", ("{ branch: main }", '{ branch: "main|dev" }'), "E04"),
    ("an anchored regex", ("{ branch: main }", '{ branch: "^main$" }'), "E04"),
    ("a group that closes early", ("{ branch: main }", '{ branch: "a)|(main" }'), "E04"),
    ("a wildcard read", (MAIN_READ, '      read: [self, "pr/*"]\n'), "E05"),
    ("main reads the queue", (MAIN_READ, "      read: [self, queue/main/pr-1-a]\n"), "E06"),
    ("no conditions left", ("      tier: trusted", "      claims:\n      tier: trusted"), "E15"),
    ("an anchor", ("revocations: []", "revocations: &x []"), "E16"),
    ("a merge key", ("    preset: github ", "    <<: {}\n    preset: github "), "E16"),
    ("a hidden line break", ("# any other branch push", "# any\u2028      claims: {}"), "E16"),
    ("an override of direction", ("# any other branch push", "# any \u202e other"), "E16"),
    ("a Cyrillic key", ("      write: self ", "      writ\u0435: self "), "E01"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "code"), [trick[1:] for trick in FILE_TRICKS], ids=[t[0] for t in FILE_TRICKS]
)
def test_a_trick_with_the_file_does_not_load(change, code):
    assert code in codes(mutated(change))


def test_a_recursive_or_swollen_file_is_refused_before_it_is_built():
    laughs = "a: &a [x]\n" + "".join(
        f"{n}: &{n} [*{m},*{m}]\n" for m, n in zip("abcde", "bcdef", strict=True)
    )
    for source in (laughs, "[" * 10_000, "{a: " * 10_000, "- " * 100_000, "x" * 300_000):
        assert codes(source) == {"E16"}
