"""What a store really grants this server, and what it really enforces: tried out, not assumed."""

from dataclasses import dataclass

from secure_cache.model.errors import Misconfigured, StorageForbidden


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """The answers of one probing.

    Attributes:
        can_create: None when the storage does not tell: an identity that may only create is
            answered like one that may not, once the probe object exists.
        create_is_conditional: a create of what exists is refused and changes nothing; None when
            nothing could be created.
        can_replace: by compare-and-swap.
        replace_is_conditional: a stale version is refused; None when replacing is not allowed.
        can_delete: an object.
        overwrite_refused, delete_refused: by a policy of the container, whoever asks (WORM).
            False when it was the identity that lacks the right.
        clock_skew_seconds: the storage's clock minus ours, to about a second; None when it has
            no clock of its own.
    """

    can_create: bool | None
    create_is_conditional: bool | None = None
    can_replace: bool = False
    replace_is_conditional: bool | None = None
    can_delete: bool = False
    overwrite_refused: bool = False
    delete_refused: bool = False
    clock_skew_seconds: float | None = None

    @property
    def immutable(self) -> bool:
        """Neither this identity nor any other can change what is there."""
        return self.overwrite_refused and self.delete_refused

    def require(self, *, store: str, must_replace: bool, must_delete: bool) -> None:
        """Compare with what the cache needs of this store.

        Raises:
            Misconfigured: the storage does not honour a condition.
            StorageForbidden: the identity lacks a right.
        """
        if self.create_is_conditional is False:
            raise Misconfigured(f"{store}: the storage overwrites what create must leave alone")
        if self.replace_is_conditional is False:
            raise Misconfigured(f"{store}: the storage replaces an object of another version")
        if self.can_create is False:
            raise StorageForbidden(f"{store}: the server's identity may not create objects")
        if must_replace and not self.can_replace:
            raise StorageForbidden(f"{store}: the server may not replace objects, and must")
        if must_delete and not self.can_delete:
            raise StorageForbidden(f"{store}: the server may not delete objects, and must")
