"""GitHub Actions: github.com, data residency and GitHub Enterprise Server.

`ref == refs/heads/main` proves nothing here: some twenty events carry the default branch, several
of which a stranger can cause, and a merged pull request's `closed` run does too. So the event
decides first. `sub` is never parsed: its shape is for the repository's admin to choose.

https://docs.github.com/en/actions/reference/security/oidc
"""

import re
from dataclasses import replace

from secure_cache.identity.claim_tables import (
    BRANCH_PREFIX,
    TAG_PREFIX,
    ClaimTables,
    after,
    is_ref_name,
    other_event,
    text,
)
from secure_cache.model.identity import Context, ContextKind
from secure_cache.policy.preset import Claims, Preset, PresetOptions, Unclassifiable

TABLES = ClaimTables(
    verified=frozenset({"event_name", "ref", "ref_type"}),
    required=frozenset({"repository_id", "repository_owner_id"}),
    optional=frozenset(
        {
            "base_ref",
            "enterprise_id",
            "environment",
            "job_workflow_ref",
            "ref_protected",
            "repository_visibility",
            "runner_environment",
            "workflow_ref",
        }
    ),
    unchecked=frozenset(
        {
            "actor",
            "actor_id",
            "check_run_id",
            "enterprise",
            "environment_node_id",
            "head_ref",
            "job_workflow_sha",
            "repository",
            "repository_owner",
            "run_attempt",
            "run_id",
            "run_number",
            "sha",
            "workflow",
            "workflow_sha",
        }
    ),
)

_DEFAULT_EVENTS = frozenset({"push", "schedule"})
_OPT_IN_EVENTS = frozenset({"workflow_dispatch", "repository_dispatch"})
_PULL_REQUEST = re.compile(r"refs/pull/([1-9][0-9]{0,17})/merge")
_QUEUE_PREFIX = "gh-readonly-queue/"
_QUEUE = re.compile(r"refs/heads/gh-readonly-queue/((.+)/pr-[1-9][0-9]{0,17}-[0-9a-f]{1,64})")


def classify(claims: Claims, options: PresetOptions) -> Context | Unclassifiable:
    missing = TABLES.first_missing(claims)
    if missing is not None:
        return Unclassifiable(f"the claim {missing} is missing, empty or not a string")
    event = text(claims, "event_name")
    if event == "pull_request":
        return _pull_request(claims)
    if event == "merge_group":
        return _merge_queue(claims)
    allowed = (options.trusted_events or _DEFAULT_EVENTS) & (_DEFAULT_EVENTS | _OPT_IN_EVENTS)
    if event not in allowed:
        return other_event(event) or Unclassifiable("event_name is not an event's name")
    return _ref(claims)


def _pull_request(claims: Claims) -> Context | Unclassifiable:
    # By number and never by head_ref: a fork may call its branch `main`. A closed and merged
    # pull request has the base branch as its ref, and fails this shape.
    found = _PULL_REQUEST.fullmatch(text(claims, "ref"))
    if found is None:
        return Unclassifiable("a pull_request event without a ref of the form refs/pull/N/merge")
    base = text(claims, "base_ref")
    if not is_ref_name(base):
        return Unclassifiable("a pull_request event without a usable base_ref")
    number = found.group(1)
    return Context(ContextKind.PULL_REQUEST, number, "pr", number, base=base)


def _merge_queue(claims: Claims) -> Context | Unclassifiable:
    found = _QUEUE.fullmatch(text(claims, "ref"))
    if found is None or text(claims, "ref_type") != "branch" or not is_ref_name(found.group(1)):
        return Unclassifiable("a merge_group event without a ref of GitHub's merge queue")
    base = found.group(2)
    return Context(ContextKind.MERGE_QUEUE, base, "queue", found.group(1), base=base)


def _ref(claims: Claims) -> Context | Unclassifiable:
    ref, ref_type = text(claims, "ref"), text(claims, "ref_type")
    branch = after(BRANCH_PREFIX, ref)
    if ref_type == "branch" and branch is not None:
        if branch.startswith(_QUEUE_PREFIX):
            return Unclassifiable("a push to a ref that belongs to GitHub's merge queue")
        return Context(ContextKind.BRANCH, branch, "branch", branch, trustable=True)
    tag = after(TAG_PREFIX, ref)
    if ref_type == "tag" and tag is not None:
        return Context(ContextKind.TAG, tag, "tag", tag)
    return Unclassifiable("ref and ref_type name neither a branch nor a tag")


PRESET = Preset(
    name="github",
    classify=classify,
    default_iss="https://token.actions.githubusercontent.com",
    default_jwks_url="https://token.actions.githubusercontent.com/.well-known/jwks",
    jwks_path="/.well-known/jwks",
    algorithms=("RS256",),
    required_pins=(
        frozenset({"repository_owner_id"}),
        frozenset({"repository_id"}),
        frozenset({"enterprise_id"}),
    ),
    id_claims=frozenset(
        {
            "actor_id",
            "check_run_id",
            "enterprise_id",
            "repository_id",
            "repository_owner_id",
            "run_attempt",
            "run_id",
            "run_number",
        }
    ),
    name_instead_of_id={
        "actor": "actor_id",
        "enterprise": "enterprise_id",
        "repository": "repository_id",
        "repository_owner": "repository_owner_id",
    },
    known_claims=TABLES.known,
    private_claims=TABLES.private,
    default_trusted_events=_DEFAULT_EVENTS,
    dangerous_events=_OPT_IN_EVENTS,
    # Tokens live five minutes; an hour leaves room for a server of one's own.
    max_lifetime_seconds=3600,
    max_age_seconds=3600,
    facts={"commit": "sha"},
)

# GitHub Enterprise Server has `https://HOST/_services/token`; data residency and enterprises with
# a slug have an `iss` of their own. Both are written as the issuer's `iss:`.
ALIASES = tuple(
    replace(PRESET, name=name, default_iss=None, default_jwks_url=None) for name in ("ghes", "ghec")
)
