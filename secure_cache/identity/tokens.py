"""The token verifier: a strict layer around PyJWT's signature check. Pure: no I/O, no clock.

In order, each step refusing (RFC 7519, RFC 7515, RFC 8725):

    1. one Authorization header: in `http`, before anything here
    2. size, alphabet, three segments of canonical base64url      `parse_jws`
    3. the header: strict JSON, known fields only                 `parse_jws`
    4. the payload: strict JSON, `iss`                            `parse_token`
       (the caller looks the issuer up by that exact string)
    5. `alg` and `kid` against the issuer's own keys              `verify_token`
    6. the signature                                              `verify_token`
    7. the registered claims, by type, range and time             `verify_token`
    8. the preset's claims                                        `verify_token`

Nothing is decoded twice in different ways, and no text of a token stands in an error.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import jwt

from secure_cache.identity.keys import ASYMMETRIC, KID, VerificationKey
from secure_cache.identity.times import Times, check_times
from secure_cache.model.errors import ExpiredToken, InvalidToken, Proved, TokenProblem
from secure_cache.model.identity import ClaimValue, Identity
from secure_cache.model.identity_json import MAX_CLAIMS, check_claim_value, check_text
from secure_cache.model.strict_json import JsonValue, load_strict_object
from secure_cache.policy.decision import Issuer

MAX_TOKEN_BYTES = 8192
OWN_TYPE: Final = "cache+jwt"
REGISTERED: Final = frozenset({"iss", "sub", "aud", "exp", "iat", "nbf", "jti"})

_HEADER_FIELDS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_MAX_AUDIENCES = 10
_JWS = jwt.PyJWS(algorithms=sorted(ASYMMETRIC), options={"enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """A well-formed signed object of which nothing is proved yet.

    Attributes:
        token: its text.
        algorithm: an asymmetric one, by the header.
        kid: the key, by the header.
        own: the header has the `typ` of our own tokens.
        unverified_payload: decoded from base64url, not read.
    """

    token: str
    algorithm: str
    kid: str | None
    own: bool
    unverified_payload: bytes


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A well-formed token of which nothing is proved yet."""

    jws: UnverifiedJws
    unverified_iss: str
    unverified_claims: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class VerifiedClaims:
    """The payload of a token whose signature, audience and times are right.

    Attributes:
        claims: all of them.
        subject: `sub`.
        token_id: SHA-256, hex, of `jti`, else of the signing input. Never of the whole token:
            an ECDSA signature has a second valid form.
        times: `iat` and `exp` in whole seconds.
    """

    claims: Mapping[str, JsonValue]
    subject: str
    token_id: str
    times: Times


def parse_token(token: str) -> UnverifiedToken:
    """Steps 2 to 4.

    Raises:
        InvalidToken: not a JWT in compact form, or a header that is not accepted.
    """
    jws = parse_jws(token)
    claims = _object(jws.unverified_payload, "payload")
    iss = claims.get("iss")
    if not isinstance(iss, str):
        raise InvalidToken("iss is missing or not a string", TokenProblem.UNKNOWN_ISSUER)
    return UnverifiedToken(jws, iss, claims)


def parse_jws(token: str) -> UnverifiedJws:
    """Steps 2 and 3.

    Raises:
        InvalidToken: as `parse_token`.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken("longer than 8 KiB", TokenProblem.NOT_A_JWT)
    segments = token.split(".")
    if len(segments) != 3:
        raise InvalidToken("not three segments", TokenProblem.NOT_A_JWT)
    header, payload, _ = (_decode(segment) for segment in segments)
    algorithm, kid, own = _check_header(_object(header, "header"))
    return UnverifiedJws(token, algorithm, kid, own, payload)


def verify_token(
    parsed: UnverifiedToken,
    key: VerificationKey | None,
    *,
    issuer: Issuer,
    audience: str,
    now: float,
) -> VerifiedClaims:
    """Steps 5 to 7.

    Args:
        parsed: from `parse_token`.
        key: the issuer's key with this token's `kid`.
        issuer: the policy's entry with exactly this token's `iss`.
        audience: the only accepted one.
        now: seconds since 1970.

    Raises:
        InvalidToken: it proves nothing.
        ExpiredToken: everything is right but its time is over.
    """
    if parsed.unverified_iss != issuer.iss:
        raise InvalidToken("iss is not this issuer's", TokenProblem.UNKNOWN_ISSUER)
    if parsed.jws.own != issuer.preset.self_issued:
        raise InvalidToken("typ is that of other tokens", TokenProblem.TYPE)
    check_signature(parsed.jws, key, issuer.algorithms)
    claims = parsed.unverified_claims
    _check_audience(claims.get("aud"), audience, multi=issuer.preset.multi_audience)
    subject = _required_text(claims, "sub")
    token_id = _token_id(parsed)
    times = check_times(
        claims,
        now=now,
        max_lifetime_seconds=issuer.max_lifetime_seconds,
        max_age_seconds=issuer.max_age_seconds,
    )
    if times.is_over(now):
        raise ExpiredToken("correctly signed, but past exp or too old").of(Proved(issuer.name))
    return VerifiedClaims(claims, subject, token_id, times)


def check_signature(
    jws: UnverifiedJws, key: VerificationKey | None, algorithms: tuple[str, ...]
) -> None:
    """Steps 5 and 6.

    Raises:
        InvalidToken: no such key, another algorithm than the key's, or a wrong signature.
    """
    if key is None:
        raise InvalidToken("no key of this issuer has this kid", TokenProblem.UNKNOWN_KEY)
    if jws.algorithm != key.algorithm or key.algorithm not in algorithms:
        raise InvalidToken("alg is not that of the issuer's key", TokenProblem.SIGNATURE)
    try:
        _JWS.decode_complete(jws.token, key.jwk, algorithms=[key.algorithm])
    except jwt.PyJWTError as error:
        raise InvalidToken(
            f"the signature check failed: {type(error).__name__}", TokenProblem.SIGNATURE
        ) from None


def identity_of(verified: VerifiedClaims, issuer: Issuer) -> tuple[Identity, frozenset[str]]:
    """Step 8: keep what the preset knows or the admin mapped.

    Returns:
        The identity, and the names of claims that the preset does not know, to be counted: a
        provider that adds a claim may have changed what the others mean.

    Raises:
        InvalidToken: a claim to keep is too long, too large or holds a lone surrogate.
    """
    preset = issuer.preset
    kept = preset.known_claims | {claim for _, claim in issuer.options.claim_names}
    claims: list[tuple[str, ClaimValue]] = []
    for name in sorted(kept & verified.claims.keys()):
        value = verified.claims[name]
        # An object says nothing that a preset reads; a list of them neither.
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
        ):
            continue
        claims.append((name, _claim(name, value)))
    if len(claims) > MAX_CLAIMS:
        raise InvalidToken("too many claims", TokenProblem.CLAIMS)
    identity = Identity(
        issuer=issuer.name,
        iss=issuer.iss,
        subject=verified.subject,
        claims=tuple(claims),
        token_id=verified.token_id,
        issued_at=verified.times.issued_at,
        expires_at=verified.times.expires_at,
    )
    unknown = verified.claims.keys() - kept - preset.private_claims - REGISTERED
    return identity, frozenset(unknown)


def _object(data: bytes, what: str) -> dict[str, JsonValue]:
    try:
        return load_strict_object(data, max_bytes=MAX_TOKEN_BYTES)
    except ValueError as error:
        raise InvalidToken(f"{what}: {error}", TokenProblem.NOT_A_JWT) from None


def _decode(segment: str) -> bytes:
    # Canonical only: `=`, line ends and stray low bits would give one token many spellings.
    if _SEGMENT.fullmatch(segment) is None:
        raise InvalidToken("a segment is not unpadded base64url", TokenProblem.NOT_A_JWT)
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise InvalidToken("a segment is not base64url", TokenProblem.NOT_A_JWT) from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != segment:
        raise InvalidToken("a segment is not canonical base64url", TokenProblem.NOT_A_JWT)
    return data


def _check_header(header: Mapping[str, JsonValue]) -> tuple[str, str | None, bool]:
    if not header.keys() <= _HEADER_FIELDS:
        raise InvalidToken("a header field that is not accepted", TokenProblem.HEADER)
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in ASYMMETRIC:
        raise InvalidToken("alg is not an accepted asymmetric one", TokenProblem.HEADER)
    if "kid" in header and (not isinstance(kid, str) or KID.fullmatch(kid) is None):
        raise InvalidToken("kid is not 1 to 256 plain characters", TokenProblem.HEADER)
    if "typ" in header and typ not in ("JWT", OWN_TYPE):
        raise InvalidToken("typ is neither JWT nor ours", TokenProblem.TYPE)
    return algorithm, kid if isinstance(kid, str) else None, typ == OWN_TYPE


def _check_audience(value: JsonValue, audience: str, *, multi: bool) -> None:
    found: list[JsonValue] = value if multi and isinstance(value, list) else [value]
    texts = all(isinstance(item, str) for item in found)
    if not texts or len(found) > _MAX_AUDIENCES or audience not in found:
        raise InvalidToken("aud is not ours", TokenProblem.AUDIENCE, expected_audience=audience)


def _token_id(parsed: UnverifiedToken) -> str:
    if "jti" in parsed.unverified_claims:
        unique = _required_text(parsed.unverified_claims, "jti")
    else:
        unique = parsed.jws.token.rpartition(".")[0]
    return hashlib.sha256(unique.encode()).hexdigest()


def _required_text(claims: Mapping[str, JsonValue], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"{name} is missing, empty or not a string", TokenProblem.CLAIMS)
    try:
        check_text(value)
    except ValueError as error:
        raise InvalidToken(f"{name}: {error}", TokenProblem.CLAIMS) from None
    return value


def _claim(name: str, value: JsonValue) -> ClaimValue:
    try:
        return check_claim_value(value)
    except ValueError as error:
        # `name` comes from the preset or the policy, not from the token.
        raise InvalidToken(f"the claim {name}: {error}", TokenProblem.CLAIMS) from None
