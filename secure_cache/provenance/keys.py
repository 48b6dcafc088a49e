"""Entry keys: who may sign statements, when, and with which algorithm.

The algorithm belongs to the key and is never read from an envelope, so nobody can talk a verifier
into another one. A key id is the lower-case hex SHA-256 of the key's SPKI DER: it names one key
and nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, Self

import rfc8785

from secure_cache.model.clock import parse_rfc3339, rfc3339
from secure_cache.model.digest import Digest
from secure_cache.model.errors import CorruptObject
from secure_cache.model.strict_json import load_strict_object
from secure_cache.provenance.algorithms import (
    Algorithm,
    VerifyingKey,
    check_signature,
    key_id,
    load_public_pem,
)

MAX_RING_BYTES = 256 * 1024


class KeyStatus(StrEnum):
    """`active` may sign. `retired` signs no more, and what it signed in its time still holds.
    `revoked` proves nothing any more: whoever stole a key can write any date."""

    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"


class Signer(Protocol):
    """Signs with one key. A cloud KMS is one, so `sign` may wait for the network."""

    @property
    def keyid(self) -> str: ...

    @property
    def algorithm(self) -> Algorithm: ...

    async def sign(self, message: bytes) -> bytes:
        """The signature in the form that `Algorithm` names.

        Raises:
            Unavailable: the key could not be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that statements are verified with.

    Attributes:
        algorithm: how it signs.
        pem: SPKI PEM, as `public_pem` writes it.
        not_before: seconds since 1970; what is dated earlier was not signed by us.
        not_after: the last second that it covers; None while no end is set.
        status: see `KeyStatus`.
        keyid: hex SHA-256 of the SPKI DER.

    Raises:
        ValueError: the PEM is not one key of that algorithm in its one spelling, the window is
            empty, or a retired key has no end.
    """

    algorithm: Algorithm
    pem: str
    not_before: int
    not_after: int | None = None
    status: KeyStatus = KeyStatus.ACTIVE
    keyid: str = field(init=False)
    _key: VerifyingKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = load_public_pem(self.pem, self.algorithm)
        if self.not_before < 0 or (self.not_after is not None and self.not_after < self.not_before):
            raise ValueError("a key's validity ends before it begins")
        if self.status is KeyStatus.RETIRED and self.not_after is None:
            raise ValueError("a retired key needs the time until which it signed")
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "keyid", key_id(key))

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check a signature; whether the key may be trusted is for the caller.

        Raises:
            CorruptObject: it is not this key's signature over `message` in its one spelling.
        """
        try:
            check_signature(self._key, message, signature)
        except ValueError:
            raise CorruptObject(f"the signature is not by key {self.keyid}") from None

    def require_valid_at(self, moment: int) -> None:
        """Check that the key's time covers `moment`, seconds since 1970.

        Raises:
            CorruptObject: too early or too late.
        """
        if moment < self.not_before:
            raise CorruptObject(f"signed before key {self.keyid} was valid")
        if self.not_after is not None and moment > self.not_after:
            raise CorruptObject(f"signed after key {self.keyid} was retired")

    def document(self) -> dict[str, Any]:
        """As it stands in a key ring's document."""
        document: dict[str, Any] = {
            "algorithm": str(self.algorithm),
            "keyid": self.keyid,
            "notBefore": rfc3339(self.not_before),
            "pem": self.pem,
            "status": str(self.status),
        }
        if self.not_after is not None:
            document["notAfter"] = rfc3339(self.not_after)
        return document

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The inverse of `document`.

        Raises:
            ValueError: anything else, also a `keyid` that is not this key's.
        """
        try:
            until = document.get("notAfter")
            key = cls(
                algorithm=Algorithm(document["algorithm"]),
                pem=document["pem"],
                not_before=parse_rfc3339(document["notBefore"]),
                not_after=None if until is None else parse_rfc3339(until),
                status=KeyStatus(document["status"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"a key's document is not well formed: {error}") from error
        if key.document() != document:
            raise ValueError("a key's document has a wrong keyid, or is not in its canonical form")
        return key


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys that statements may be signed with. An empty ring refuses everything.

    Raises:
        ValueError: two keys with one id.
    """

    keys: tuple[PublicKey, ...]
    _by_id: dict[str, PublicKey] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_id = {key.keyid: key for key in self.keys}
        if len(by_id) != len(self.keys):
            raise ValueError("a key stands twice in the key ring")
        object.__setattr__(self, "_by_id", by_id)

    def __contains__(self, keyid: object) -> bool:
        """Whether the key is known, whatever its status. A reader that meets an unknown key
        should load its ring again before it calls an object corrupt: a replica may have rotated."""
        return keyid in self._by_id

    def verify(self, keyid: str, message: bytes, signature: bytes) -> PublicKey:
        """Check a signature by one of these keys.

        The caller must then ask the key whether its time covers the statement's, which it may
        only read once this has passed.

        Raises:
            CorruptObject: unknown key, revoked key, or a signature that does not verify.
        """
        key = self._by_id.get(keyid)
        if key is None:
            raise CorruptObject("signed by a key that is not in the key ring")
        if key.status is KeyStatus.REVOKED:
            raise CorruptObject(f"signed by key {keyid}, which is revoked")
        key.verify(message, signature)
        return key

    def encode(self) -> bytes:
        """The ring as a document (RFC 8785), keys sorted by id."""
        keys = [self._by_id[keyid].document() for keyid in sorted(self._by_id)]
        return rfc8785.dumps({"keys": keys, "v": 1})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`: accepts exactly what it gives.

        Raises:
            ValueError: any other bytes.
        """
        document = load_strict_object(data, max_bytes=MAX_RING_BYTES)
        keys = document.get("keys")
        if not isinstance(keys, list):
            raise ValueError("a key ring is a list of keys")  # noqa: TRY004 - one error for callers
        ring = cls(tuple(PublicKey.from_document(key) for key in keys))
        if ring.encode() != data:
            raise ValueError("the key ring is not in its canonical form")
        return ring

    def before_revocations(self) -> "KeyRing":
        """As if none of its keys had been revoked. What this refuses, too, was never ours."""
        return KeyRing(tuple(replace(key, status=_standing(key)) for key in self.keys))

    @property
    def digest(self) -> Digest:
        """SHA-256 of `encode()`: names exactly this state of the ring, in the log."""
        return Digest.of(self.encode())


def _standing(key: PublicKey) -> KeyStatus:
    return KeyStatus.ACTIVE if key.status is KeyStatus.REVOKED else key.status


def ring_of(keys: Iterable[PublicKey]) -> KeyRing:
    """A ring of these keys, in the order of their ids."""
    return KeyRing(tuple(sorted(keys, key=lambda key: key.keyid)))
