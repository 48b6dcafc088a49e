"""The key folder: entry keys, token keys and the log's key, and how they change.

    keys.json                the rings: every key's id, algorithm, time and status
    entry-<key id>.pem       PKCS #8, for each key that may still sign
    token-<key id>.pem
    log.key                  PRIVATE+KEY+<origin>+<hash>+<base64>, as Go's note tools read it

`keys.json` decides: a private key that it does not name is what a crash left behind, and is
ignored. The folder has mode 0700 and its files 0600; keys that others can read are refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secure_cache.core.key_files import (
    locked,
    new_private_folder,
    read_private_file,
    sync_folder,
    write_private_file,
)
from secure_cache.core.key_manifest import (
    LOG_KEY,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Manifest,
    format_log_key,
    parse_log_key,
    private_name,
)
from secure_cache.identity.presets.self_issued import MAX_LIFETIME_SECONDS
from secure_cache.model.clock import LEEWAY_SECONDS
from secure_cache.model.errors import Malformed, Misconfigured
from secure_cache.provenance.algorithms import Algorithm, load_public_pem
from secure_cache.provenance.keys import KeyRing, KeyStatus, PublicKey, ring_of
from secure_cache.provenance.signers import (
    LocalSigner,
    SigningKey,
    generate_key,
    load_private_pem,
    private_pem,
    signer_for,
)
from secure_cache.tlog.note import Ed25519NoteSigner, check_key_name

ENTRY_OVERLAP_SECONDS = 86_400
"""How long after a rotation a server that has not read its keys again may sign with the old key."""

_MAX_KEY_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class TokenKey:
    """The key that signs new tokens (EdDSA); `kid` goes into their header."""

    kid: str
    private_key: Ed25519PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keystore:
    """The keys of one server, as read at one moment.

    Attributes:
        ring: every entry key, whatever its status.
        token_ring: every token key, whatever its status.
        log: signs checkpoints under the log's origin; `log.verifier` is its vkey.
    """

    ring: KeyRing
    token_ring: KeyRing
    log: Ed25519NoteSigner
    _entry_keys: Mapping[str, SigningKey] = field(repr=False)
    _token_keys: Mapping[str, SigningKey] = field(repr=False)

    def entry_signer(self, at: float) -> LocalSigner:
        """The newest entry key that may sign now.

        Raises:
            Misconfigured: there is none.
        """
        return signer_for(self._entry_keys[_newest(self.ring, self._entry_keys, at, "entry")])

    def token_signer(self, at: float) -> TokenKey:
        """The newest token key that may sign now.

        Raises:
            Misconfigured: there is none.
        """
        kid = _newest(self.token_ring, self._token_keys, at, "token")
        key = self._token_keys[kid]
        if not isinstance(key, Ed25519PrivateKey):
            raise Misconfigured(f"token key {kid} is not an Ed25519 key")
        return TokenKey(kid, key)

    def token_public_keys(self, at: float) -> dict[str, Ed25519PublicKey]:
        """By `kid`, the keys whose tokens are accepted now: a retired key stays until the last
        token that it can have signed has expired."""
        accepted = {}
        for key in self.token_ring.keys:
            public = load_public_pem(key.pem, key.algorithm)
            if (
                key.status is not KeyStatus.REVOKED
                and (key.not_after is None or at <= key.not_after)
                and isinstance(public, Ed25519PublicKey)
            ):
                accepted[key.keyid] = public
        return accepted

    def vkeys(self) -> str:
        """The log's verifier keys, one a line, as `/log/vkeys` shows them."""
        return f"{self.log.verifier}\n"

    def public_text(self) -> str:
        """Everything public, for people: vkey, and id, time, status and PEM of each key."""
        parts = [f"log {self.log.verifier}"]
        for name, ring in (("entry", self.ring), ("token", self.token_ring)):
            parts += [_describe(name, key) for key in ring.keys]
        return "\n\n".join(parts) + "\n"


def create_keystore(
    folder: Path, *, log_origin: str, now: float, algorithm: Algorithm = Algorithm.ED25519
) -> Keystore:
    """Make the key folder with one key of each kind; it appears whole or not at all.

    Args:
        folder: the key folder itself, such as `DIR/keys`.
        log_origin: the log's name in its checkpoints, a URL without scheme.
        now: seconds since 1970.
        algorithm: of the entry key. Token and log keys are always Ed25519.

    Raises:
        Misconfigured: there is one already, the folder cannot be written, or the origin cannot
            be a log's name.
    """
    try:
        check_key_name(log_origin)
    except Malformed as error:
        raise Misconfigured(f"{log_origin!r} cannot name a log: {error}") from error
    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    with new_private_folder(folder) as draft:
        write_private_file(draft / LOG_KEY, format_log_key(log_origin, seed))
        entry = _new_key(draft, "entry", algorithm, start=now)
        token = _new_key(draft, "token", Algorithm.ED25519, start=now)
        vkey = str(Ed25519NoteSigner(log_origin, seed).verifier)
        manifest = Manifest(ring_of([entry]), ring_of([token]), vkey)
        write_private_file(draft / MANIFEST, manifest.encode())
    return load_keystore(folder)


def load_keystore(folder: Path) -> Keystore:
    """Read the key folder.

    Raises:
        Misconfigured: missing, readable by others, not well formed, or a file that does not fit
            the ring. The message names the file.
    """
    with locked(folder, to_change=False):
        manifest = _read_manifest(folder)
        try:
            log = parse_log_key(read_private_file(folder / LOG_KEY, max_bytes=_MAX_KEY_BYTES))
        except ValueError as error:
            raise Misconfigured(f"{folder / LOG_KEY} is {error}") from None
        if str(log.verifier) != manifest.log_vkey:
            raise Misconfigured(f"{folder / LOG_KEY} is not the log key that {MANIFEST} names")
        return Keystore(
            ring=manifest.entry,
            token_ring=manifest.token,
            log=log,
            _entry_keys=_private_keys(folder, "entry", manifest.entry),
            _token_keys=_private_keys(folder, "token", manifest.token),
        )


def rotate(
    folder: Path,
    which: str,
    now: float,
    *,
    algorithm: Algorithm = Algorithm.ED25519,
    lead_seconds: int = 0,
    overlap_seconds: int | None = None,
) -> PublicKey:
    """Make a new key the active one and retire the one before it.

    Args:
        folder: the key folder.
        which: `entry` or `token`.
        now: seconds since 1970.
        algorithm: of a new entry key.
        lead_seconds: the new key signs only from then on, so that every server has read it
            before it meets its first signature.
        overlap_seconds: how long the old key's signatures still hold once the new key signs.
            By default a day for entries, and the longest life of a token for tokens.

    1. the new private key, durable                crash: an unnamed file, ignored
    2. `keys.json` replaced                        crash: the old state or the new
    3. private keys that may sign no more removed  crash: the next change removes them

    Raises:
        Misconfigured: no such kind of key, or as `load_keystore`.
    """
    _require_rotatable(which)
    with locked(folder, to_change=True):
        manifest = _read_manifest(folder)
        start = int(now) + lead_seconds
        fresh = _new_key(
            folder, which, algorithm if which == "entry" else Algorithm.ED25519, start=start
        )
        default = ENTRY_OVERLAP_SECONDS if which == "entry" else MAX_LIFETIME_SECONDS
        until = start + (default if overlap_seconds is None else overlap_seconds)
        ring = ring_of(
            [*(_retired(key, until) for key in manifest.ring(which).keys), fresh],
        )
        _publish(folder, manifest.with_ring(which, ring), now)
    return fresh


def revoke(folder: Path, keyid: str, now: float) -> PublicKey:
    """Take back a key: from now on nothing that it signed verifies, whatever its date.

    When no active key of its kind would be left to sign now, a new one is made in the same step.

    Raises:
        Misconfigured: no such key, or as `load_keystore`.
    """
    with locked(folder, to_change=True):
        manifest = _read_manifest(folder)
        which = next((name for name in ("entry", "token") if keyid in manifest.ring(name)), None)
        if which is None:
            raise Misconfigured(f"no entry or token key has the id {keyid}")
        keys = [
            replace(key, status=KeyStatus.REVOKED) if key.keyid == keyid else key
            for key in manifest.ring(which).keys
        ]
        revoked = next(key for key in keys if key.keyid == keyid)
        if not _has_begun(keys, now):
            keys.append(_new_key(folder, which, revoked.algorithm, start=now))
        _publish(folder, manifest.with_ring(which, ring_of(keys)), now)
    return revoked


def _require_rotatable(which: str) -> None:
    if which == "log":
        raise Misconfigured(
            "the log's key cannot be rotated: it is the log's identity, and whoever pinned it "
            "would see another log. Open a new log, with its own origin and key, instead"
        )
    if which not in ("entry", "token"):
        raise Misconfigured(f"there is no kind of key {which!r}: it is entry or token")


def _publish(folder: Path, manifest: Manifest, now: float) -> None:
    write_private_file(folder / MANIFEST, manifest.encode())
    for which in ("entry", "token"):
        keys = manifest.ring(which).keys
        superseded = _has_begun(keys, now)
        for key in keys:
            if key.status is KeyStatus.REVOKED or (key.status is KeyStatus.RETIRED and superseded):
                (folder / private_name(which, key.keyid)).unlink(missing_ok=True)
    sync_folder(folder)


def _has_begun(keys: Iterable[PublicKey], now: float) -> bool:
    return any(key.status is KeyStatus.ACTIVE and key.not_before <= now for key in keys)


def _retired(key: PublicKey, until: int) -> PublicKey:
    if key.status is not KeyStatus.ACTIVE:
        return key
    return replace(key, status=KeyStatus.RETIRED, not_after=max(until, key.not_before))


def _newest(ring: KeyRing, private: Mapping[str, SigningKey], at: float, which: str) -> str:
    usable = [
        key
        for key in ring.keys
        if key.keyid in private
        and key.not_before <= int(at)
        and (key.not_after is None or int(at) <= key.not_after)
    ]
    if not usable:
        raise Misconfigured(f"no {which} key may sign now: run `secure-cache keys rotate {which}`")
    # The active one first: a rotation within the second of the creation leaves two of one age.
    return max(
        usable, key=lambda key: (key.not_before, key.status is KeyStatus.ACTIVE, key.keyid)
    ).keyid


def _new_key(folder: Path, which: str, algorithm: Algorithm, *, start: float) -> PublicKey:
    # Valid a little earlier than it is used: the clocks of replicas differ.
    private = generate_key(algorithm)
    signer = signer_for(private)
    write_private_file(folder / private_name(which, signer.keyid), private_pem(private))
    return PublicKey(algorithm, signer.public_pem, int(start) - LEEWAY_SECONDS)


def _private_keys(folder: Path, which: str, ring: KeyRing) -> dict[str, SigningKey]:
    keys = {}
    for key in ring.keys:
        path = folder / private_name(which, key.keyid)
        if key.status is KeyStatus.REVOKED:
            continue
        if key.status is KeyStatus.RETIRED and not path.exists():
            continue
        try:
            private = load_private_pem(read_private_file(path, max_bytes=_MAX_KEY_BYTES))
        except ValueError as error:
            raise Misconfigured(f"{path} is {error}") from None
        if signer_for(private).keyid != key.keyid:
            raise Misconfigured(f"{path} holds another key than its name says")
        keys[key.keyid] = private
    return keys


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    data = read_private_file(path, max_bytes=MAX_MANIFEST_BYTES)
    try:
        return Manifest.decode(data)
    except ValueError as error:
        raise Misconfigured(f"{path} is not a key manifest: {error}") from error


def _describe(name: str, key: PublicKey) -> str:
    document = key.document()
    until = document.get("notAfter", "no end")
    head = f"{name} {key.keyid} {key.algorithm} {key.status} {document['notBefore']} to {until}"
    return f"{head}\n{key.pem.rstrip()}"
