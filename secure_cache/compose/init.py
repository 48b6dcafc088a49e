"""`secure-cache init`: a folder with everything that a server needs, whole or not at all.

    secure-cache.toml    settings
    policy.yaml          who may read and write what
    keys/                signing keys
    data/                the filesystem store, with a log in it; with Azure there is none

A server never makes a log by itself: one that lost its data would quietly begin another history.
So the log is made here.
"""

import errno
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from secure_cache.compose.posture import prove
from secure_cache.compose.stores import Stores, open_stores, opened
from secure_cache.core.key_files import sync_folder, write_private_file
from secure_cache.core.keystore import Keystore, create_keystore
from secure_cache.model.clock import Clock
from secure_cache.model.errors import Misconfigured
from secure_cache.settings import Storage, default_toml
from secure_cache.tlog.create import create_log
from secure_cache.tlog.note import NoteSigner

SETTINGS = "secure-cache.toml"
POLICY = "policy.yaml"
KEYS = "keys"
DATA = "data"

LOCAL_URL = "https://secure-cache.localhost"
"""The audience of a server that has no public address. Only tokens of its own can name it."""

_AUDIENCE = re.compile(r"^audience: (\S+)$", re.MULTILINE)
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True, slots=True)
class Installation:
    """What was made.

    Attributes:
        directory: the folder.
        audience: what a CI has to ask its tokens for.
        log_origin: the log's name.
        vkey: the log's verifier key, for auditors to pin.
    """

    directory: Path
    audience: str
    log_origin: str
    vkey: str

    @property
    def config(self) -> Path:
        return self.directory / SETTINGS


def initialise(
    directory: Path,
    *,
    url: str | None,
    clock: Clock,
    random_bytes: Callable[[int], bytes],
) -> Installation:
    """Make `directory`, with a store in a folder of it.

    Args:
        directory: absent, or an empty folder.
        url: the https address under which CI reaches the server; it is the audience of tokens
            and names the log. None for a server that only issues tokens itself.
        clock: seconds since 1970.
        random_bytes: such as `os.urandom`.

    1. everything, in a folder beside it      crash: a folder that nothing names, mode 0700
    2. rename                                 crash: all of it or nothing
    3. fsync of the parent

    Raises:
        Misconfigured: something is there, the address is not usable, or nothing can be written.
    """
    names = names_for(url, random_bytes)
    with whole_or_nothing(directory.absolute()) as draft:
        write_settings(draft, {"storage.kind": "filesystem", "storage.path": DATA})
        keystore = write_policy_and_keys(draft, names, clock)
        anyio.run(_make_data, draft / DATA, keystore.log, clock, random_bytes)
    return Installation(directory, names.audience, names.origin, str(keystore.log.verifier))


@dataclass(frozen=True, slots=True)
class Names:
    """What a server and its log are called; both for ever."""

    audience: str
    origin: str


def names_for(url: str | None, random_bytes: Callable[[int], bytes]) -> Names:
    """Raises: Misconfigured: the address is not usable."""
    audience = LOCAL_URL if url is None else public_url(url)
    origin = audience.removeprefix("https://") + "/log"
    if url is None:
        # Two logs of one name could be taken for a fork of each other.
        origin += f"/{random_bytes(8).hex()}"
    return Names(audience, origin)


def write_settings(draft: Path, values: Mapping[str, str]) -> None:
    settings = {"policy": POLICY, "keys": KEYS, **values}
    write_private_file(draft / SETTINGS, default_toml(settings).encode())


def write_policy_and_keys(draft: Path, names: Names, clock: Clock) -> Keystore:
    write_private_file(draft / POLICY, policy_for(names.audience).encode())
    return create_keystore(draft / KEYS, log_origin=names.origin, now=clock())


async def _make_data(
    folder: Path, signer: NoteSigner, clock: Clock, random_bytes: Callable[[int], bytes]
) -> None:
    async with opened(open_stores(Storage(kind="filesystem", path=folder))) as stores:
        await prove(stores)
        await begin_log(stores, signer, clock, random_bytes)


async def begin_log(
    stores: Stores, signer: NoteSigner, clock: Clock, random_bytes: Callable[[int], bytes]
) -> None:
    """Raises: as `create_log`."""
    await create_log(
        tiles=stores.tiles,
        head=stores.head,
        pending=stores.pending,
        signer=signer,
        clock=clock,
        random_bytes=random_bytes,
    )


def public_url(text: str) -> str:
    """Check an address and give it in its one spelling, without a slash at the end.

    Raises:
        Misconfigured: not https, or with anything but host, port and path.
    """
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("")
    host, path = url.netloc.lower(), url.path.rstrip("/")
    plain = url.scheme == "https" and not url.query and not url.fragment and text.isprintable()
    if not plain or _HOST.fullmatch(host) is None or _PATH.fullmatch(path) is None:
        raise Misconfigured(
            f"{text!r} cannot be the server's public address:"
            " give --url like https://cache.example.com, with no user, query or fragment"
        )
    return f"https://{host}{path}"


def template() -> str:
    """The policy that `init` starts from, as it is packaged."""
    return resources.files(__package__).joinpath("templates", POLICY).read_text("utf-8")


def policy_for(audience: str) -> str:
    """The packaged policy for a server with this audience."""
    text, count = _AUDIENCE.subn(f"audience: {audience}", template())
    if count != 1:
        raise Misconfigured("the packaged policy has no audience: install secure-cache again")
    return text


@contextmanager
def whole_or_nothing(directory: Path) -> Iterator[Path]:
    _require_free(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise _cannot(directory, error) from error
    try:
        yield draft
        sync_folder(draft)
        # rename(2) takes the place of an empty folder, and of nothing else.
        draft.rename(directory)
        sync_folder(directory.parent)
    except OSError as error:
        raise _cannot(directory, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _require_free(directory: Path) -> None:
    try:
        is_taken = directory.is_symlink() or (
            directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
        )
    except OSError as error:
        raise _cannot(directory, error) from error
    if is_taken:
        raise taken_error(directory)


def taken_error(directory: Path) -> Misconfigured:
    return Misconfigured(
        f"{directory} is there already and is never overwritten: give a folder that is new or empty"
    )


def _cannot(directory: Path, error: OSError) -> Misconfigured:
    if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
        return taken_error(directory)
    if error.errno in {errno.EBUSY, errno.EXDEV}:
        return Misconfigured(f"{directory} is a mount point: give a folder inside it")
    return Misconfigured(
        f"{directory} cannot be made: {error.strerror}:"
        " give a folder whose parent this user may write"
    )
