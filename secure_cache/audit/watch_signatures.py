"""Who may have signed an entry, by its place in the log. Pure.

A key that was revoked proves nothing from the event on that says so. What it had signed, and the
log held, before that event was signed while the key was good: the order of the log proves it,
and no date that a thief may write does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from secure_cache.model.errors import CorruptObject
from secure_cache.provenance.dsse import IN_TOTO, pae
from secure_cache.provenance.keys import KeyRing, KeyStatus, ring_of


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The entry keys, and from where on some of them count no more.

    Attributes:
        ring: as it is now.
        revoked_at: the index of the event that revoked a key, by key id. A key that is revoked in
            the ring and is not in here never counted.
    """

    ring: KeyRing
    revoked_at: Mapping[str, int] = field(default_factory=dict)
    _before: KeyRing = field(init=False, repr=False, compare=False)
    _ends: Mapping[str, int | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        before = ring_of(
            replace(key, status=KeyStatus.ACTIVE)
            for key in self.ring.keys
            if key.status is KeyStatus.REVOKED and key.keyid in self.revoked_at
        )
        object.__setattr__(self, "_before", before)
        ends = {
            key.keyid: None if key.status is KeyStatus.ACTIVE else key.not_after
            for key in self.ring.keys
            if key.status is KeyStatus.ACTIVE or key.not_after is not None
        }
        object.__setattr__(self, "_ends", ends)

    def is_active(self, keyid: str) -> bool:
        """Whether a key signs today, so that its times are the server's own."""
        return self._ends.get(keyid, 0) is None

    def end_of(self, keyid: str) -> int | None:
        """The last second of a key that was retired, also if it was revoked since."""
        return self._ends.get(keyid)

    @property
    def unplaced(self) -> bool:
        """Whether a key is revoked, and nobody has said where."""
        return any(
            key.status is KeyStatus.REVOKED and key.keyid not in self.revoked_at
            for key in self.ring.keys
        )

    def with_revoked(self, keyids: tuple[str, ...], index: int) -> Self:
        """After an event at `index` that revokes these. The first event about a key counts."""
        news = {keyid: index for keyid in keyids if self.revoked_at.get(keyid, index + 1) > index}
        return replace(self, revoked_at={**self.revoked_at, **news}) if news else self

    def fault(
        self, index: int, keyid: str, payload: bytes, signature: bytes, at: int
    ) -> str | None:
        """Why the signature of the entry at `index` is not good; None when it is.

        Args:
            index: in the log.
            keyid: of the key that is said to have signed.
            payload: the statement's bytes.
            signature: raw.
            at: when it was made, as the statement says.
        """
        revoked_at = self.revoked_at.get(keyid)
        if revoked_at is not None and index > revoked_at:
            return f"signed by key {keyid}, which entry {revoked_at} had revoked"
        ring = self._before if keyid in self._before else self.ring
        try:
            key = ring.verify(keyid, pae(IN_TOTO, payload), signature)
            key.require_valid_at(at)
        except CorruptObject as error:
            return str(error)
        return None
