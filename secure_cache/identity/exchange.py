"""The token exchange (RFC 8693): a CI's token in, once, and a session of ours out.

CI tokens live for minutes and a build for an hour, so the first is exchanged for the second. The
session carries who the job is and nothing that it may do.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from secure_cache.identity.issue import MAX_SESSION_SECONDS, IssuedToken, TokenIssuer
from secure_cache.model.clock import LEEWAY_SECONDS, Clock
from secure_cache.model.errors import (
    AlreadyExists,
    Denied,
    InvalidToken,
    Proved,
    ReplayedToken,
    Revoked,
    TokenProblem,
)
from secure_cache.model.identity import Identity
from secure_cache.policy.decision import Policy
from secure_cache.storage import layout
from secure_cache.storage.ports import CreateOnly

REMEMBERED_SECONDS: Final = 7 * 86_400
"""How long after its `iat` a used token is remembered. Counted from `iat`, which is signed: until
when a token counts also depends on the policy, and an edit must not move the claim elsewhere."""

_MARGIN_SECONDS = 60


class VerifiesTokens(Protocol):
    """Turns a token into the identity that it proves, or raises."""

    async def verify(self, token: str) -> Identity: ...


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A session, and for whom."""

    session: IssuedToken
    identity: Identity


class TokenExchange:
    """Exchanges each CI token at most once, over all processes that share the store.

    Args:
        verifier: verifies the CI's token.
        policy: gives the policy in force.
        state: where used tokens are claimed.
        issuer: gives the maker of sessions (the key may rotate, the audience change).
        clock: seconds since 1970.
        session_seconds: how long a session lives, at most six hours.
    """

    def __init__(
        self,
        *,
        verifier: VerifiesTokens,
        policy: Callable[[], Policy],
        state: CreateOnly,
        issuer: Callable[[], TokenIssuer],
        clock: Clock,
        session_seconds: int = MAX_SESSION_SECONDS,
    ) -> None:
        self._verifier = verifier
        self._policy = policy
        self._state = state
        self._issuer = issuer
        self._clock = clock
        self._session_seconds = session_seconds

    async def exchange(self, token: str) -> Exchanged:
        """A session for the bearer of a CI's token.

        1. Verify, and ask the policy, without a trace: a refusal leaves the token unused.
        2. Claim the token in the store. From here it is used, whatever happens to us.
        3. Hand out the session, which was made before: nothing can fail after the claim.

        A crash between 2 and 3 loses one token; the job asks its CI for another.

        Raises:
            InvalidToken: it proves nothing, or is one of our own.
            ExpiredToken: its time is over.
            ReplayedToken: it was exchanged before.
            Revoked, Denied: the policy has nothing for it.
            Unavailable, StorageForbidden: the keys or the store can not be asked; no session.
        """
        identity = await self._verifier.verify(token)
        self._check(identity)
        session = self._issuer().issue_session(identity, ttl_seconds=self._session_seconds)
        try:
            await self._state.create(*_claim(identity, session))
        except AlreadyExists:
            error = ReplayedToken("this token was exchanged before")
            raise error.of(Proved(identity.issuer)) from None
        return Exchanged(session, identity)

    def _check(self, identity: Identity) -> None:
        policy = self._policy()
        if identity.family is not None:
            # Our own tokens would live for ever by being exchanged again and again.
            raise InvalidToken("a token of this server", TokenProblem.NOT_EXCHANGEABLE)
        if identity.expires_at + LEEWAY_SECONDS + _MARGIN_SECONDS > _kept_until(identity):
            raise InvalidToken("lives longer than used tokens are kept", TokenProblem.TIMES)
        hidden = policy.refuses_token(identity, now=self._clock())
        if hidden is not None:
            raise Revoked(hidden.why).of(Proved(identity.issuer))
        decision = policy.decide(identity)
        if not decision.allowed:
            raise Denied(decision.reason).of(Proved(identity.issuer, decision.project or ""))


def _claim(identity: Identity, session: IssuedToken) -> tuple[str, bytes]:
    # Named with the issuer, or one issuer could use up the ids of another. The bytes are this
    # attempt's own: a store may let the same bytes be created again as a retry.
    replay_key = hashlib.sha256(f"{identity.iss}\n{identity.token_id}".encode()).hexdigest()
    name = layout.used_token(replay_key, _kept_until(identity))
    session_id = hashlib.sha256(session.token.encode()).hexdigest()
    return name, json.dumps({"session": session_id}).encode()


def _kept_until(identity: Identity) -> int:
    return identity.issued_at + REMEMBERED_SECONDS
