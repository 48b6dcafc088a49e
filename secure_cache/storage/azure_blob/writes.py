"""Conditional writes whose outcome is known, even when the answer is lost.

A connection that breaks after the storage has applied a write makes the repeated request fail:
409 for a create, 412 for a replace, by our own hand. So every write carries a random nonce in
the blob's metadata, the same for all its attempts, and whoever is refused or left without an
answer looks whether the nonce that is there is his.
"""

import base64
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock
from azure.storage.blob.aio import BlobClient

from secure_cache.model.errors import AlreadyExists
from secure_cache.storage.azure_blob.container import (
    NONCE_FIELD,
    Container,
    info_of,
    info_of_write,
)
from secure_cache.storage.azure_blob.errors import LOST, AzureFault, Kind
from secure_cache.storage.ports import ObjectInfo

_MAYBE_OURS: Final = LOST | {
    Kind.EXISTS,
    Kind.MISMATCH,
    Kind.FORBIDDEN,
    Kind.IMMUTABLE,
    Kind.BLOCKS_LOST,
}
# What the storage answers instead of "exists": to an identity that may only create, in a
# container of immutable objects, and to a commit whose blocks another commit has dropped.
_INSTEAD_OF_EXISTS: Final = frozenset({Kind.FORBIDDEN, Kind.IMMUTABLE, Kind.BLOCKS_LOST})

Request = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Peeked:
    """What a look found: an object, or that it is missing; neither when nobody can tell."""

    info: ObjectInfo | None = None
    nonce: str | None = None
    missing: bool = False


class _LeftBlocks(AlreadyExists):
    """The name is taken, and yet nothing is there: blocks of an upload that was given up. Azurite
    answers a Put Blob so; of Azure it is not known."""


def new_nonce() -> str:
    return uuid.uuid4().hex


def block_id(nonce: str, index: int) -> str:
    """Unique for each upload, and always of one length: with ids that can be guessed, whoever
    else stages under the name could put his bytes into our list."""
    return base64.b64encode(f"{nonce}{index:08d}".encode()).decode()


async def put_if_absent(
    container: Container, name: str, blob: BlobClient, data: bytes
) -> ObjectInfo:
    """One Put Blob that fails when the name is taken.

    Raises: AlreadyExists, StorageUnavailable, StorageForbidden, Misconfigured.
    """
    nonce = new_nonce()

    async def request() -> dict[str, Any]:
        return await blob.upload_blob(
            data,
            length=len(data),
            overwrite=True,  # judged by the condition; False would hide which 409 it was
            match_condition=MatchConditions.IfMissing,
            metadata={NONCE_FIELD: nonce},
            validate_content="crc64",
        )

    try:
        return await write_once(
            container, "create", name, blob, nonce=nonce, size=len(data), request=request
        )
    except _LeftBlocks:
        return await _commit_if_absent(container, name, blob, data)


async def _commit_if_absent(
    container: Container, name: str, blob: BlobClient, data: bytes
) -> ObjectInfo:
    """As `put_if_absent`, in two requests, which blocks that somebody left do not disturb."""
    nonce = new_nonce()
    block = block_id(nonce, 0)

    async def stage() -> None:
        await blob.stage_block(block, data, length=len(data), validate_content="crc64")

    async def request() -> dict[str, Any]:
        return await blob.commit_block_list(
            [BlobBlock(block_id=block)] if data else [],
            match_condition=MatchConditions.IfMissing,
            metadata={NONCE_FIELD: nonce},
        )

    if data:
        await container.ask("block", name, container.calls.patience.write, stage)
    return await write_once(
        container, "commit", name, blob, nonce=nonce, size=len(data), request=request
    )


async def put_if_unchanged(
    container: Container, name: str, blob: BlobClient, data: bytes, *, expected: str
) -> ObjectInfo:
    """One Put Blob that fails when the object has another version, or is missing.

    Raises: VersionMismatch, StorageUnavailable, StorageForbidden, Misconfigured.
    """
    nonce = new_nonce()

    async def request() -> dict[str, Any]:
        return await blob.upload_blob(
            data,
            length=len(data),
            overwrite=True,
            etag=expected,
            match_condition=MatchConditions.IfNotModified,
            metadata={NONCE_FIELD: nonce},
            validate_content="crc64",
        )

    return await write_once(
        container, "replace", name, blob, nonce=nonce, size=len(data), request=request
    )


async def write_once(
    container: Container,
    operation: str,
    name: str,
    blob: BlobClient,
    *,
    nonce: str,
    size: int,
    request: Request,
) -> ObjectInfo:
    """Make the write and tell its true outcome.

    What is not seen: a write that took effect, lost its answer, and was replaced by another
    writer before we looked. It is told as refused or unknown.

    Args:
        container: where.
        operation: create, replace or commit.
        name: of the object.
        blob: its client.
        nonce: what `request` writes into the metadata.
        size: of what is written, in bytes.
        request: the conditional write.

    Raises: AlreadyExists, VersionMismatch, StorageUnavailable, StorageForbidden, Misconfigured.
    """
    calls = container.calls
    try:
        answer = await calls.run(operation, calls.patience.write, request)
    except AzureFault as fault:
        if fault.kind not in _MAYBE_OURS:
            raise fault.public(operation, name, write=True) from fault
        found = await peek(container, name, blob)
        if found.info is not None and found.nonce == nonce:
            return found.info
        absent = operation != "replace"
        if found.info is not None and absent and fault.kind in _INSTEAD_OF_EXISTS:
            raise AlreadyExists(f"{operation} {name}: {fault.detail}") from fault
        if found.missing and fault.kind is Kind.EXISTS:
            raise _LeftBlocks(f"{operation} {name}: {fault.detail}") from fault
        raise fault.public(operation, name, write=True) from fault
    return info_of_write(name, size, answer)


async def peek(container: Container, name: str, blob: BlobClient) -> Peeked:
    """What is there, and whose."""
    calls = container.calls
    try:
        properties = await calls.run("peek", calls.patience.peek, blob.get_blob_properties)
    except AzureFault as fault:
        return Peeked(missing=fault.kind is Kind.MISSING)
    return Peeked(info_of(name, properties), (properties.metadata or {}).get(NONCE_FIELD))
