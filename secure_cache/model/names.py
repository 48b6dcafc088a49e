"""Names that come from outside: cache keys, projects and namespaces, each with one spelling.

A namespace's raw id may hold whatever a branch may be called. It is shown and signed as text,
but every storage path uses its SHA-256, so that case-folding stores, `%2F`, Unicode
normalisation, `..` and NUL cannot make two namespaces meet.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import NewType, Self

_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NX_KEY = re.compile(r"[0-9]{1,20}")
_PROJECT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")

MAX_NAMESPACE_ID_BYTES = 512

Key = NewType("Key", str)
"""A build tool's cache key that has passed `parse_key`."""


def parse_key(text: str, *, nx_only: bool = False) -> Key:
    """Check a cache key.

    Args:
        text: the last path segment, undecoded.
        nx_only: accept only what Nx emits (xxh3-64 in decimal).

    Raises:
        ValueError: any other character, an empty key, or one that is too long.
    """
    if (_NX_KEY if nx_only else _KEY).fullmatch(text) is None:
        raise ValueError("a cache key has 1 to 128 letters, digits, '_' or '-'")
    return Key(text)


def check_project(text: str) -> str:
    """Check a project's name and give it back.

    Raises:
        ValueError: not 1 to 64 lower-case letters, digits and inner hyphens.
    """
    if _PROJECT.fullmatch(text) is None:
        raise ValueError("a project's name has 1 to 64 lower-case letters, digits, inner hyphens")
    return text


@dataclass(frozen=True)
class Namespace:
    """What one branch, pull request or queue writes: `project:kind/id`.

    Raises:
        ValueError: a part is outside its grammar. The id may hold any printable text up to
            512 bytes of UTF-8, but no control characters, surrogates or line separators.
    """

    project: str
    kind: str
    id: str

    def __post_init__(self) -> None:
        check_project(self.project)
        if _KIND.fullmatch(self.kind) is None:
            raise ValueError("a namespace's kind has 1 to 32 lower-case letters, digits, hyphens")
        if not self.id or not self.id.isprintable():
            raise ValueError("a namespace's id is printable text")
        if len(self.id.encode()) > MAX_NAMESPACE_ID_BYTES:
            raise ValueError(f"a namespace's id has at most {MAX_NAMESPACE_ID_BYTES} bytes")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `project:kind/id`.

        Raises:
            ValueError: not in that form.
        """
        project, colon, rest = text.partition(":")
        kind, slash, id_ = rest.partition("/")
        if not colon or not slash:
            raise ValueError("a namespace is written project:kind/id")
        return cls(project, kind, id_)

    def __str__(self) -> str:
        return f"{self.project}:{self.kind}/{self.id}"

    @property
    def local(self) -> str:
        """`kind/id`, as it is written inside its own project."""
        return f"{self.kind}/{self.id}"

    @cached_property
    def path(self) -> str:
        """The storage path: `project/kind/<hex SHA-256 of the id>`."""
        return f"{self.project}/{self.kind}/{hashlib.sha256(self.id.encode()).hexdigest()}"
