"""What may stand in a log line: no secret, no character that acts, nothing long.

A claim, a path or a header value is written by a stranger. Escape sequences would rewrite the
terminal of whoever reads the log, bidi controls would show one name for another, a newline would
forge a line, and a token that is logged is a token that is stolen. So every value of every event
passes here, last before it is rendered, however deep it is nested.
"""

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

MAX_CHARACTERS = 512
MAX_ITEMS = 32
MAX_DEPTH = 4

REDACTED = "[redacted]"

_REMEMBERED_CHARACTERS = 96
_REMEMBERED_TEXTS = 4096

_SECRET_NAMES = frozenset(
    {
        "access_token",
        "authorization",
        "bearer",
        "connection_string",
        "cookie",
        "id_token",
        "password",
        "private_key",
        "proxy_authorization",
        "secret",
        "set_cookie",
        "subject_token",
        "token",
    }
)

_SECRETS = re.compile(
    r"""
      -----BEGIN[A-Z ]*PRIVATE\ KEY-----.*          # PEM, to the end of the text
    | eyJ[A-Za-z0-9_=-]{6,}(?:\.[A-Za-z0-9_=-]*)* # a JWT, or the start of one
    | cch_[A-Za-z0-9_.=-]+                        # our own opaque tokens
    | gh[a-z]_[A-Za-z0-9]{16,}                    # GitHub
    | github_pat_[A-Za-z0-9_]{16,}
    | gl[a-z]{2,8}-[A-Za-z0-9_.-]{16,}            # GitLab
    | (?i:bearer|basic|authorization)[:=\s]+\S+(?:\s+\S+)?
    | (?i:(?:AccountKey|SharedAccessSignature|sig|password|token)=)[^\s;&"']+
    """,
    re.VERBOSE | re.DOTALL,
)

_HINTS = ("eyj", "cch_", "gh", "gl", "bearer", "basic", "auth", "key", "sig", "password=", "token=")
"""Each alternative of `_SECRETS` holds one of these. Looking for them first is five times as fast,
and every request writes a line."""


class Cleaned(list[str]):
    """Lines that have passed `clean_text` already, such as those of a traceback."""


def clean_text(text: str, *, max_characters: int = MAX_CHARACTERS) -> str:
    """One printable line without secrets, at most about `max_characters` long."""
    cut = len(text) > max_characters
    if cut:
        # Wide enough that what remains of a token after the cut is still seen as one.
        text = text[: 2 * max_characters]
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        text = _SECRETS.sub(REDACTED, text)
    if not text.isprintable():
        text = "".join(map(_visible, text))
    if cut or len(text) > max_characters:
        text = text[:max_characters] + "..."
    return text


def _visible(character: str) -> str:
    """Controls, bidi and other format characters, odd spaces, surrogates: as an escape."""
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def clean(value: object, *, depth: int = 0) -> Any:  # noqa: PLR0911 - one line for each type
    """The same for any value; what is no plain data becomes its text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Cleaned):
        return list(value)
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        pairs = list(value.items())[:MAX_ITEMS]
        return {clean_text(str(name)): _named(str(name), item, depth + 1) for name, item in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item, depth=depth + 1) for item in list(value)[:MAX_ITEMS]]
    if isinstance(value, bytes | bytearray | memoryview):
        return clean_text(bytes(value[: 2 * MAX_CHARACTERS]).decode("latin-1"))
    return clean_text(str(value))


def _named(name: str, value: object, depth: int) -> Any:
    if name.lower().replace("-", "_") in _SECRET_NAMES:
        return REDACTED
    return clean(value, depth=depth)


class Redactor:
    """The structlog processor: every value of the event, last before rendering.

    Most values of most lines are the same few words, and looking a word up is ten times as fast
    as searching it. Only short texts that needed no change are remembered, so that nothing which
    looked like a secret stays in memory.
    """

    def __init__(self) -> None:
        self._clean: set[str] = set()

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> dict[str, Any]:
        return {name: self._value(name, value) for name, value in event.items()}

    def _value(self, name: str, value: object) -> Any:
        if name in _SECRET_NAMES:
            return REDACTED
        if type(value) is not str or len(value) > _REMEMBERED_CHARACTERS:
            return _named(name, value, 0)
        if value in self._clean:
            return value
        cleaned = _named(name, value, 0)
        if cleaned == value:
            if len(self._clean) >= _REMEMBERED_TEXTS:
                self._clean.clear()
            self._clean.add(value)
        return cleaned
