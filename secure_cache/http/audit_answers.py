"""Answers of the audit API: JSON in ASCII, files to be kept; nothing that a browser would run."""

from collections.abc import Mapping
from typing import Any

from litestar.response import Response

from secure_cache.audit.forms import inert_json

PRIVATE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def json_answer(document: Mapping[str, Any]) -> Response[bytes]:
    return Response(inert_json(document), media_type="application/json", headers=PRIVATE)


def file_answer(data: bytes, name: str, media_type: str) -> Response[bytes]:
    """To be saved, and not shown: what is in it was written by others."""
    return Response(data, media_type=media_type, headers=PRIVATE | attachment(name))


def attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
