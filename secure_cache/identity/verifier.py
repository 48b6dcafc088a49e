"""From a token to an `Identity`, remembering what was proved.

A verified token is remembered by its SHA-256, under the policy that named its issuer, until it
expires but no longer than five minutes: a key that an issuer withdraws stops counting soon. A
token whose signature was wrong is remembered for a minute, so that repeating it costs little.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from secure_cache.identity.issue import check_own_lifetime
from secure_cache.identity.keys import KeySet, VerificationKey
from secure_cache.identity.presets.self_issued import PRESET as SELF
from secure_cache.identity.times import Times
from secure_cache.identity.tokens import (
    UnverifiedToken,
    VerifiedClaims,
    identity_of,
    parse_token,
    verify_token,
)
from secure_cache.model.clock import Clock
from secure_cache.model.errors import ExpiredToken, InvalidToken, Proved, TokenProblem
from secure_cache.model.identity import Identity
from secure_cache.model.identity_json import parse_identity
from secure_cache.policy.decision import Issuer, Policy
from secure_cache.policy.preset import PresetOptions

_REMEMBERED = 8192
_REMEMBERED_BAD = 1024
_REMEMBER_SECONDS = 300
_REMEMBER_BAD_SECONDS = 60


class FindsKeys(Protocol):
    """Where the keys of the issuers come from."""

    async def find(self, issuer: Issuer, kid: str | None) -> VerificationKey:
        """Raises: InvalidToken (no such key), Unavailable (can not tell now)."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    policy_sha256: str
    own_keys: KeySet
    until: float
    identity: Identity | None


class TokenVerifier:
    """Verifies tokens of CIs and of this server itself.

    Args:
        policy: gives the policy in force.
        issuer_keys: the keys of the policy's issuers.
        own_keys: gives the keys that this server signs tokens with, now and lately; the same
            object for as long as they are the same.
        clock: seconds since 1970.
        on_unknown_claims: told of claims that an issuer's preset does not know.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        issuer_keys: FindsKeys,
        own_keys: Callable[[], KeySet],
        clock: Clock,
        on_unknown_claims: Callable[[str, frozenset[str]], None] | None = None,
    ) -> None:
        self._policy = policy
        self._issuer_keys = issuer_keys
        self._own_keys = own_keys
        self._clock = clock
        self._on_unknown_claims = on_unknown_claims
        self._good: OrderedDict[bytes, _Seen] = OrderedDict()
        self._bad: OrderedDict[bytes, _Seen] = OrderedDict()

    async def verify(self, token: str) -> Identity:
        """The identity that `token` proves.

        Raises:
            InvalidToken: it proves nothing.
            ExpiredToken: it did, until its time was over.
            Unavailable: its issuer's keys can not be had now.
        """
        policy, own_keys, now = self._policy(), self._own_keys(), self._clock()
        parsed = parse_token(token)
        fingerprint = hashlib.sha256(token.encode()).digest()
        known = self._recall(fingerprint, policy, own_keys, now)
        if known is not None:
            return known
        try:
            identity = await self._verify(parsed, policy, own_keys, now)
        except InvalidToken as error:
            if error.problem is TokenProblem.SIGNATURE:
                seen = _Seen(policy.sha256, own_keys, now + _REMEMBER_BAD_SECONDS, None)
                _remember(self._bad, fingerprint, seen, _REMEMBERED_BAD)
            raise
        seen = _Seen(policy.sha256, own_keys, now + _REMEMBER_SECONDS, identity)
        _remember(self._good, fingerprint, seen, _REMEMBERED)
        return identity

    def _recall(
        self, fingerprint: bytes, policy: Policy, own_keys: KeySet, now: float
    ) -> Identity | None:
        seen = self._good.get(fingerprint) or self._bad.get(fingerprint)
        if seen is None or seen.policy_sha256 != policy.sha256 or seen.own_keys is not own_keys:
            return None
        if now > seen.until:
            return None
        if seen.identity is None:
            raise InvalidToken("the signature was wrong before", TokenProblem.SIGNATURE)
        if Times(seen.identity.issued_at, seen.identity.expires_at).is_over(now):
            proved = Proved(seen.identity.issuer)
            raise ExpiredToken("expired since it was first seen").of(proved)
        return seen.identity

    async def _verify(
        self, parsed: UnverifiedToken, policy: Policy, own_keys: KeySet, now: float
    ) -> Identity:
        if parsed.jws.own:
            return self._verify_own(parsed, policy, own_keys, now)
        issuer = policy.issuer(parsed.unverified_iss)
        if issuer is None or issuer.preset.self_issued:
            raise InvalidToken("iss is not in the policy", TokenProblem.UNKNOWN_ISSUER)
        key = await self._issuer_keys.find(issuer, parsed.jws.kid)
        verified = verify_token(parsed, key, issuer=issuer, audience=policy.audience, now=now)
        identity, unknown = identity_of(verified, issuer)
        if unknown and self._on_unknown_claims is not None:
            self._on_unknown_claims(issuer.name, unknown)
        return identity

    def _verify_own(
        self, parsed: UnverifiedToken, policy: Policy, own_keys: KeySet, now: float
    ) -> Identity:
        if parsed.unverified_iss != policy.audience:
            raise InvalidToken("our typ with another iss", TokenProblem.UNKNOWN_ISSUER)
        session = "idn" in parsed.unverified_claims
        issuer = _session_issuer(policy.audience) if session else policy.issuer(policy.audience)
        if issuer is None or not issuer.preset.self_issued:
            raise InvalidToken("no issuer with preset self", TokenProblem.UNKNOWN_ISSUER)
        key = own_keys.find(parsed.jws.kid) if parsed.jws.kid is not None else None
        verified = verify_token(parsed, key, issuer=issuer, audience=policy.audience, now=now)
        family = check_own_lifetime(verified)
        if session:
            return _session_identity(verified, family, policy)
        identity, _ = identity_of(verified, issuer)
        return replace(identity, family=family)


def _session_issuer(audience: str) -> Issuer:
    # Sessions work without an issuer with preset `self`: the policy's say about them is its say
    # about the original issuer.
    return Issuer(
        name="session",
        preset=SELF,
        iss=audience,
        algorithms=SELF.algorithms,
        jwks_url=None,
        jwks_file=None,
        allow_private=False,
        max_lifetime_seconds=SELF.max_lifetime_seconds,
        max_age_seconds=SELF.max_age_seconds,
        options=PresetOptions(),
    )


def _session_identity(verified: VerifiedClaims, family: str, policy: Policy) -> Identity:
    try:
        original = parse_identity(verified.claims["idn"])
    except ValueError as error:
        raise InvalidToken(f"idn: {error}", TokenProblem.CLAIMS) from None
    issuer = policy.issuer(original.iss)
    if issuer is None or issuer.name != original.issuer or issuer.preset.self_issued:
        raise InvalidToken("the session's issuer left the policy", TokenProblem.UNKNOWN_ISSUER)
    return replace(
        original,
        token_id=verified.token_id,
        family=family,
        issued_at=verified.times.issued_at,
        expires_at=verified.times.expires_at,
    )


def _remember(
    memory: OrderedDict[bytes, _Seen], fingerprint: bytes, seen: _Seen, limit: int
) -> None:
    memory[fingerprint] = seen
    memory.move_to_end(fingerprint)
    if len(memory) > limit:
        memory.popitem(last=False)
