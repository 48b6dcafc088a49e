"""An `Identity` as a JSON document: signed into statements, carried by session tokens.

One identity has one document: `parse_identity` accepts exactly what `identity_document` gives.
Numbers stay inside what RFC 8785 can write, so that a signature over the canonical form survives
a round trip.
"""

import math
import re
from typing import Any

from secure_cache.model.identity import ClaimValue, Identity
from secure_cache.model.strict_json import has_surrogate

MAX_CLAIM_BYTES = 1024
MAX_CLAIMS = 96
MAX_LIST_ITEMS = 64
MAX_SAFE_INTEGER = 2**53 - 1

_TOKEN_ID = re.compile(r"[0-9a-f]{64}")
_REQUIRED = frozenset({"claims", "exp", "iat", "iss", "issuer", "sub", "token_id"})
_OPTIONAL = frozenset({"family"})


def identity_document(identity: Identity) -> dict[str, Any]:
    """The document of an identity: `issuer`, `iss`, `sub`, `claims` (an object), `token_id`,
    `iat`, `exp` (whole seconds), and `family` where there is one.

    Raises:
        ValueError: the identity holds what no document can: see `parse_identity`.
    """
    document: dict[str, Any] = {
        "issuer": identity.issuer,
        "iss": identity.iss,
        "sub": identity.subject,
        "claims": {name: _to_json(value) for name, value in identity.claims},
        "token_id": identity.token_id,
        "iat": identity.issued_at,
        "exp": identity.expires_at,
    }
    if identity.family is not None:
        document["family"] = identity.family
    if parse_identity(document) != identity:
        raise ValueError("the identity's claims are not sorted, or not unique")
    return document


def parse_identity(document: object) -> Identity:
    """The inverse of `identity_document`.

    Args:
        document: as the strict JSON loader gave it.

    Raises:
        ValueError: a member too many or too few, a wrong type, a string with a lone surrogate
            or of more than `MAX_CLAIM_BYTES`, a number that has no canonical form, or more
            claims or items than the limits.
    """
    if not isinstance(document, dict):
        raise ValueError("an identity is a JSON object")  # noqa: TRY004 - one error for callers
    names = set(document)
    if not names >= _REQUIRED or not names <= _REQUIRED | _OPTIONAL:
        raise ValueError("an identity has other members than expected")
    family = document.get("family")
    if "family" in document and not isinstance(family, str):
        raise ValueError("an identity's family is a string")
    token_id = _text(document["token_id"])
    if _TOKEN_ID.fullmatch(token_id) is None:
        raise ValueError("an identity's token_id is a lower-case hex SHA-256")
    return Identity(
        issuer=_text(document["issuer"]),
        iss=_text(document["iss"]),
        subject=_text(document["sub"]),
        claims=_claims(document["claims"]),
        token_id=token_id,
        family=None if family is None else _text(family),
        issued_at=_time(document["iat"]),
        expires_at=_time(document["exp"]),
    )


def check_claim_value(value: object) -> ClaimValue:
    """A claim from JSON as it stands in an `Identity`: lists become tuples, whole floats become
    integers, so that equal claims are equal in every spelling.

    Raises:
        ValueError: an object, or outside the limits named in `parse_identity`.
    """
    if isinstance(value, list | tuple):
        if len(value) > MAX_LIST_ITEMS:
            raise ValueError(f"a claim has more than {MAX_LIST_ITEMS} items")
        return tuple(_scalar(item) for item in value)
    return _scalar(value)


def _scalar(value: object) -> ClaimValue:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_text(value)
        return value
    if isinstance(value, int | float):
        return _number(value)
    raise ValueError("a claim is a string, number, boolean, null, or a list of them")


def _number(value: float) -> int | float:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a claim is not a finite number")
        if not value.is_integer():
            return value
    if abs(value) > MAX_SAFE_INTEGER:
        raise ValueError("a claim is a number that JSON readers do not agree on")
    return int(value)


def check_text(text: str) -> None:
    """Check that a string can be written, and is of a bearable size.

    Raises:
        ValueError: a lone surrogate, or more than `MAX_CLAIM_BYTES` of UTF-8.
    """
    if has_surrogate(text):
        raise ValueError("a claim holds a lone surrogate")
    if len(text.encode()) > MAX_CLAIM_BYTES:
        raise ValueError(f"a claim has more than {MAX_CLAIM_BYTES} bytes")


def _claims(document: object) -> tuple[tuple[str, ClaimValue], ...]:
    if not isinstance(document, dict) or len(document) > MAX_CLAIMS:
        raise ValueError(f"an identity's claims are an object of at most {MAX_CLAIMS} members")
    return tuple(sorted((_text(name), _from_json(value)) for name, value in document.items()))


def _from_json(value: object) -> ClaimValue:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, float) and item.is_integer():
            raise ValueError("a claim is a whole number written as a float")
    return check_claim_value(value)


def _to_json(value: ClaimValue) -> Any:
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("an identity's member is not a non-empty string")
    check_text(value)
    return value


def _time(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SAFE_INTEGER:
        raise ValueError("an identity's time is whole seconds since 1970")
    return value
