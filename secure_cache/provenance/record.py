"""The stored record: the signed envelope, and what is needed to serve its artifact.

    {"v":1,"envelope":{...},"chunks":"<base64 of the concatenated chunk digests>"|null,
     "log":{"batch":"...","position":0}}

A record proves nothing by itself. The envelope proves the entry, the entry proves the chunk
digests (`verify.check_chunk_list`), and `log` is only a hint where the leaf was promised: whoever
uses it checks the leaf that he finds there against the envelope.

A small artifact follows its record in the same object, behind one newline: a build stores thousands
of them, and each object of its own costs two waits for the disk. Its bytes are proved by the entry,
like those of any other artifact.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from secure_cache.model.entry import CHUNK_BYTES
from secure_cache.model.errors import CorruptObject, Malformed
from secure_cache.model.strict_json import load_strict_object
from secure_cache.provenance.dsse import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    decode_base64,
    encode_base64,
)
from secure_cache.provenance.statement import MAX_SAFE_INTEGER

MAX_CHUNKS = 16_384
MAX_ARTIFACT_BYTES = MAX_CHUNKS * CHUNK_BYTES
"""The largest artifact that a record can describe: 64 GiB."""

MAX_RECORD_BYTES = MAX_ENVELOPE_BYTES + MAX_CHUNKS * 32 * 4 // 3 + 1024

INLINE_BYTES = 32 * 1024
"""Artifacts up to this size stand behind their record, in the same object."""

MAX_STORED_BYTES = MAX_RECORD_BYTES + 1 + INLINE_BYTES

_BATCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=/-]{0,199}")


@dataclass(frozen=True, slots=True)
class Record:
    """What stands under a namespace and key. Nothing in it is proved.

    Attributes:
        envelope: the exact bytes of the DSSE envelope, as logged.
        chunks: 32 bytes a chunk; empty for an artifact of up to one chunk.
        batch: the pending batch that the leaf was promised in.
        position: its place there, from 0.
    """

    envelope: bytes
    chunks: bytes
    batch: str
    position: int


class _Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    batch: str
    position: int


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: Literal[1]
    envelope: dict[str, Any]
    chunks: str | None
    log: _Log


def encode_record(record: Record) -> bytes:
    """The one spelling: RFC 8785, put together around the envelope's own bytes.

    The envelope is not read again: every store of an artifact comes through here, right after it
    was signed. Whoever reads a record checks all of it.

    Raises:
        Malformed: more than `MAX_CHUNKS`, half a digest, or no such batch.
    """
    if len(record.chunks) % 32 or len(record.chunks) > 32 * MAX_CHUNKS:
        raise Malformed(f"a record holds up to {MAX_CHUNKS} whole chunk digests")
    if _BATCH.fullmatch(record.batch) is None:
        raise Malformed("not the name of a batch")
    if not 0 <= record.position <= MAX_SAFE_INTEGER:
        raise Malformed("a place in a batch is counted from 0")
    chunks = f'"{encode_base64(record.chunks)}"' if record.chunks else "null"
    return b'{"chunks":%b,"envelope":%b,"log":{"batch":"%b","position":%d},"v":1}' % (
        chunks.encode("ascii"),
        record.envelope,
        record.batch.encode("ascii"),
        record.position,
    )


def parse_record(data: bytes) -> Record:
    """Accept exactly what `encode_record` gives.

    Raises:
        CorruptObject: any other bytes.
    """
    try:
        document = msgspec.convert(load_strict_object(data, max_bytes=MAX_RECORD_BYTES), _Document)
        record = Record(
            envelope=Envelope.of(document.envelope).encode(),
            chunks=b"" if document.chunks is None else decode_base64(document.chunks),
            batch=document.log.batch,
            position=document.log.position,
        )
        canonical = encode_record(record)
    except (ValueError, Malformed) as error:
        raise CorruptObject(f"the record is not well formed: {error}") from error
    if canonical != data:
        raise CorruptObject("the record is not in its canonical form")
    return record


def join_artifact(record: bytes, artifact: bytes) -> bytes:
    """A record and the small artifact that it is about, as one object."""
    return record + b"\n" + artifact


def split_artifact(data: bytes) -> tuple[bytes, bytes | None]:
    """The record's bytes, and the artifact's if it stands behind them. Proves nothing."""
    # A record in its one spelling is one line.
    record, newline, artifact = data.partition(b"\n")
    return record, artifact if newline else None
