"""`POST /v1/token` (RFC 8693 token exchange) and `GET /v1/whoami`."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from litestar import Request, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from secure_cache.core.access import Caller
from secure_cache.http.bearer import bearer_token
from secure_cache.http.services import Services, TheCaller
from secure_cache.model.clock import rfc3339
from secure_cache.model.errors import InvalidToken, Malformed, TokenProblem

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPES = {
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
}
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  a type's name
_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 16


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """RFC 8693 section 2.2.1."""

    access_token: str
    expires_in: int
    issued_token_type: str = ACCESS_TOKEN_TYPE
    token_type: str = "Bearer"  # noqa: S105  a type's name


@dataclass(frozen=True, slots=True)
class WhoAmI:
    """What the caller's own token may do, and why. It tells nothing about anybody else.

    Attributes:
        anonymous: there was no token.
        allowed: a rule of the policy matched.
        reason: the rule, or the first thing that failed.
        issuer: the issuer's name in the policy.
        subject: the token's `sub`.
        expires_at: RFC 3339.
        kind: what kind of job the token speaks for.
        name: the branch, pull request, queue, tag or role.
        base: the branch that it is to be merged into.
        project: the one project.
        rule: the rule's name.
        tier: of what it writes.
        write: the one namespace it writes, as `kind/id`.
        read: the namespaces it reads, in order.
        audit: it may read the whole log.
        policy_sha256: the policy that said so.
    """

    anonymous: bool
    allowed: bool
    reason: str
    issuer: str | None
    subject: str | None
    expires_at: str | None
    kind: str | None
    name: str | None
    base: str | None
    project: str | None
    rule: str | None
    tier: str | None
    write: str | None
    read: list[str]
    audit: bool
    policy_sha256: str


def exchange_route(services: Services) -> HTTPRouteHandler:
    @post("/v1/token", status_code=200, summary="Exchange a CI token for a session token")
    async def exchange(request: Request[object, object, State]) -> Response[TokenAnswer]:
        """Takes the CI's OIDC token as `subject_token` of an RFC 8693 form, or as bearer."""
        token = _subject_token(
            await request.body(),
            request.headers.get("content-type", ""),
            bearer_token(request.scope["headers"]),
        )
        session = await services.exchange(token)
        return Response(
            TokenAnswer(session.token, session.expires_in),
            headers={"cache-control": "no-store"},
        )

    return exchange


def whoami_route() -> HTTPRouteHandler:
    @get("/v1/whoami", summary="What my token may do, and why")
    async def whoami(caller: TheCaller) -> WhoAmI:
        return who_is(caller)

    return whoami


def who_is(caller: Caller) -> WhoAmI:
    identity, decision = caller.identity, caller.decision
    context = decision.context
    own = decision.project
    return WhoAmI(
        anonymous=identity is None,
        allowed=decision.allowed,
        reason=decision.reason,
        issuer=identity.issuer if identity else None,
        subject=identity.subject if identity else None,
        expires_at=rfc3339(identity.expires_at) if identity else None,
        kind=str(context.kind) if context else None,
        name=context.name if context else None,
        base=context.base if context else None,
        project=own,
        rule=decision.rule,
        tier=str(decision.tier) if decision.tier else None,
        write=decision.write.local if decision.write else None,
        read=[space.local if space.project == own else str(space) for space in decision.read],
        audit=decision.audit,
        policy_sha256=caller.policy.sha256,
    )


def _subject_token(body: bytes, content_type: str, bearer: str | None) -> str:
    """The token to exchange, from exactly one of the two places.

    Raises:
        Malformed: not a form of RFC 8693, or two tokens.
        InvalidToken: none at all.
    """
    if not body:
        if bearer is None:
            raise InvalidToken(problem=TokenProblem.MISSING)
        return bearer
    if content_type.partition(";")[0].strip().lower() != _FORM:
        raise Malformed("the exchange takes an RFC 8693 form")
    fields = _form(body)
    if fields.get("grant_type") != GRANT_TYPE or fields.get("subject_token_type") not in JWT_TYPES:
        raise Malformed("not an RFC 8693 token exchange of a JWT")
    token = fields.get("subject_token", "")
    if not token or bearer not in (None, token):
        raise Malformed("the exchange takes exactly one token")
    return bearer_token([(b"authorization", b"Bearer " + token.encode("utf-8", "replace"))]) or ""


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=_MAX_FIELDS,
            errors="strict",
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise Malformed("the form cannot be read") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed("a field stands twice in the form")
    return fields
