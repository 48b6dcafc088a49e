"""From a witness's folder to a running witness."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import structlog

from secure_cache.client.log_fetch import LogFetch
from secure_cache.client.remote import ServerAddress
from secure_cache.core.witness import TellWitness, Witness
from secure_cache.core.witness_book import WitnessBook
from secure_cache.core.witness_follow import Follower
from secure_cache.core.witness_keys import WitnessFolder, load_witness
from secure_cache.http.connection_limits import ConnectionLimits
from secure_cache.http.server import AppSource, ServerOptions, Worker
from secure_cache.http.supervisor import Hooks, run
from secure_cache.http.witness import WitnessApp
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import Misconfigured
from secure_cache.observability.logging import configure_logging
from secure_cache.storage.mounts import require_local_filesystem
from secure_cache.tlog.witness import log_by_origin

_log = structlog.get_logger("secure_cache.witness")

_FACTORY = "secure_cache.compose.witness:witness_app"
_UNTRUSTWORTHY_STATE = 5
_LIMITS = ConnectionLimits(max_connections=1024, max_headers=50, linger_bytes=256 * 1024)


@dataclass(frozen=True, slots=True)
class OpenWitness:
    """A witness over its folder."""

    folder: WitnessFolder
    book: WitnessBook
    witness: Witness

    @property
    def vkeys(self) -> str:
        return "".join(f"{cosigner.verifier}\n" for cosigner in self.folder.cosigners)


def open_witness(folder: Path, *, tell: TellWitness = lambda _event, _facts: None) -> OpenWitness:
    """Raises: Misconfigured."""
    loaded = load_witness(folder)
    book = WitnessBook(loaded.state, on_failure=_leave)
    book.check()
    # Of two machines on a network file system both may believe that the lock is theirs.
    try:
        require_local_filesystem(loaded.state)
    except Misconfigured as error:
        raise Misconfigured(
            f"{loaded.state} is not on a local disk: there a lock may be held twice, and this"
            " witness could cosign two histories. Move its folder"
        ) from error
    witness = Witness(
        logs=loaded.logs,
        cosigners=loaded.cosigners,
        book=book,
        clock=system_clock,
        tell=tell,
    )
    return OpenWitness(loaded, book, witness)


def witness_app(argument: str, worker: Worker) -> Any:
    """The factory of a witness's process; `argument` is its folder."""
    opened = open_witness(Path(argument), tell=_tell)
    return WitnessApp(
        opened.witness, opened.book, vkeys=opened.vkeys, draining=lambda: worker.draining
    )


def serve_witness(folder: Path, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM.

    Raises:
        Misconfigured, Unavailable, Broken: it can not start; says why.
    """
    open_witness(folder)
    configure_logging(style="json", level="info")
    source = AppSource(factory=_FACTORY, argument=str(folder.absolute()))
    options = ServerOptions(host=host, port=port, drain_seconds=10.0, limits=_LIMITS)
    run(source, options, Hooks(on_ready=on_ready))


@asynccontextmanager
async def following(
    folder: Path, address: ServerAddress, *, token: str | None
) -> AsyncIterator[Follower]:
    """A follower of the log at a URL. Raises: Misconfigured."""
    opened = open_witness(folder)
    async with LogFetch(address, token=token) as fetch:
        yield Follower(
            witness=opened.witness,
            logs=log_by_origin(opened.folder.logs),
            fetch=fetch,
            clock=system_clock,
            pause=anyio.sleep,
        )


def _tell(event: str, facts: Mapping[str, object]) -> None:
    if event == "witness.cosigned":
        _log.info(event, **facts)
    elif event == "witness.contradicted":
        _log.critical(event, **facts)
    else:
        _log.warning(event, **facts)


def _leave(message: str) -> None:
    """After a failed fsync the page cache may show what the disk does not hold."""
    _log.critical("witness.state_failed", why=message)
    os._exit(_UNTRUSTWORTHY_STATE)
