"""C2SP tlog-policy: which logs and witnesses count, and how many witnesses are enough. Pure.

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <name>...
    quorum <name>|none

Names are opaque bytes and mean nothing outside the file. Each may be a member of one group only,
so that no witness counts twice.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.checkpoint import Checkpoint, parse_number
from secure_cache.tlog.cosignature import CosignerKey, parse_cosigner_key
from secure_cache.tlog.note import Ed25519Verifier, Signature, Verifier, open_note

MAX_POLICY_BYTES = 1 << 20
MAX_LOGS = MAX_GROUPS = 256
MAX_WITNESSES = 64
"""A note has at most 100 signatures, and the log's own is one of them."""

_NONE = b"none"
_ALLOWED = frozenset((0x09, 0x0A, *range(0x20, 0x7F), *range(0x80, 0x100)))


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A log whose checkpoints count. Its key's name is its origin."""

    verifier: Ed25519Verifier
    url: str | None


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A witness. `url` is where checkpoints are submitted; offline nobody needs it."""

    name: bytes
    verifier: CosignerKey
    url: str | None

    @property
    def label(self) -> str:
        """Its name, for people."""
        return self.name.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Group:
    """Has witnessed what at least `threshold` of its members have."""

    threshold: int
    members: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that the policy accepts.

    Attributes:
        checkpoint: what it says.
        cosignatures: the verified ones, by the witness's name in the policy.
    """

    checkpoint: Checkpoint
    cosignatures: Mapping[bytes, Signature]


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """One policy file.

    Attributes:
        logs: any of them; empty where the log is known otherwise.
        witnesses: in the file's order.
        groups: by name.
        quorum: a witness's or group's name, or None when no witness is needed.
    """

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: Mapping[bytes, Group]
    quorum: bytes | None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a policy file.

        Raises:
            Malformed: names the line and what is wrong with it.
        """
        if len(data) > MAX_POLICY_BYTES:
            raise Malformed("the witness policy is too large")
        if not _ALLOWED.issuperset(data):
            raise Malformed("the witness policy has control characters")
        if data and not data.endswith(b"\n"):
            raise Malformed("the last line of the witness policy has no end: it may be cut short")
        reading = _Reading()
        for number, line in enumerate(data.split(b"\n"), 1):
            words = line.replace(b"\t", b" ").split(b" ")
            words = [word for word in words if word]
            if not words or words[0].startswith(b"#"):
                continue
            try:
                reading.line(words[0], words[1:])
            except Malformed as error:
                raise Malformed(f"line {number} of the witness policy: {error}") from error
        if not reading.has_quorum:
            raise Malformed("the witness policy has no quorum line")
        return cls(
            tuple(reading.logs), tuple(reading.witnesses), dict(reading.groups), reading.quorum
        )

    def is_quorum(self, names: Collection[bytes]) -> bool:
        """Whether these witnesses together are enough."""
        return self.quorum is None or self._has_witnessed(self.quorum, names)

    def _has_witnessed(self, name: bytes, names: Collection[bytes]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in names
        seen = sum(self._has_witnessed(member, names) for member in group.members)
        return seen >= group.threshold

    def cosignatures(self, signatures: Sequence[Signature]) -> dict[bytes, Signature]:
        """Those of the policy's witnesses, by name. Verifies nothing."""
        known = {(w.verifier.name, w.verifier.key_id): w.name for w in self.witnesses}
        found = ((known.get((item.name, item.key_id)), item) for item in signatures)
        return {name: item for name, item in found if name is not None}

    def verify(self, note: bytes, *, log: Verifier | None = None) -> Witnessed:
        """Check a signed checkpoint by this policy.

        Args:
            note: the checkpoint with its signatures.
            log: the log's key, if it is known otherwise; then the policy's own logs do not count.

        Raises:
            Malformed: it is not a checkpoint.
            LogInconsistent: no known log signed it, a known key's signature fails, or the
                witnesses that cosigned it are not enough.
        """
        logs = [entry.verifier for entry in self.logs] if log is None else [log]
        opened = open_note(note, [*logs, *(witness.verifier for witness in self.witnesses)])
        checkpoint = Checkpoint.parse(opened.text)
        signed = {(item.name, item.key_id) for item in opened.signatures}
        origins = {entry.name for entry in logs if (entry.name, entry.key_id) in signed}
        if checkpoint.origin not in origins:
            raise LogInconsistent(f"the checkpoint of {checkpoint.origin!r} is not signed by it")
        cosignatures = self.cosignatures(opened.signatures)
        if not self.is_quorum(cosignatures.keys()):
            names = b", ".join(sorted(cosignatures)).decode(errors="replace") or "nobody"
            raise LogInconsistent(f"the checkpoint is not witnessed enough: cosigned by {names}")
        return Witnessed(checkpoint, cosignatures)


@dataclass(slots=True)
class _Reading:
    """What the lines so far have said."""

    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: list[PolicyWitness] = field(default_factory=list)
    groups: dict[bytes, Group] = field(default_factory=dict)
    quorum: bytes | None = None
    has_quorum: bool = False
    _names: set[bytes] = field(default_factory=set)
    _members: set[bytes] = field(default_factory=set)
    _keys: set[bytes] = field(default_factory=set)
    _ids: set[tuple[str, bytes]] = field(default_factory=set)

    def line(self, keyword: bytes, words: list[bytes]) -> None:
        """Raises: Malformed."""
        lines: dict[bytes, Callable[[list[bytes]], None]] = {
            b"log": self._log,
            b"witness": self._witness,
            b"group": self._group,
            b"quorum": self._quorum,
        }
        if keyword not in lines:
            raise Malformed(f"{_shown(keyword)} is none of log, witness, group, quorum")
        lines[keyword](words)

    def _log(self, words: list[bytes]) -> None:
        _check_count(words, 1, 2, "log <vkey> [<url>]")
        if len(self.logs) >= MAX_LOGS:
            raise Malformed(f"more than {MAX_LOGS} logs")
        verifier = Ed25519Verifier.parse(_text(words[0]))
        if any(verifier.public_key == log.verifier.public_key for log in self.logs):
            raise Malformed("this log's key stands there twice")
        self._add_id(verifier)
        self.logs.append(PolicyLog(verifier, _url(words[1:])))

    def _witness(self, words: list[bytes]) -> None:
        _check_count(words, 2, 3, "witness <name> <vkey> [<url>]")
        if len(self.witnesses) >= MAX_WITNESSES:
            raise Malformed(f"more than {MAX_WITNESSES} witnesses")
        verifier = parse_cosigner_key(_text(words[1]))
        if verifier.public_key in self._keys:
            raise Malformed("this witness's key stands there twice")
        self._add_id(verifier)
        self._add_name(words[0])
        self._keys.add(verifier.public_key)
        self.witnesses.append(PolicyWitness(words[0], verifier, _url(words[2:])))

    def _group(self, words: list[bytes]) -> None:
        _check_count(words, 3, 2 + MAX_GROUPS + MAX_WITNESSES, "group <name> all|any|<k> <name>...")
        if len(self.groups) >= MAX_GROUPS:
            raise Malformed(f"more than {MAX_GROUPS} groups")
        name, rule, *members = words
        for member in members:
            self._require_name(member)
            if member in self._members:
                raise Malformed(f"{_shown(member)} is a member already")
            self._members.add(member)
        self._add_name(name)
        self.groups[name] = Group(_threshold(rule, len(members)), tuple(members))

    def _quorum(self, words: list[bytes]) -> None:
        _check_count(words, 1, 1, "quorum <name>|none")
        if self.has_quorum:
            raise Malformed("a second quorum line")
        self.has_quorum = True
        if words[0] != _NONE:
            self._require_name(words[0])
            self.quorum = words[0]

    def _add_name(self, name: bytes) -> None:
        if name == _NONE or name in self._names:
            raise Malformed(f"the name {_shown(name)} is taken")
        self._names.add(name)

    def _require_name(self, name: bytes) -> None:
        if name not in self._names:
            raise Malformed(f"no line before this one defines {_shown(name)}")

    def _add_id(self, verifier: Verifier) -> None:
        # Of two keys with one name and id nobody could tell which one signed.
        key = (verifier.name, verifier.key_id)
        if key in self._ids:
            raise Malformed("two keys with the same name and key id")
        self._ids.add(key)


def _threshold(rule: bytes, members: int) -> int:
    if rule == b"all":
        return members
    if rule == b"any":
        return 1
    threshold = parse_number(_text(rule))
    if not 1 <= threshold <= members:
        raise Malformed(f"a group of {members} can not ask for {threshold}")
    return threshold


def _check_count(words: Sequence[bytes], least: int, most: int, form: str) -> None:
    if not least <= len(words) <= most:
        raise Malformed(f"its form is: {form}")


def _url(words: Sequence[bytes]) -> str | None:
    return _text(words[0]) if words else None


def _text(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError as error:
        raise Malformed("a key, a number or a URL that is not UTF-8") from error


def _shown(name: bytes) -> str:
    return ascii(name[:80].decode(errors="replace"))
