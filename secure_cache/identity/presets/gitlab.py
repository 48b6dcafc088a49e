"""GitLab: gitlab.com and self-managed instances (their URL is the issuer's `iss:`).

In merge-request pipelines `ref` is the source branch, which a fork may call `main`, and older
instances describe the target project beside it. So the pipeline's source decides first, and is
never replaced by a comparison of ids. Merge trains look like merge requests and are treated so.

https://docs.gitlab.com/ci/secrets/id_token_authentication/
"""

from secure_cache.identity.claim_tables import (
    BRANCH_PREFIX,
    TAG_PREFIX,
    ClaimTables,
    after,
    is_number,
    other_event,
    text,
)
from secure_cache.model.identity import Context, ContextKind
from secure_cache.policy.preset import Claims, Preset, PresetOptions, Unclassifiable

TABLES = ClaimTables(
    verified=frozenset(
        {"pipeline_source", "project_id", "ref", "ref_path", "ref_protected", "ref_type"}
    ),
    required=frozenset({"namespace_id"}),
    optional=frozenset(
        {
            "ci_config_ref_uri",
            "deployment_tier",
            "environment",
            "environment_protected",
            "job_namespace_id",
            "job_project_id",
            "runner_environment",
            "runner_id",
        }
    ),
    unchecked=frozenset(
        {
            "ci_config_sha",
            "environment_action",
            "job_id",
            "job_namespace_path",
            "job_project_path",
            "namespace_path",
            "pipeline_id",
            "project_path",
            "project_visibility",
            "sha",
            "user_access_level",
            "user_id",
        }
    ),
    private=frozenset({"groups_direct", "user_email", "user_identities", "user_login"}),
)

_DEFAULT_EVENTS = frozenset({"push", "schedule"})
_OPT_IN_EVENTS = frozenset({"api", "trigger", "web"})


def classify(claims: Claims, options: PresetOptions) -> Context | Unclassifiable:
    missing = TABLES.first_missing(claims)
    if missing is not None:
        return Unclassifiable(f"the claim {missing} is missing, empty or not a string")
    if not is_number(text(claims, "project_id")):
        return Unclassifiable("project_id is not a number")
    source = text(claims, "pipeline_source")
    if source == "merge_request_event":
        return _merge_request(claims)
    allowed = (options.trusted_events or _DEFAULT_EVENTS) & (_DEFAULT_EVENTS | _OPT_IN_EVENTS)
    if source not in allowed:
        return other_event(source) or Unclassifiable("pipeline_source is not a source's name")
    return _ref(claims)


def _merge_request(claims: Claims) -> Context | Unclassifiable:
    # There is no number of the merge request in the token. The source project and its branch
    # name one, and a fork's project_id keeps it away from everybody else's.
    branch = after(BRANCH_PREFIX, text(claims, "ref_path"))
    if branch is None or branch != text(claims, "ref") or text(claims, "ref_type") != "branch":
        return Unclassifiable("a merge request pipeline whose ref claims name no branch")
    source = f"{text(claims, 'project_id')}/{text(claims, 'ref_path')}"
    return Context(ContextKind.PULL_REQUEST, source, "mr", source)


def _ref(claims: Claims) -> Context | Unclassifiable:
    job_project = claims.get("job_project_id")
    if job_project is not None and job_project != claims["project_id"]:
        return Unclassifiable("job_project_id is another project: the code is from elsewhere")
    protected = text(claims, "ref_protected")
    if protected not in {"true", "false"}:
        return Unclassifiable('ref_protected is neither "true" nor "false"')
    ref, ref_path, ref_type = (text(claims, name) for name in ("ref", "ref_path", "ref_type"))
    branch = after(BRANCH_PREFIX, ref_path)
    if ref_type == "branch" and branch is not None and branch == ref:
        return Context(ContextKind.BRANCH, branch, "branch", branch, trustable=protected == "true")
    tag = after(TAG_PREFIX, ref_path)
    if ref_type == "tag" and tag is not None and tag == ref:
        return Context(ContextKind.TAG, tag, "tag", tag)
    return Unclassifiable("ref, ref_path and ref_type name neither a branch nor a tag")


PRESET = Preset(
    name="gitlab",
    classify=classify,
    default_iss="https://gitlab.com",
    default_jwks_url="https://gitlab.com/oauth/discovery/keys",
    jwks_path="/oauth/discovery/keys",
    algorithms=("RS256",),
    required_pins=(frozenset({"project_id"}), frozenset({"namespace_id"})),
    id_claims=frozenset(
        {
            "job_id",
            "job_namespace_id",
            "job_project_id",
            "namespace_id",
            "pipeline_id",
            "project_id",
            "user_id",
        }
    ),
    name_instead_of_id={
        "job_namespace_path": "job_namespace_id",
        "job_project_path": "job_project_id",
        "namespace_path": "namespace_id",
        "project_path": "project_id",
    },
    known_claims=TABLES.known,
    private_claims=TABLES.private,
    default_trusted_events=_DEFAULT_EVENTS,
    dangerous_events=_OPT_IN_EVENTS,
    # A token lives as long as its job may.
    max_lifetime_seconds=86_400,
    max_age_seconds=86_400,
    facts={
        "run_id": "pipeline_id",
        "actor_id": "user_id",
        "commit": "sha",
        "repository_id": "project_id",
    },
)
