"""Where an auditor reads a log: a server, the stores of an installation, or a mirror.

Whatever the place, what leaves here is proved: by the log's key, and for statements by entry keys
whose digest the log itself announced.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from secure_cache.client.key_ring import KeysGiven, announced_ring
from secure_cache.client.log_fetch import LogFetch
from secure_cache.client.log_folder import LogFolder
from secure_cache.client.mirror_folder import KEYS, POLICIES, read_pins
from secure_cache.client.remote import ServerAddress
from secure_cache.compose.offline import open_offline
from secure_cache.compose.stores import open_stores, opened
from secure_cache.compose.witnessing import log_reader
from secure_cache.model.clock import Clock
from secure_cache.model.digest import Digest
from secure_cache.model.errors import (
    CorruptObject,
    LogInconsistent,
    Malformed,
    Misconfigured,
    NotFound,
    Unavailable,
)
from secure_cache.model.strict_json import load_strict_object
from secure_cache.provenance.keys import KeyRing
from secure_cache.settings import Settings
from secure_cache.storage import layout
from secure_cache.storage.ports import ObjectReader
from secure_cache.tlog.fetched import CHECKPOINT, FetchedLog, Trust, advised, require_follows
from secure_cache.tlog.note import Ed25519Verifier, Verifier
from secure_cache.tlog.ports import VerifiedLog
from secure_cache.tlog.reader import Fetch, TreeReader, store_fetch
from secure_cache.tlog.witness_policy import WitnessPolicy

MAX_POLICY_TEXT_BYTES = 1 << 20
DAMAGED_STORE = "this is the log in the store: `secure-cache log fsck` says more"
_MAX_ANSWER_BYTES = 1 << 20
_NO_INDEX, _DAMAGED = 501, 500
_MAX_OLDER = 50


@dataclass(frozen=True, slots=True)
class LogPlace:
    """What the command line says.

    Attributes:
        server: its address, with an auditor's token; or
        settings: of an installation whose stores are read; or
        mirror: a folder.
        token: for the server.
        log_keys: the log's verifier keys, pinned; empty where the place is asked for them.
        keys: the entry keys, pinned; None where the log says which they are.
        witnesses: who must have cosigned the log; None asks for nobody.
    """

    server: ServerAddress | None = None
    settings: Settings | None = None
    mirror: Path | None = None
    token: str | None = None
    log_keys: tuple[Ed25519Verifier, ...] = ()
    keys: KeyRing | None = None
    witnesses: WitnessPolicy | None = None


@dataclass(frozen=True, slots=True)
class LogSource:
    """A log, and what proves it.

    Attributes:
        log: everything read from it leads to a checkpoint that the log's key has signed.
        trust: that key, the log's name, and who must have cosigned.
        pinned: the key came from the auditor or from his mirror, not from the place itself.
        fetch: the log's files as they are, unverified.
        given_ring: the newest key ring as the place gives it, unverified.
        ring: the entry keys. Raises: LogInconsistent: not those that the log announced.
        policy_text: a policy by its SHA-256 in hex, verified. Raises: NotFound, CorruptObject.
        remedy: what a person can do about a file of the log that is damaged.
    """

    log: VerifiedLog
    trust: Trust
    pinned: bool
    fetch: Fetch
    given_ring: Callable[[], Awaitable[bytes]]
    ring: Callable[[], Awaitable[KeyRing]]
    policy_text: Callable[[str], Awaitable[bytes]]
    remedy: str

    async def must_follow(self, last: bytes) -> None:
        """Check that the log leads on from a signed checkpoint that was seen before.

        Raises: HistoryChanged, LogInconsistent, StorageUnavailable.
        """
        with advised(self.remedy):
            note = await self.fetch(CHECKPOINT)
            tree = TreeReader(self.fetch, self.trust.open_last(note))
            await require_follows(last, note, tree, self.trust)

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        return self.trust.verifiers

    @property
    def origin(self) -> str:
        return self.trust.origin


@asynccontextmanager
async def open_log_source(
    place: LogPlace, *, clock: Clock, last: bytes | None = None
) -> AsyncIterator[LogSource]:
    """Open the log of a place.

    Args:
        place: exactly one of server, settings and mirror.
        clock: for policy and keys of an installation.
        last: a signed checkpoint seen before; a log that does not lead on from it is refused.

    Raises:
        Misconfigured: the place cannot be used; Denied, Unavailable: it does not answer.
    """
    if place.server is not None:
        opening = _server(place, place.server, last)
    elif place.mirror is not None:
        opening = _mirror(place, place.mirror, last)
    elif place.settings is not None:
        opening = _stores(place, place.settings, clock, last)
    else:
        raise Misconfigured("say where to look: --server, --store or --mirror")
    async with opening as source:
        yield source


@asynccontextmanager
async def _server(
    place: LogPlace, server: ServerAddress, last: bytes | None
) -> AsyncIterator[LogSource]:
    log_address = ServerAddress(f"{server.url}/log")
    async with (
        LogFetch(log_address, token=place.token) as fetch,
        LogFetch(
            ServerAddress(f"{server.url}/audit/v1"),
            token=place.token,
            absent=frozenset({404, 410, _NO_INDEX}),
        ) as api,
        # One text that is damaged there must not end what is done with all others.
        LogFetch(
            ServerAddress(f"{server.url}/audit/v1/policies"),
            token=place.token,
            absent=frozenset({404, 410, _NO_INDEX, _DAMAGED}),
        ) as policies,
    ):
        verifiers = place.log_keys or await _vkeys_of(fetch, server)
        trust = _trust(verifiers, place.witnesses)
        remedy = (
            f"this is what {server.url} shows of its log: tell its operator, whose"
            " `secure-cache log fsck` says more, and keep your mirror"
        )
        log = FetchedLog(fetch, trust, last=last, remedy=remedy)

        async def given_ring() -> bytes:
            try:
                return await fetch("keys")
            except NotFound as error:
                raise Unavailable(f"{server.url} does not give the keys of its entries") from error

        async def ring_for(_sha256: str) -> bytes:
            return await given_ring()

        async def newest_keys_event() -> int:
            found = await _keys_events(api, server, "order=newest&limit=1")
            if not found:
                raise LogInconsistent(f"{server.url} names no event that announces keys")
            return found[0]

        async def older_keys_events(sha256: str) -> Sequence[int]:
            # The oldest first: the server's own event comes before what others say of the ring.
            which = f"digest={sha256}&order=oldest&limit={_MAX_OLDER}"
            return await _keys_events(api, server, which)

        async def ring() -> KeyRing:
            if place.keys is not None:
                return place.keys
            given = KeysGiven(newest_keys_event, ring_for, older_keys_events)
            return await announced_ring(log, given)

        async def policy_text(sha256: str) -> bytes:
            return _checked(await policies(sha256), sha256)

        yield LogSource(
            log, trust, bool(place.log_keys), fetch, given_ring, ring, policy_text, remedy
        )


async def _vkeys_of(fetch: Fetch, server: ServerAddress) -> tuple[Ed25519Verifier, ...]:
    """What a server says that its log's keys are."""
    try:
        return parse_vkeys(await fetch("vkeys"), where=f"{server.url}/log/vkeys")
    except NotFound as error:
        raise Misconfigured(
            f"{server.url} has no /log/vkeys as a secure-cache server has: check --server"
        ) from error


async def _keys_events(api: Fetch, server: ServerAddress, which: str) -> list[int]:
    """As the server's index says; what is there is proved by whoever asks for it."""
    try:
        answer = await api(f"entries?event=keys&{which}")
    except NotFound as error:
        raise Unavailable(
            f"{server.url} keeps no audit index to ask which keys the log announced last: give"
            " them with --keys, or make a mirror and ask that"
        ) from error
    try:
        found = load_strict_object(answer, max_bytes=_MAX_ANSWER_BYTES, max_depth=32)["entries"]
        given = [row["index"] for row in found]  # type: ignore[index,call-overload,union-attr]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise LogInconsistent(f"{server.url} names no event that announces keys") from error
    indexes = [index for index in given if type(index) is int and index >= 0]
    if len(indexes) != len(given):
        raise LogInconsistent(f"{server.url} names no event that announces keys")
    return indexes


@asynccontextmanager
async def _mirror(place: LogPlace, folder: Path, last: bytes | None) -> AsyncIterator[LogSource]:
    pins = read_pins(folder)
    if not pins.finished and not (folder / CHECKPOINT).exists():
        raise Misconfigured(
            f"{folder} has not been mirrored to its end yet: run `secure-cache audit mirror"
            f" {folder}` again"
        )
    verifiers = tuple(Ed25519Verifier.parse(vkey) for vkey in pins.vkeys)
    if place.log_keys and {str(key) for key in place.log_keys} != set(pins.vkeys):
        raise Misconfigured(f"{folder} mirrors a log with another key than --log-key says")
    trust = _trust(verifiers, place.witnesses)
    fetch = LogFolder(folder)
    remedy = (
        f"the mirror is damaged: `secure-cache audit mirror {folder} --check` says where,"
        " and --repair fetches it again"
    )
    log = FetchedLog(fetch, trust, last=last, remedy=remedy)

    async def find() -> int:
        index = pins.keys_event_of((await log.published()).size)
        if index is None:
            raise Misconfigured(f"{folder} has not been mirrored to its end yet: run it again")
        return index

    async def ring_for(sha256: str) -> bytes:
        return await fetch(f"{KEYS}/{sha256}.json")

    async def ring() -> KeyRing:
        if place.keys is not None:
            return place.keys
        return await announced_ring(log, KeysGiven(find, ring_for), waits=())

    async def given_ring() -> bytes:
        return (await ring()).encode()

    async def policy_text(sha256: str) -> bytes:
        return _checked(await fetch(f"{POLICIES}/{sha256}.yaml"), sha256)

    yield LogSource(
        log,
        trust,
        pinned=True,
        fetch=fetch,
        given_ring=given_ring,
        ring=ring,
        policy_text=policy_text,
        remedy=remedy,
    )


@asynccontextmanager
async def _stores(
    place: LogPlace, settings: Settings, clock: Clock, last: bytes | None
) -> AsyncIterator[LogSource]:
    """The installation's own keys count here: whoever reads its stores has its key folder."""
    offline = open_offline(settings, clock)
    signer = offline.keystore.log
    vkeys = (Ed25519Verifier.parse(str(signer.verifier)),)
    if place.log_keys and set(place.log_keys) != set(vkeys):
        raise Misconfigured(f"{settings.keys} holds another log key than --log-key says")
    trust = _trust(vkeys, place.witnesses)

    async def ring() -> KeyRing:
        return offline.keystore.ring if place.keys is None else place.keys

    async with opened(open_stores(settings.storage)) as stores:
        published = log_reader(stores, signer)

        policies = StoredPolicies(stores.state)
        files = store_fetch(stores.tiles, stores.pending)

        async def fetch(path: str) -> bytes:
            return await (published.checkpoint_note() if path == CHECKPOINT else files(path))

        log = FetchedLog(fetch, trust, last=last, remedy=DAMAGED_STORE)

        async def given_ring() -> bytes:
            return offline.keystore.ring.encode()

        yield LogSource(
            log,
            trust,
            pinned=True,
            fetch=fetch,
            given_ring=given_ring,
            ring=ring,
            policy_text=policies.text,
            remedy=DAMAGED_STORE,
        )


class StoredPolicies:
    """The texts of policies in the `state` store, by their digests: what is kept there is believed
    in nothing else. Each is read once, the newest first; whoever asks for all of them reads each
    a second time and no more.

    Args:
        state: the store.
    """

    def __init__(self, state: ObjectReader) -> None:
        self._state = state
        self._names: dict[str, str] = {}
        self._seen: set[str] = set()
        self._unread: list[str] = []

    async def text(self, sha256: str) -> bytes:
        """Raises: NotFound, CorruptObject (it changed meanwhile), StorageUnavailable."""
        for look_again in (True, False):
            while sha256 not in self._names and self._unread:
                await self._read(self._unread.pop())
            if sha256 in self._names:
                stored = await self._get(self._names[sha256])
                return _checked(stored, sha256)
            if look_again:
                await self._list()
        raise NotFound(f"the policy {sha256} is not kept")

    async def _list(self) -> None:
        async for info in self._state.list(layout.POLICY_PREFIX):
            if info.name not in self._seen:
                self._seen.add(info.name)
                self._unread.append(info.name)

    async def _read(self, name: str) -> None:
        # One that cannot be read must not hide the others.
        with suppress(NotFound, CorruptObject):
            self._names[str(Digest.of(await self._get(name)))] = name

    async def _get(self, name: str) -> bytes:
        return (await self._state.get(name, max_bytes=MAX_POLICY_TEXT_BYTES)).data


def parse_vkeys(data: bytes, *, where: str) -> tuple[Ed25519Verifier, ...]:
    """Verifier keys, one a line, all of one log.

    Raises:
        Malformed: anything else, or none.
    """
    try:
        lines = [line for line in data.decode().splitlines() if line.strip()]
        found = tuple(Ed25519Verifier.parse(line.strip()) for line in lines)
    except (UnicodeDecodeError, Malformed) as error:
        raise Malformed(f"{where}: not a verifier key of a log: {error}") from error
    if not found or len({key.name for key in found}) != 1:
        raise Malformed(f"{where}: not the verifier keys of one log")
    return found


def _trust(verifiers: tuple[Ed25519Verifier, ...], witnesses: WitnessPolicy | None) -> Trust:
    return Trust(verifiers, verifiers[0].name, witnesses)


def _checked(data: bytes, sha256: str) -> bytes:
    if len(data) > MAX_POLICY_TEXT_BYTES:
        raise CorruptObject(f"the policy {sha256} is larger than {MAX_POLICY_TEXT_BYTES} bytes")
    if str(Digest.of(data)) != sha256:
        raise CorruptObject(f"what was given for the policy {sha256} has another digest")
    return data
