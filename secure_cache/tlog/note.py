"""C2SP signed notes: text, and signature lines by named keys. Pure but for signing.

    <text, its last line ended by a newline>
    <empty line>
    — <key name> base64(key id, 4 bytes || signature)          one line or more

A signature by a key that nobody here knows is ignored; one by a known key that fails rejects
the whole note; a note that no known key signed is rejected. Parsing accepts exactly what
formatting emits.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secure_cache.model.errors import LogInconsistent, Malformed

ED25519 = 0x01
MAX_NOTE_BYTES = 65_536
MAX_SIGNATURES = 100

_LINE = re.compile(r"— (\S+) (\S+)")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. `value` is what follows the key id."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"— {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note that is well formed. Nothing of it is verified."""

    unverified_text: str
    unverified_signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take a note apart.

        Raises:
            Malformed: too large, not UTF-8, control characters, no blank line before the
                signatures, no signature, or any line that is not a signature line.
        """
        text, lines = _split(data)
        signatures = tuple(_parse_line(line) for line in lines)
        note = cls(text, signatures)
        if bytes(note) != data:
            raise Malformed("the note is not in canonical form")
        return note

    def __bytes__(self) -> bytes:
        lines = "".join(str(signature) for signature in self.unverified_signatures)
        return f"{self.unverified_text}\n{lines}".encode()


@dataclass(frozen=True, slots=True)
class VerifiedNote:
    """A note that at least one known key signed.

    Attributes:
        text: what was signed.
        signatures: those that were verified.
        unverified_signatures: those by keys that nobody here knows.
    """

    text: str
    signatures: tuple[Signature, ...]
    unverified_signatures: tuple[Signature, ...]


class Verifier(Protocol):
    """Knows one key."""

    @property
    def name(self) -> str: ...

    @property
    def key_id(self) -> bytes:
        """4 bytes."""
        ...

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raises: LogInconsistent."""
        ...


class NoteSigner(Protocol):
    """Holds, or asks a service that holds, the log's private key."""

    @property
    def name(self) -> str: ...

    @property
    def key_id(self) -> bytes: ...

    @property
    def verifier(self) -> Verifier: ...

    async def sign(self, text: bytes) -> bytes:
        """The signature alone, without the key id.

        Signing the same text twice must give the same bytes, so that all replicas publish one
        and the same checkpoint. Raises: Unavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ed25519Verifier:
    """A public key and its name. Written as a vkey: `name+hash+base64(type || key)`."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != 32:
            raise Malformed("an Ed25519 public key has 32 bytes")

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read a vkey of type 0x01.

        Raises:
            Malformed: not canonical, another type, or the hash is not that of the key.
        """
        match = _VKEY.fullmatch(vkey)
        if match is None:
            raise Malformed("a vkey is name+hash+key")
        raw = decode_base64(match[3])
        if raw[:1] != bytes([ED25519]):
            raise Malformed("not the vkey of an Ed25519 note key")
        verifier = cls(match[1], raw[1:])
        if str(verifier) != vkey:
            raise Malformed("the hash in the vkey is not that of its key")
        return verifier

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, ED25519, self.public_key)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raises: LogInconsistent."""
        verify_ed25519(self.public_key, text, signature)

    def __str__(self) -> str:
        key = base64.b64encode(bytes([ED25519]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"


class Ed25519NoteSigner:
    """Signs with a key held in memory. `seed` is the 32-byte private key."""

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != 32:
            raise Malformed("an Ed25519 seed has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._verifier = Ed25519Verifier(name, self._key.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        return self._verifier.name

    @property
    def key_id(self) -> bytes:
        return self._verifier.key_id

    @property
    def verifier(self) -> Ed25519Verifier:
        return self._verifier

    async def sign(self, text: bytes) -> bytes:
        return self._key.sign(text)


def open_note(data: bytes, verifiers: Sequence[Verifier]) -> VerifiedNote:
    """Parse a note and check every signature whose key is known.

    Raises:
        Malformed: it is not a note, or two verifiers answer to the same name and key id.
        LogInconsistent: a known key's signature fails, or no known key signed.
    """
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    if len(known) != len(verifiers):
        raise Malformed("two verifiers with the same name and key id")
    note = Note.parse(data)
    text = note.unverified_text.encode()
    verified: list[Signature] = []
    unknown: list[Signature] = []
    for signature in note.unverified_signatures:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None:
            unknown.append(signature)
            continue
        verifier.verify(text, signature.value)
        verified.append(signature)
    if not verified:
        raise LogInconsistent("no known key has signed the note")
    return VerifiedNote(note.unverified_text, tuple(verified), tuple(unknown))


async def sign_note(text: str, signer: NoteSigner) -> bytes:
    """A note with one signature, which is verified before it is given out.

    Raises:
        Malformed: the text can not stand in a note.
        LogInconsistent: the signer gave a signature that does not verify.
        Unavailable: the signer did not answer.
    """
    check_text(text)
    value = await signer.sign(text.encode())
    data = bytes(Note(text, (Signature(signer.name, signer.key_id, value),)))
    open_note(data, [signer.verifier])
    return data


def key_id(name: str, algorithm: int, public_key: bytes) -> bytes:
    """The first 4 bytes of SHA-256(name || newline || algorithm || public key)."""
    data = name.encode() + b"\n" + bytes([algorithm]) + public_key
    return hashlib.sha256(data).digest()[:4]


def check_key_name(name: str) -> str:
    """Check a key's name and give it back.

    Raises:
        Malformed: empty, or with a space, a `+` or a control character.
    """
    if not name or "+" in name or any(c.isspace() or c < " " or c == "\x7f" for c in name):
        raise Malformed("a key's name has no spaces, no '+' and is not empty")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise Malformed("a key's name is UTF-8") from error
    return name


def check_text(text: str) -> str:
    """Check a note's text and give it back.

    Raises:
        Malformed: empty, not ended by a newline, or with control characters.
    """
    if not text.endswith("\n"):
        raise Malformed("a note's text ends in a newline")
    if any(c < " " and c != "\n" for c in text):
        raise Malformed("a note holds no control characters")
    return text


def decode_base64(text: str) -> bytes:
    """Standard base64 with padding, in its one canonical spelling.

    Raises:
        Malformed: anything else, such as blanks, missing padding or stray low bits.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise Malformed("not canonical base64")
    return raw


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Raises: LogInconsistent."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise LogInconsistent("a signature of a known key does not verify") from error


def _split(data: bytes) -> tuple[str, list[str]]:
    if len(data) > MAX_NOTE_BYTES:
        raise Malformed("the note is too large")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise Malformed("the note is not UTF-8") from error
    head, blank, tail = whole.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise Malformed("the note has no signatures after a blank line")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Malformed("the note has too many signatures")
    return check_text(head + "\n"), lines


def _parse_line(line: str) -> Signature:
    match = _LINE.fullmatch(line)
    if match is None:
        raise Malformed("not a signature line")
    raw = decode_base64(match[2])
    if len(raw) < 5:
        raise Malformed("a signature line without a signature")
    return Signature(check_key_name(match[1]), raw[:4], raw[4:])
