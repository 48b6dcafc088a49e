"""The documents: what a policy file and its test file may hold.

`convert` turns strictly loaded nodes into these structs; the JSON Schema for editors is generated
from the same structs, so the two cannot disagree about a key.

A key that is there must say something: `claims:` with nothing after it is an error, never "no
condition". So what is optional is `UNSET` by default and never null.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

NAME = r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$"
DURATION = r"^[1-9][0-9]{0,5}[smhd]$"
SIZE = r"^[1-9][0-9]{0,6}(?:KiB|MiB|GiB|TiB)$"
TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"

Name: TypeAlias = Annotated[
    str,
    Meta(
        pattern=NAME,
        description="letters a-z, digits, hyphens",
        extra={"form": "letters a-z, digits and inner hyphens, at most 64"},
    ),
]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
Duration: TypeAlias = Annotated[
    str,
    Meta(
        pattern=DURATION,
        description="90s, 30m, 1h or 7d",
        extra={"form": "a time such as 90s, 30m, 1h or 7d"},
    ),
]
Size: TypeAlias = Annotated[
    str,
    Meta(
        pattern=SIZE,
        description="such as 500MiB or 5GiB",
        extra={"form": "a size such as 500MiB or 5GiB"},
    ),
]
Time: TypeAlias = Annotated[
    str,
    Meta(
        pattern=TIME,
        description="UTC, 2026-01-02T03:04:05Z",
        extra={"plain": True, "form": "a time in UTC such as 2026-01-02T03:04:05Z"},
    ),
]
AnyOf: TypeAlias = Text | Annotated[tuple[Text, ...], Meta(min_length=1)]
"""An exact value, or a list of them, any of which will do."""
Claims: TypeAlias = Annotated[dict[Text, AnyOf], Meta(min_length=1)]

TierName: TypeAlias = Literal["contributor", "candidate", "trusted"]
Algorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"
]
RuleAck: TypeAlias = Literal["branch-creation-is-restricted", "pull-requests-read-private"]
IssuerAck: TypeAlias = Literal[
    "i-verified-this-issuer",
    "audience-is-shared",
    "pipeline-has-no-pr-or-fork-builds",
    "credential-scope-is-protected-jobs-only",
    "one-service-account-per-trusted-trigger",
]


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every mapping with fixed keys."""


class IssuerDocument(Document, frozen=True, kw_only=True):
    """Who signs tokens."""

    preset: Annotated[str, Meta(min_length=1, description="github, gitlab, self, generic, ...")]
    pin: Annotated[Claims, Meta(description="claims that every token must have")] | UnsetType = (
        UNSET
    )
    iss: Annotated[Text, Meta(description="the exact iss")] | UnsetType = UNSET
    jwks_url: Text | UnsetType = UNSET
    jwks_file: Annotated[Text, Meta(description="beside this file")] | UnsetType = UNSET
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] | UnsetType = UNSET
    allow_private: bool = False
    max_lifetime: Duration | UnsetType = UNSET
    max_age: Duration | UnsetType = UNSET
    trusted_events: Annotated[tuple[Text, ...], Meta(min_length=1)] | UnsetType = UNSET
    claims: (
        Annotated[
            dict[str, Text], Meta(min_length=1, description="generic: which claim holds what")
        ]
        | UnsetType
    ) = UNSET
    ack: tuple[IssuerAck, ...] = ()


class WhenDocument(Document, frozen=True, kw_only=True):
    """What kind of job. Exactly one key."""

    branch: Text | UnsetType = UNSET
    pull_request: Annotated[Text, Meta(description="any, or one number")] | UnsetType = UNSET
    merge_queue: Annotated[Text, Meta(description="the base branch")] | UnsetType = UNSET
    tag: Text | UnsetType = UNSET
    role: Text | UnsetType = UNSET
    context: Literal["other"] | UnsetType = UNSET


class QuotaDocument(Document, frozen=True, kw_only=True):
    """How much one namespace may hold, and for how long."""

    bytes: Size | UnsetType = UNSET
    ttl: Duration | UnsetType = UNSET


class RuleDocument(Document, frozen=True, kw_only=True):
    """One rule. The first that matches decides alone."""

    name: Name
    when: WhenDocument
    tier: TierName
    read: Annotated[
        tuple[Text, ...], Meta(description="self, base, or kind/id; looked up in this order")
    ]
    claims: Claims | UnsetType = UNSET
    ack: tuple[RuleAck, ...] = ()
    write: Literal["self"] | UnsetType = UNSET
    audit: bool = False
    quota: QuotaDocument | UnsetType = UNSET


class DenyDocument(Document, frozen=True, kw_only=True):
    """Takes away, before any rule is looked at. All keys that are there must hold."""

    name: Name
    projects: Annotated[tuple[Name, ...], Meta(min_length=1)] | UnsetType = UNSET
    issuers: Annotated[tuple[Name, ...], Meta(min_length=1)] | UnsetType = UNSET
    when: WhenDocument | UnsetType = UNSET
    claims: Claims | UnsetType = UNSET


class ShareDocument(Document, frozen=True, kw_only=True):
    """Namespaces that another project may import."""

    with_: Name = field(name="with")
    namespaces: Annotated[tuple[Text, ...], Meta(min_length=1)]


class ImportDocument(Document, frozen=True, kw_only=True):
    """Namespaces of another project that share them."""

    project: Name
    namespaces: Annotated[tuple[Text, ...], Meta(min_length=1)]


class ProjectDocument(Document, frozen=True, kw_only=True):
    """Whose jobs share namespaces."""

    issuers: Annotated[tuple[Name, ...], Meta(min_length=1)]
    ruleset: Name
    match: (
        Annotated[
            Claims | Annotated[tuple[Claims, ...], Meta(min_length=1)],
            Meta(description="claims of this project's tokens; a list means any of these"),
        ]
        | UnsetType
    ) = UNSET
    share: tuple[ShareDocument, ...] = ()
    import_: tuple[ImportDocument, ...] = field(name="import", default=())
    visibility: Literal["public", "private"] | UnsetType = UNSET


class RevocationMatch(Document, frozen=True, kw_only=True):
    """All keys that are there must match; a list means any of these."""

    issuer: AnyOf | UnsetType = UNSET
    project: AnyOf | UnsetType = UNSET
    rule: AnyOf | UnsetType = UNSET
    subject: AnyOf | UnsetType = UNSET
    repository_id: AnyOf | UnsetType = UNSET
    run_id: AnyOf | UnsetType = UNSET
    actor_id: AnyOf | UnsetType = UNSET
    commit: AnyOf | UnsetType = UNSET
    namespace: AnyOf | UnsetType = UNSET
    key: AnyOf | UnsetType = UNSET
    jti_sha256: AnyOf | UnsetType = UNSET
    tid: AnyOf | UnsetType = UNSET
    policy_sha256: AnyOf | UnsetType = UNSET


class RevocationDocument(Document, frozen=True, kw_only=True):
    """Refuses tokens and hides entries."""

    id: Name
    match: RevocationMatch
    since: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET
    reason: Text | UnsetType = UNSET


class AnonymousDocument(Document, frozen=True, kw_only=True):
    """What a request without any token may read. It can never write."""

    project: Name
    read: Annotated[tuple[Text, ...], Meta(min_length=1)]
    ack: tuple[Literal["public-read"], ...] = ()


class LogDocument(Document, frozen=True, kw_only=True):
    """The transparency log."""

    public: Annotated[bool, Meta(description="tiles and entries need no token")] = False


class PolicyDocument(Document, frozen=True, kw_only=True):
    """A secure-cache policy, version 1."""

    version: Literal[1]
    audience: Annotated[
        str, Meta(description="the only aud that is accepted; https", extra={"code": "E10"})
    ]
    issuers: Annotated[dict[Name, IssuerDocument], Meta(min_length=1)]
    rulesets: Annotated[
        dict[Name, Annotated[tuple[RuleDocument, ...], Meta(min_length=1)]], Meta(min_length=1)
    ]
    projects: Annotated[dict[Name, ProjectDocument], Meta(min_length=1)]
    deny: tuple[DenyDocument, ...] = ()
    revocations: tuple[RevocationDocument, ...] = ()
    epochs: dict[Text, Annotated[int, Meta(ge=0, le=2**31)]] = {}
    anonymous: AnonymousDocument | UnsetType = UNSET
    log: LogDocument = LogDocument()
    require_tests: bool = False
    shadow_policy: Text | UnsetType = UNSET


class ExpectDocument(Document, frozen=True, kw_only=True):
    """A decision that grants something, whole: a forgotten read is a failed case."""

    rule: Name
    write: Text | None
    read: tuple[Text, ...]
    tier: TierName | UnsetType = UNSET
    audit: bool | UnsetType = UNSET


class CaseDocument(Document, frozen=True, kw_only=True):
    """One token and the decision that it must get."""

    name: Text
    expect: Literal["deny"] | ExpectDocument
    claims: dict[Text, Any] = {}
    anonymous: bool = False


class TestDocument(Document, frozen=True, kw_only=True):
    """A policy test file, version 1."""

    __test__ = False

    version: Literal[1]
    cases: Annotated[tuple[CaseDocument, ...], Meta(min_length=1)]
    base: dict[Text, Any] = {}


SCHEMA_ID = "https://secure-cache.dev/schema/policy.v1.json"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of policy files, for editors."""
    schema = msgspec.json.schema(PolicyDocument)
    # What the structs cannot say; `lint` checks it.
    schema["$defs"]["WhenDocument"] |= {"minProperties": 1, "maxProperties": 1}
    schema["$defs"]["RevocationMatch"] |= {"minProperties": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "secure-cache policy",
        **schema,
    }
