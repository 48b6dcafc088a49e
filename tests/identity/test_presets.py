"""What the presets say a job is: golden claims, and everything close to them."""

import hashlib

import pytest
from fakes.patience import patient
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.identity.claim_tables import is_ref_name
from secure_cache.identity.presets import generic, github, gitlab, load_presets, self_issued
from secure_cache.model.identity import Context, ContextKind
from secure_cache.model.names import Namespace
from secure_cache.policy.preset import PresetOptions, Unclassifiable

PRESETS = load_presets()
PLAIN = PresetOptions()

GITHUB = {
    "repository": "octo-org/octo-repo",
    "repository_id": "74",
    "repository_owner": "octo-org",
    "repository_owner_id": "65",
    "repository_visibility": "private",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "head_ref": "",
    "base_ref": "",
    "event_name": "push",
    "sha": "0" * 40,
    "workflow_ref": "octo-org/octo-repo/.github/workflows/ci.yml@refs/heads/main",
    "runner_environment": "github-hosted",
    "run_id": "1",
    "run_attempt": "1",
    "actor_id": "12",
}
GITHUB_PR = GITHUB | {
    "event_name": "pull_request",
    "ref": "refs/pull/104/merge",
    "base_ref": "main",
    "head_ref": "main",
}
GITHUB_QUEUE = GITHUB | {
    "event_name": "merge_group",
    "ref": "refs/heads/gh-readonly-queue/release/1.2/pr-104-0a1b2c",
}
GITLAB = {
    "project_id": "20",
    "namespace_id": "72",
    "job_project_id": "20",
    "pipeline_source": "push",
    "ref": "main",
    "ref_type": "branch",
    "ref_path": "refs/heads/main",
    "ref_protected": "true",
    "runner_id": 1,
    "user_id": "1",
}
GITLAB_MR = GITLAB | {"pipeline_source": "merge_request_event", "ref_protected": "false"}
SELF = {"prj": "mono", "branch": "main"}
GENERIC = {"sub": "build-1", "br": "main", "pr": "", "tg": None, "why": "push", "target": "main"}
GENERIC_NAMES = (
    ("base", "target"),
    ("branch", "br"),
    ("event", "why"),
    ("pull_request", "pr"),
    ("role", "who"),
    ("tag", "tg"),
)
MAPPED = PresetOptions(
    trusted_events=frozenset({"push", "cron"}), claim_names=GENERIC_NAMES, verified=True
)


def say(preset, claims, options=PLAIN):
    return PRESETS[preset].classify(claims, options)


def branch(name, *, trustable=True):
    return Context(ContextKind.BRANCH, name, "branch", name, trustable=trustable)


def pull_request(number, base):
    return Context(ContextKind.PULL_REQUEST, number, "pr", number, base=base)


def tag(name):
    return Context(ContextKind.TAG, name, "tag", name)


def other(event):
    return Context(ContextKind.OTHER, event)


QUEUE = Context(
    ContextKind.MERGE_QUEUE,
    "release/1.2",
    "queue",
    "release/1.2/pr-104-0a1b2c",
    base="release/1.2",
)
NOTHING = "unclassifiable"


def check(answer, expected):
    if expected == NOTHING:
        assert isinstance(answer, Unclassifiable)
        assert answer.why
    else:
        assert answer == expected


@pytest.mark.parametrize(
    ("base", "change", "expected"),
    [
        (GITHUB, {}, branch("main")),
        (GITHUB, {"event_name": "schedule"}, branch("main")),
        (GITHUB, {"ref": "refs/heads/release/1.2"}, branch("release/1.2")),
        (GITHUB, {"ref": "refs/heads/Main"}, branch("Main")),
        (GITHUB, {"ref": "refs/heads/refs/heads/main"}, branch("refs/heads/main")),
        (GITHUB, {"ref": "refs/tags/v1", "ref_type": "tag"}, tag("v1")),
        (GITHUB, {"ref": "refs/tags/main", "ref_type": "tag"}, tag("main")),
        (GITHUB, {"ref": "refs/tags/main"}, NOTHING),
        (GITHUB, {"ref_type": "tag"}, NOTHING),
        (GITHUB, {"ref_type": "Branch"}, NOTHING),
        (GITHUB, {"ref_type": ""}, NOTHING),
        (GITHUB, {"ref": "refs/heads/main\n"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/main "}, NOTHING),
        (GITHUB, {"ref": "\nrefs/heads/main"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/main\x00"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/ma\u200bin"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/\u202emain"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/\ud800"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/" + "x" * 256}, NOTHING),
        (GITHUB, {"ref": "refs/heads/" + "\u00e9" * 128}, NOTHING),
        (GITHUB, {"ref": "refs/heads/"}, NOTHING),
        (GITHUB, {"ref": "refs/heads"}, NOTHING),
        (GITHUB, {"ref": "refs/heads//main"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/../main"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/main/"}, NOTHING),
        (GITHUB, {"ref": "Refs/heads/main"}, NOTHING),
        (GITHUB, {"ref": "main"}, NOTHING),
        (GITHUB, {"ref": ""}, NOTHING),
        (GITHUB, {"ref": None}, NOTHING),
        (GITHUB, {"ref": ("refs/heads/main",)}, NOTHING),
        (GITHUB, {"ref": "refs/heads/gh-readonly-queue/main/pr-1-abc"}, NOTHING),
        (GITHUB, {"ref": "refs/heads/gh-readonly-queue/x"}, NOTHING),
        (GITHUB, {"ref": "refs/pull/104/merge"}, NOTHING),
        (GITHUB, {"event_name": None}, NOTHING),
        (GITHUB, {"event_name": ("push",)}, NOTHING),
        (GITHUB, {"event_name": True}, NOTHING),
        (GITHUB, {"event_name": "Push"}, NOTHING),
        (GITHUB, {"event_name": "push\n"}, NOTHING),
        (GITHUB, {"event_name": "push "}, NOTHING),
        (GITHUB, {"event_name": "pull_request"}, NOTHING),
        (GITHUB, {"event_name": "pull_request", "base_ref": "main"}, NOTHING),
        (GITHUB, {"event_name": "merge_group"}, NOTHING),
        (GITHUB_PR, {}, pull_request("104", "main")),
        (GITHUB_PR, {"base_ref": "release/1.2"}, pull_request("104", "release/1.2")),
        (GITHUB_PR, {"base_ref": ""}, NOTHING),
        (GITHUB_PR, {"base_ref": "main\n"}, NOTHING),
        (GITHUB_PR, {"base_ref": None}, NOTHING),
        (GITHUB_PR, {"ref": "refs/pull/104/head"}, NOTHING),
        (GITHUB_PR, {"ref": "refs/pull/0104/merge"}, NOTHING),
        (GITHUB_PR, {"ref": "refs/pull/0/merge"}, NOTHING),
        (GITHUB_PR, {"ref": "refs/pull/\u0661/merge"}, NOTHING),
        (GITHUB_PR, {"ref": "refs/pull/104/merge\n"}, NOTHING),
        (GITHUB_PR, {"ref": "refs/pull/104/merge/x"}, NOTHING),
        (GITHUB_PR, {"ref": "refs/pull//merge"}, NOTHING),
        (GITHUB_PR, {"event_name": "push"}, NOTHING),
        (GITHUB_QUEUE, {}, QUEUE),
        (GITHUB_QUEUE, {"event_name": "push"}, NOTHING),
        (GITHUB_QUEUE, {"ref_type": "tag"}, NOTHING),
        (GITHUB_QUEUE, {"ref": "refs/heads/gh-readonly-queue/main"}, NOTHING),
        (GITHUB_QUEUE, {"ref": "refs/heads/gh-readonly-queue//pr-1-abc"}, NOTHING),
        (GITHUB_QUEUE, {"ref": "refs/heads/gh-readonly-queue/../pr-1-abc"}, NOTHING),
        (GITHUB_QUEUE, {"ref": "refs/heads/gh-readonly-queue/main/pr-1-xyz"}, NOTHING),
    ],
)
def test_github(base, change, expected):
    check(say("github", base | change), expected)
    assert say("ghes", base | change) == say("github", base | change)


@pytest.mark.parametrize(
    "event",
    [
        "pull_request_target",
        "pull_request_review",
        "pull_request_review_comment",
        "issue_comment",
        "issues",
        "discussion",
        "discussion_comment",
        "workflow_run",
        "workflow_call",
        "workflow_dispatch",
        "repository_dispatch",
        "check_run",
        "check_suite",
        "fork",
        "watch",
        "gollum",
        "status",
        "label",
        "milestone",
        "public",
        "create",
        "delete",
        "branch_protection_rule",
        "project_card",
        "page_build",
        "registry_package",
        "deployment",
        "deployment_status",
        "release",
    ],
)
def test_github_events_that_carry_the_default_branch_are_not_the_branch(event):
    check(say("github", GITHUB | {"event_name": event}), other(event))
    wanted = PresetOptions(trusted_events=frozenset({"push", event}))
    answer = say("github", GITHUB | {"event_name": event}, wanted)
    if event in PRESETS["github"].dangerous_events:
        check(answer, branch("main"))
    else:
        check(answer, other(event))


def test_github_without_a_claim_is_nothing():
    for name in ("event_name", "ref", "ref_type"):
        claims = {key: value for key, value in GITHUB.items() if key != name}
        check(say("github", claims), NOTHING)


def test_an_option_can_take_events_away():
    only = PresetOptions(trusted_events=frozenset({"schedule"}))
    check(say("github", GITHUB, only), other("push"))
    check(say("gitlab", GITLAB, only), other("push"))


def mr(source):
    return Context(ContextKind.PULL_REQUEST, source, "mr", source)


@pytest.mark.parametrize(
    ("base", "change", "expected"),
    [
        (GITLAB, {}, branch("main")),
        (GITLAB, {"pipeline_source": "schedule"}, branch("main")),
        (GITLAB, {"job_project_id": None}, branch("main")),
        (GITLAB, {"ref_protected": "false"}, branch("main", trustable=False)),
        (GITLAB, {"ref_protected": "True"}, NOTHING),
        (GITLAB, {"ref_protected": True}, NOTHING),
        (GITLAB, {"ref_protected": None}, NOTHING),
        (GITLAB, {"job_project_id": "21"}, NOTHING),
        (GITLAB, {"job_project_id": 20}, NOTHING),
        (GITLAB, {"job_project_id": ""}, NOTHING),
        (GITLAB, {"project_id": 20}, NOTHING),
        (GITLAB, {"project_id": "20/x"}, NOTHING),
        (GITLAB, {"project_id": ""}, NOTHING),
        (GITLAB, {"ref": "other"}, NOTHING),
        (GITLAB, {"ref": "main\n", "ref_path": "refs/heads/main\n"}, NOTHING),
        (GITLAB, {"ref_path": "refs/tags/main"}, NOTHING),
        (GITLAB, {"ref_path": "refs/heads/main\n"}, NOTHING),
        (GITLAB, {"ref_path": "refs/heads/Main"}, NOTHING),
        (GITLAB, {"ref_path": "refs/merge-requests/1/head"}, NOTHING),
        (GITLAB, {"ref_path": ""}, NOTHING),
        (GITLAB, {"ref_type": "tag"}, NOTHING),
        (GITLAB, {"pipeline_source": ("push",)}, NOTHING),
        (GITLAB, {"pipeline_source": "push "}, NOTHING),
        (GITLAB, {"pipeline_source": "parent_pipeline"}, other("parent_pipeline")),
        (GITLAB, {"pipeline_source": "pipeline"}, other("pipeline")),
        (GITLAB, {"pipeline_source": "trigger"}, other("trigger")),
        (GITLAB, {"pipeline_source": "web"}, other("web")),
        (GITLAB, {"pipeline_source": "api"}, other("api")),
        (
            GITLAB,
            {"pipeline_source": "external_pull_request_event"},
            other("external_pull_request_event"),
        ),
        (
            GITLAB,
            {"ref": "v1", "ref_path": "refs/tags/v1", "ref_type": "tag"},
            tag("v1"),
        ),
        (GITLAB_MR, {}, mr("20/refs/heads/main")),
        (GITLAB_MR, {"ref_protected": "true"}, mr("20/refs/heads/main")),
        (GITLAB_MR, {"project_id": "99"}, mr("99/refs/heads/main")),
        (GITLAB_MR, {"ref_type": "tag"}, NOTHING),
        (GITLAB_MR, {"ref": "other"}, NOTHING),
        (GITLAB_MR, {"ref_path": "refs/heads/../x", "ref": "../x"}, NOTHING),
    ],
)
def test_gitlab(base, change, expected):
    check(say("gitlab", base | change), expected)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (SELF, branch("main")),
        ({"prj": "mono", "pull_request": "7", "base": "main"}, pull_request("7", "main")),
        ({"prj": "mono", "role": "developer"}, Context(ContextKind.ROLE, "developer")),
        ({"prj": "mono"}, NOTHING),
        ({"branch": "main"}, NOTHING),
        (SELF | {"prj": 1}, NOTHING),
        (SELF | {"prj": ""}, NOTHING),
        (SELF | {"branch": "main\n"}, NOTHING),
        (SELF | {"branch": ""}, NOTHING),
        (SELF | {"branch": None}, NOTHING),
        (SELF | {"branch": ("main",)}, NOTHING),
        (SELF | {"role": "developer"}, NOTHING),
        (SELF | {"role": None}, NOTHING),
        (SELF | {"pull_request": "7"}, NOTHING),
        (SELF | {"base": "main"}, NOTHING),
        ({"prj": "mono", "pull_request": "7"}, NOTHING),
        ({"prj": "mono", "pull_request": 7, "base": "main"}, NOTHING),
        ({"prj": "mono", "pull_request": "07", "base": "main"}, NOTHING),
        ({"prj": "mono", "pull_request": "7\n", "base": "main"}, NOTHING),
        ({"prj": "mono", "pull_request": "7", "base": ""}, NOTHING),
        ({"prj": "mono", "role": "dev\u202eeloper"}, NOTHING),
        ({"prj": "mono", "role": "developer", "base": "main"}, NOTHING),
    ],
)
def test_self(claims, expected):
    check(say("self", claims), expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, branch("main")),
        ({"why": "cron"}, branch("main")),
        ({"why": "pull_request"}, other("pull_request")),
        ({"why": None}, NOTHING),
        ({"why": "push\n"}, NOTHING),
        ({"why": ("push",)}, NOTHING),
        ({"pr": "7"}, pull_request("7", "main")),
        ({"pr": 7}, pull_request("7", "main")),
        ({"pr": "7", "target": ""}, pull_request("7", None)),
        ({"pr": "7", "target": "refs/heads/main"}, NOTHING),
        ({"pr": "7\n"}, NOTHING),
        ({"pr": True}, NOTHING),
        ({"pr": 7.5}, NOTHING),
        ({"pr": -7}, NOTHING),
        ({"pr": 0}, NOTHING),
        ({"pr": ("7",)}, NOTHING),
        ({"pr": False}, NOTHING),
        ({"tg": "v1"}, tag("v1")),
        ({"tg": "main"}, tag("main")),
        ({"tg": ("v1",)}, NOTHING),
        ({"br": ""}, NOTHING),
        ({"br": "main\n"}, NOTHING),
        ({"br": "refs/heads/main"}, NOTHING),
        ({"br": "refs/tags/main"}, NOTHING),
        ({"br": ("main",)}, NOTHING),
        ({"br": True}, NOTHING),
        ({"br": 1}, NOTHING),
        ({"tg": 1}, NOTHING),
        ({"who": "developer"}, NOTHING),
        ({"who": "developer", "br": ""}, Context(ContextKind.ROLE, "developer")),
        ({"who": "developer\n", "br": ""}, NOTHING),
    ],
)
def test_generic(change, expected):
    check(say("generic", GENERIC | change, MAPPED), expected)


@pytest.mark.parametrize(
    ("verified", "events", "names", "trustable"),
    [
        (False, (), (("branch", "br"),), False),
        (True, (), (("branch", "br"),), True),
        (True, (), (("branch", "br"), ("event", "why")), False),
        (True, ("push",), (("branch", "br"), ("event", "why")), True),
        (True, ("push",), (("branch", "br"),), True),
        (False, ("push",), (("branch", "br"),), False),
    ],
)
def test_generic_trusts_nothing_that_the_admin_did_not_say(verified, events, names, trustable):
    options = PresetOptions(frozenset(events), names, verified)
    check(say("generic", GENERIC, options), branch("main", trustable=trustable))


def test_generic_without_mapped_claims_has_a_namespace_for_each_subject():
    digest = hashlib.sha256(b"build-1").hexdigest()
    check(say("generic", GENERIC), Context(ContextKind.OTHER, "sub", "sub", digest))
    for missing in ({}, {"sub": ""}, {"sub": None}, {"sub": 1}):
        check(say("generic", missing), NOTHING)
    assert not isinstance(say("generic", {"sub": "\ud800"}), Unclassifiable)


values = st.one_of(
    st.text(max_size=10),
    st.sampled_from(
        ["push", "main", "refs/heads/main", "branch", "tag", "true", "7", "refs/pull/7/merge"]
    ),
    st.none(),
    st.booleans(),
    st.integers(-5, 100),
    st.floats(),
    st.tuples(st.text(max_size=3)),
)


@patient
@given(preset=st.sampled_from(sorted(PRESETS)), data=st.data())
def test_no_claims_make_a_preset_raise_or_name_an_illegal_namespace(preset, data):
    golden = {"gitlab": GITLAB, "self": SELF, "generic": GENERIC}.get(preset, GITHUB)
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(golden)), values, max_size=3))
    answer = say(preset, golden | changes, MAPPED if preset == "generic" else PLAIN)
    if isinstance(answer, Unclassifiable):
        return
    if answer.namespace_id:
        Namespace("mono", answer.namespace_kind, answer.namespace_id)
    if answer.trustable:
        assert answer.kind is ContextKind.BRANCH


@patient
@given(st.text(max_size=20))
def test_a_ref_name_is_printable_and_has_no_way_out(name):
    if is_ref_name(name):
        assert name.isprintable()
        assert ".." not in name
        assert not name.startswith("/")
        assert len(name.encode()) <= 255


def test_every_known_claim_of_a_provider_stands_in_one_table():
    for module in (github, gitlab, self_issued, generic):
        tables = module.TABLES
        each = [tables.verified, tables.required, tables.optional, tables.unchecked]
        assert sum(len(table) for table in each) == len(tables.known)
        assert not tables.known & tables.private
        assert module.PRESET.known_claims == tables.known
        assert module.PRESET.private_claims == tables.private


def test_the_known_claims_of_github_and_gitlab():
    assert sorted(PRESETS["github"].known_claims) == [
        "actor",
        "actor_id",
        "base_ref",
        "check_run_id",
        "enterprise",
        "enterprise_id",
        "environment",
        "environment_node_id",
        "event_name",
        "head_ref",
        "job_workflow_ref",
        "job_workflow_sha",
        "ref",
        "ref_protected",
        "ref_type",
        "repository",
        "repository_id",
        "repository_owner",
        "repository_owner_id",
        "repository_visibility",
        "run_attempt",
        "run_id",
        "run_number",
        "runner_environment",
        "sha",
        "workflow",
        "workflow_ref",
        "workflow_sha",
    ]
    assert sorted(PRESETS["gitlab"].known_claims) == [
        "ci_config_ref_uri",
        "ci_config_sha",
        "deployment_tier",
        "environment",
        "environment_action",
        "environment_protected",
        "job_id",
        "job_namespace_id",
        "job_namespace_path",
        "job_project_id",
        "job_project_path",
        "namespace_id",
        "namespace_path",
        "pipeline_id",
        "pipeline_source",
        "project_id",
        "project_path",
        "project_visibility",
        "ref",
        "ref_path",
        "ref_protected",
        "ref_type",
        "runner_environment",
        "runner_id",
        "sha",
        "user_access_level",
        "user_id",
    ]
    assert PRESETS["gitlab"].private_claims == {
        "groups_direct",
        "user_email",
        "user_identities",
        "user_login",
    }


def test_every_preset_is_found_by_its_file_and_asymmetric():
    assert set(PRESETS) == {"generic", "ghec", "ghes", "github", "gitlab", "self"}
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.algorithms
        assert not [one for one in preset.algorithms if one.startswith(("HS", "none"))]
        assert not preset.default_trusted_events & preset.dangerous_events
    assert PRESETS["ghes"].default_iss is None
    assert [name for name, preset in PRESETS.items() if preset.self_issued] == ["self"]
