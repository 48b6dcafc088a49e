"""Rows for people and programs: one JSON object, or one line of CSV.

What claims hold was chosen by strangers. JSON is written in ASCII, so that no terminal sees a
control character, and a cell of CSV never begins as a formula would.
"""

import base64
import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from secure_cache.audit.row import COLUMNS, Row
from secure_cache.model.clock import rfc3339
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.tlog_proof import TlogProof

_NAMES = {"number": "index", "leaf": "leaf_hash", "at": "time"}
CSV_COLUMNS = tuple(_NAMES.get(name, name) for name in COLUMNS)

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def row_document(row: Row) -> dict[str, Any]:
    """A row as a JSON object, without what it does not say."""
    document = {
        _NAMES.get(name, name): value
        for name, value in zip(COLUMNS, row, strict=True)
        if value is not None
    }
    document["leaf_hash"] = row.leaf.hex()
    if row.at is not None:
        document["time"] = rfc3339(row.at)
    if row.detail is not None:
        document["detail"] = json.loads(row.detail)
    return document


def inert_json(value: object, *, indent: int | None = None) -> bytes:
    """JSON in ASCII."""
    return json.dumps(value, ensure_ascii=True, indent=indent).encode("ascii")


def json_line(row: Row) -> bytes:
    return inert_json(row_document(row)) + b"\n"


def csv_header() -> bytes:
    return _csv([CSV_COLUMNS])


def csv_lines(rows: Iterable[Row]) -> bytes:
    return _csv([_cell(row_document(row).get(name)) for name in CSV_COLUMNS] for row in rows)


def _csv(lines: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode("utf-8")


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    # A spreadsheet takes these for the beginning of a formula, also behind blanks.
    return f"'{shown}" if shown.lstrip(" ").startswith(_FORMULA) else shown


def proof_document(proof: TlogProof, checkpoint: Checkpoint) -> dict[str, Any]:
    """An inclusion proof in the base64 of C2SP."""
    return {
        "index": proof.index,
        "size": checkpoint.size,
        "root": base64.b64encode(checkpoint.root).decode("ascii"),
        "hashes": [base64.b64encode(hash_).decode("ascii") for hash_ in proof.hashes],
        "checkpoint": proof.checkpoint.decode("utf-8"),
    }
