"""A verifier over one offline issuer, and the keys it would publish."""

import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.clock import HeldClock
from fakes.issuer import Issuer
from fakes.policy import AUDIENCE, FixedPolicy, issuer_entry

from secure_cache.identity.issue import Ed25519TokenSigner, TokenIssuer
from secure_cache.identity.keys import ed25519_key_set, parse_key_set
from secure_cache.identity.verifier import TokenVerifier
from secure_cache.model.errors import InvalidToken, TokenProblem

ISS = "https://ci.example"


class PublishedKeys:
    """The keys that issuers publish, without a network; counts the questions."""

    def __init__(self, *issuers):
        self.issuers = {issuer.iss: issuer for issuer in issuers}
        self.asked = 0

    async def find(self, issuer, kid):
        self.asked += 1
        data = json.dumps({"keys": self.issuers[issuer.iss].published}).encode()
        key = parse_key_set(data, issuer.algorithms).find(kid)
        if key is None:
            raise InvalidToken("no key", TokenProblem.UNKNOWN_KEY)
        return key


@dataclass
class World:
    """One issuer `ci`, one key of our own, one verifier."""

    algorithm: str = "RS256"
    entry: dict[str, Any] = field(default_factory=dict)
    self_issued: bool = True

    def __post_init__(self):
        self.clock = HeldClock()
        self.issuer = Issuer(
            iss=ISS,
            algorithm=self.algorithm,
            clock=self.clock,
            claims={
                "aud": AUDIENCE,
                "event_name": "push",
                "ref": "refs/heads/main",
                "ref_type": "branch",
                "repository_id": "74",
                "repository_owner_id": "65",
            },
        )
        entry = issuer_entry(ISS, **({"algorithms": (self.algorithm,)} | self.entry))
        own = (issuer_entry(AUDIENCE, name="own", preset="self"),) if self.self_issued else ()
        self.policy = FixedPolicy((entry, *own))
        self.keys = PublishedKeys(self.issuer)
        self.own_key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        self.own_keys = ed25519_key_set([self.own_key.public_key()])
        self.unknown = []
        self._ids = 0
        self.verifier = TokenVerifier(
            policy=lambda: self.policy,
            issuer_keys=self.keys,
            own_keys=lambda: self.own_keys,
            clock=self.clock,
            on_unknown_claims=lambda name, claims: self.unknown.append((name, claims)),
        )

    def new_id(self):
        self._ids += 1
        return f"id-{self._ids}"

    @property
    def token_issuer(self):
        signer = Ed25519TokenSigner(self.own_key)
        return TokenIssuer(signer, AUDIENCE, self.clock, self.new_id)
