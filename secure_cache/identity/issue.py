"""Tokens of this server itself: `typ: cache+jwt`, EdDSA, `iss` = `aud` = the policy's audience.

They carry `sub, iat, exp, jti, tid`, and either `prj` with exactly one of `branch`, `pull_request`
and `base`, or `role`, or, as the session of a CI job, `idn`: the identity that the CI's own token
proved. Never a grant: the policy decides at each request.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secure_cache.identity.keys import thumbprint
from secure_cache.identity.presets.self_issued import MAX_LIFETIME_SECONDS, classify
from secure_cache.identity.tokens import MAX_TOKEN_BYTES, OWN_TYPE, VerifiedClaims
from secure_cache.model.clock import Clock
from secure_cache.model.errors import InvalidToken, Malformed, TokenProblem, TooLarge
from secure_cache.model.identity import Identity
from secure_cache.model.identity_json import identity_document
from secure_cache.model.names import check_project
from secure_cache.policy.preset import PresetOptions, Unclassifiable

MAX_SESSION_SECONDS: Final = 6 * 3600
MAX_ROLE_SECONDS: Final = 12 * 3600
DEFAULT_SECONDS: Final = 3600

_OWN_CLAIMS = frozenset(
    {"iss", "aud", "sub", "iat", "exp", "jti", "tid"}
    | {"prj", "branch", "pull_request", "base", "role", "idn"}
)


class TokenSigner(Protocol):
    """Signs with Ed25519."""

    @property
    def kid(self) -> str:
        """RFC 7638 thumbprint of the public key."""
        ...

    def sign(self, message: bytes) -> bytes: ...


class Ed25519TokenSigner:
    """A `TokenSigner` with its key in memory."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._key = private_key
        self.kid = thumbprint(private_key.public_key())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token to hand out; its text is a secret.

    Attributes:
        token: the JWT.
        expires_at: seconds since 1970.
        family: its `tid`; a revocation may name it.
    """

    token: str
    expires_at: int
    family: str


@dataclass(frozen=True, slots=True)
class Grant:
    """For whom `issue_token` speaks: one of branch, pull request with its base, or role.

    Attributes:
        project: the one project.
        branch: a branch's name.
        pull_request: a pull request's number.
        base: the branch it is to be merged into.
        role: a role that the policy's rules name.
    """

    project: str
    branch: str | None = None
    pull_request: str | None = None
    base: str | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Makes tokens of this server.

    Attributes:
        signer: the token key in use.
        audience: the policy's.
        clock: seconds since 1970.
        new_id: a fresh unguessable string for each `jti` and `tid`.
    """

    signer: TokenSigner
    audience: str
    clock: Clock
    new_id: Callable[[], str]

    def issue_token(self, grant: Grant, *, ttl_seconds: int = DEFAULT_SECONDS) -> IssuedToken:
        """A token for a CI without OIDC (at most 90 days), or for a role (at most 12 hours).

        Raises:
            Malformed: the grant is not exactly one of the three, a name is not legal, or the
                lifetime is too long; the text says which.
        """
        fields = ("branch", "pull_request", "base", "role")
        named = {name: value for name in fields if (value := getattr(grant, name)) is not None}
        claims = {"prj": _project(grant.project), **named}
        context = classify(claims, PresetOptions())
        if isinstance(context, Unclassifiable):
            raise Malformed(context.why)
        longest = MAX_ROLE_SECONDS if grant.role is not None else MAX_LIFETIME_SECONDS
        _check_ttl(ttl_seconds, longest)
        subject = f"{context.kind.value}:{context.name}"
        return self._issue(claims, subject, ttl_seconds, self.new_id())

    def issue_session(
        self, identity: Identity, *, ttl_seconds: int = MAX_SESSION_SECONDS
    ) -> IssuedToken:
        """A session for the job that a CI's token proved, at most 6 hours.

        Its family is the id of the CI's token: revoking that one revokes its sessions.

        Raises:
            Malformed: the lifetime is too long, or the identity has no document.
            TooLarge: the session would not fit into a token.
        """
        _check_ttl(ttl_seconds, MAX_SESSION_SECONDS)
        try:
            document = identity_document(identity)
        except ValueError as error:
            raise Malformed(str(error)) from None
        return self._issue({"idn": document}, identity.subject, ttl_seconds, identity.token_id)

    def _issue(
        self, claims: dict[str, Any], subject: str, ttl_seconds: int, family: str
    ) -> IssuedToken:
        issued_at = int(self.clock())
        expires_at = issued_at + ttl_seconds
        payload = {
            **claims,
            "iss": self.audience,
            "aud": self.audience,
            "sub": subject,
            "iat": issued_at,
            "exp": expires_at,
            "jti": self.new_id(),
            "tid": family,
        }
        header = {"alg": "EdDSA", "kid": self.signer.kid, "typ": OWN_TYPE}
        signing_input = f"{_segment(header)}.{_segment(payload)}"
        signature = self.signer.sign(signing_input.encode("ascii"))
        token = f"{signing_input}.{_base64url(signature)}"
        if len(token) > MAX_TOKEN_BYTES:
            raise TooLarge("the identity does not fit into a token of 8 KiB")
        return IssuedToken(token, expires_at, family)


def check_own_lifetime(verified: VerifiedClaims) -> str:
    """What is particular to our own tokens, checked again when one comes back; gives `tid`.

    Raises:
        InvalidToken: a claim that we never write, no family, or a longer life than its kind may
            have, as a stolen key or an older server might have signed.
    """
    claims = verified.claims
    family = claims.get("tid")
    if not claims.keys() <= _OWN_CLAIMS or not isinstance(family, str) or not family:
        raise InvalidToken("claims that we do not write", TokenProblem.CLAIMS)
    if "idn" in claims and not claims.keys().isdisjoint({"prj", "branch", "pull_request", "role"}):
        raise InvalidToken("a session with a grant of its own", TokenProblem.CLAIMS)
    longest = MAX_LIFETIME_SECONDS
    if "role" in claims:
        longest = MAX_ROLE_SECONDS
    if "idn" in claims:
        longest = MAX_SESSION_SECONDS
    if verified.times.expires_at - verified.times.issued_at > longest:
        raise InvalidToken("a longer life than such a token may have", TokenProblem.TIMES)
    return family


def _project(name: str) -> str:
    try:
        return check_project(name)
    except ValueError as error:
        raise Malformed(str(error)) from None


def _check_ttl(ttl_seconds: int, longest: int) -> None:
    if not 0 < ttl_seconds <= longest:
        raise Malformed(f"such a token lives at most {longest} seconds, not {ttl_seconds}")


def _segment(document: dict[str, Any]) -> str:
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return _base64url(text.encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
