"""From a token to what its bearer may do, quickly.

A token is verified once and its decision is computed once per policy; both are remembered for a
minute by the SHA-256 of the token, so that no token is kept in memory. A new policy, other keys
of our own (one was taken back), or the token's expiry, makes the remembered answer void at once.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from secure_cache.core.telemetry import Silent, Telemetry
from secure_cache.model.clock import LEEWAY_SECONDS, Clock
from secure_cache.model.errors import ExpiredToken, Proved, Revoked
from secure_cache.model.identity import Identity
from secure_cache.policy.decision import Decision, Policy

_REMEMBERED_TOKENS = 16_384
_REMEMBER_SECONDS = 60.0


class VerifiesTokens(Protocol):
    """Turns a token into the identity that it proves, or raises."""

    async def verify(self, token: str) -> Identity:
        """Raises: InvalidToken, ExpiredToken, Unavailable (the issuer's keys are unknown)."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, what the policy grants, and the one snapshot of the policy that said so.

    Attributes:
        identity: None for a request without any token.
        decision: what it may do.
        policy: the policy that decided; a request uses one for its whole life.
    """

    identity: Identity | None
    decision: Decision
    policy: Policy


def proved_of(caller: Caller) -> Proved | None:
    """What is proved of a caller, in the policy's words; None for an anonymous one."""
    if caller.identity is None:
        return None
    decision = caller.decision
    return Proved(
        issuer=caller.identity.issuer,
        project=decision.project or "",
        rule=decision.rule or "",
        tier="" if decision.tier is None else str(decision.tier),
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """A caller, the own keys in force when its token was verified, and until when it counts."""

    caller: Caller
    own_keys: object
    until: float


class Access:
    """Callable: token or None to `Caller`. `on_decided` is told whenever a decision is made anew.

    `own_keys` gives what our own tokens are verified with: one and the same object for as long
    as the keys are the same.

    Raises (from the call):
        InvalidToken: it proves nothing.
        ExpiredToken: it did, once.
        Revoked: the policy took it back.
        Unavailable: its issuer's keys cannot be had now.
    """

    def __init__(
        self,
        *,
        verifier: VerifiesTokens,
        policy: Callable[[], Policy],
        clock: Clock,
        own_keys: Callable[[], object] = lambda: None,
        remembered: int = _REMEMBERED_TOKENS,
        on_decided: Callable[[Identity], None] = lambda _: None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._verifier = verifier
        self._policy = policy
        self._clock = clock
        self._own_keys = own_keys
        self._limit = remembered
        self._on_decided = on_decided
        self._telemetry = Silent() if telemetry is None else telemetry
        self._remembered: OrderedDict[bytes, _Known] = OrderedDict()

    async def __call__(self, token: str | None) -> Caller:
        policy = self._policy()
        if token is None:
            return Caller(None, policy.decide_anonymous(), policy)
        caller = await self._caller(token, policy)
        identity = caller.identity
        if identity is not None:
            now = self._clock()
            if now > identity.expires_at + LEEWAY_SECONDS:
                raise ExpiredToken("expired since it was first seen").of(proved_of(caller))
            if (hidden := policy.refuses_token(identity, now=now)) is not None:
                raise Revoked(hidden.why).of(proved_of(caller))
        return caller

    async def _caller(self, token: str, policy: Policy) -> Caller:
        fingerprint = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        own_keys, known = self._own_keys(), self._remembered.get(fingerprint)
        if known is not None and self._still_holds(known, policy, own_keys):
            self._remembered.move_to_end(fingerprint)
            return known.caller
        identity = await self._verifier.verify(token)
        caller = Caller(identity, policy.decide(identity), policy)
        self._on_decided(identity)
        self._telemetry.token_verified()
        self._remembered[fingerprint] = _Known(caller, own_keys, self._clock() + _REMEMBER_SECONDS)
        if len(self._remembered) > self._limit:
            self._remembered.popitem(last=False)
        return caller

    def _still_holds(self, known: _Known, policy: Policy, own_keys: object) -> bool:
        return (
            known.caller.policy is policy
            and known.own_keys is own_keys
            and self._clock() < known.until
        )
