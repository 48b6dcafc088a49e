"""A witness that looks by itself: fetches a log's checkpoint and tiles, and holds it to its past.

Nothing of what is fetched is trusted: the tiles must lead to the root that the log signed, and
that tree must extend what this witness cosigned before. A log that shows less, or something else,
is told with the two signed checkpoints that say so.
"""

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from anyio.to_thread import run_sync

from secure_cache.core.witness import Witness
from secure_cache.model.clock import Clock
from secure_cache.model.errors import Denied, LogInconsistent, NotFound, Unavailable
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.contradiction import Contradiction
from secure_cache.tlog.reader import Fetch, TreeReader
from secure_cache.tlog.witness import KnownLog, OtherSize, Submitted, submitted
from secure_cache.tlog.witness_wire import AddCheckpoint

CHECKPOINT_PATH = "checkpoint"
_TRIES = 5
_LOOK_AGAIN_SECONDS = 2.0


class Contradicted(LogInconsistent):
    """The log says something else than before.

    Attributes:
        kind: `fork` or `rollback`.
        evidence: the file with both signed checkpoints; None when there was no room for it.
    """

    def __init__(self, message: str, *, kind: str, evidence: str | None) -> None:
        super().__init__(f"{message}. Evidence: {evidence or 'kept before; there is no more room'}")
        self.kind = kind
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class Followed:
    """One look, and all was well.

    Attributes:
        checkpoint: what the log has now.
        before: how many entries it had at the last look, 0 at the first.
        note: the checkpoint with our cosignatures.
    """

    checkpoint: Checkpoint
    before: int
    note: bytes


class Follower:
    """Follows one log.

    Args:
        witness: cosigns, and keeps the state.
        logs: those that it knows, by origin.
        fetch: gives what is under a path of the log, such as `checkpoint`.
        clock: wall time, for the evidence.
        pause: sleeps.
    """

    def __init__(
        self,
        *,
        witness: Witness,
        logs: dict[str, KnownLog],
        fetch: Fetch,
        clock: Clock,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._witness = witness
        self._logs = logs
        self._fetch = fetch
        self._clock = clock
        self._pause = pause

    async def look(self) -> Followed:
        """Fetch the newest checkpoint, verify that it extends what was cosigned, cosign it.

        Raises:
            Contradicted: it does not; the evidence is kept.
            LogInconsistent: what is served does not lead to the root, or no key that we know
                signed it.
            Malformed, NotFound: not a checkpoint, or of a log that is not known here.
            Denied, Unavailable: it can not be fetched.
        """
        seen: tuple[bytes, Checkpoint] | None = None
        for _ in range(_TRIES):
            found = await self._newest()
            if seen is not None and seen[1].size > found.checkpoint.size:
                await self._rolled_back(*seen, found)
            last = await run_sync(self._witness.last, found.checkpoint.origin)
            if last is not None and last[1].size > found.checkpoint.size:
                # The log itself never goes back; but a cache on the way may be a moment behind,
                # and somebody may have brought us a newer one since this was fetched. So only
                # what is fetched from now on is held to it.
                seen = last
                await self._pause(_LOOK_AGAIN_SECONDS)
                continue
            cosigned = await self._cosigned(found, last)
            if cosigned is not None:
                return cosigned
        raise Unavailable("another process goes on changing the witness's state")

    async def _newest(self) -> Submitted:
        try:
            note = await self._fetch(CHECKPOINT_PATH)
        except NotFound as error:
            raise Unavailable("there is no checkpoint at this address") from error
        try:
            _, found = submitted(AddCheckpoint(0, (), note), self._logs)
        except Denied as error:
            raise LogInconsistent(str(error)) from error
        return found

    async def _cosigned(
        self, found: Submitted, last: tuple[bytes, Checkpoint] | None
    ) -> Followed | None:
        """None when somebody else has moved the witness on meanwhile."""
        checkpoint = found.checkpoint
        old = 0 if last is None else last[1].size
        # Also at the first look and when nothing is new: what is signed must be there.
        reader = TreeReader(self._fetch, checkpoint)
        await reader.edge()
        proof: tuple[bytes, ...] = ()
        if last is not None and old:
            await self._compare(last[0], last[1], found, reader)
            proof = await reader.consistency_proof(old) if old != checkpoint.size else ()
        request = AddCheckpoint(old, proof, found.note)
        if isinstance(await run_sync(self._witness.add_checkpoint, request), OtherSize):
            return None
        kept = await run_sync(self._witness.last, checkpoint.origin)
        return Followed(checkpoint, old, found.note if kept is None else kept[0])

    async def _compare(
        self, note: bytes, last: Checkpoint, found: Submitted, reader: TreeReader
    ) -> None:
        root = await reader.root_at(last.size)
        if root == last.root:
            return
        same = last.size == found.checkpoint.size
        contradiction = Contradiction(
            older=note,
            newer=found.note,
            root_at_older=None if same else root,
            proof=() if same else await reader.consistency_proof(last.size),
        )
        path = await run_sync(self._witness.keep, last.origin, "fork", contradiction.encode())
        raise Contradicted(
            f"the log was forked: at {last.size} entries it has another root than this witness"
            " has cosigned, and its own key signed both",
            kind="fork",
            evidence=path,
        )

    async def _rolled_back(self, note: bytes, last: Checkpoint, found: Submitted) -> None:
        """Two checkpoints that may both be genuine; that the older one came later is this
        witness's own word, by the time in its cosignature."""
        document = {
            "v": 1,
            "kind": "log-rollback",
            "cosigned": note.decode(),
            "servedLater": found.note.decode(),
            "servedAt": int(self._clock()),
            "rootServed": base64.b64encode(found.checkpoint.root).decode(),
        }
        data = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
        path = await run_sync(self._witness.keep, last.origin, "rollback", data)
        raise Contradicted(
            f"the log was rolled back: it shows {found.checkpoint.size} entries, and this witness"
            f" has cosigned {last.size}",
            kind="rollback",
            evidence=path,
        )
