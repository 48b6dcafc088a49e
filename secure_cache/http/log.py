"""The transparency log's read side, in C2SP tlog-tiles form.

The checkpoint and the verifier keys are public: without them nobody could notice that two
people are shown different logs. Tiles and entries tell who built what; they need an auditor,
unless the policy makes the log public.
"""

from litestar import Request, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Response

from secure_cache.core.access import proved_of
from secure_cache.http.services import Services, TheCaller
from secure_cache.model.errors import Denied, Malformed

_IMMUTABLE = {"cache-control": "private, max-age=31536000, immutable"}
_FRESH = {"cache-control": "no-cache"}
_TILE_PREFIX = "/log/"


def public_routes(services: Services) -> list[HTTPRouteHandler]:
    @get("/log/checkpoint", summary="The signed tree head", media_type="text/plain")
    async def checkpoint() -> Response[bytes]:
        note = await services.log.checkpoint_note()
        return Response(note, media_type="text/plain", headers=_FRESH)

    @get("/log/vkeys", summary="Verifier keys, one a line", media_type="text/plain")
    async def vkeys() -> Response[bytes]:
        text = services.vkeys().encode()
        return Response(text, media_type="text/plain", headers=_FRESH)

    @get(
        "/log/keys", summary="The keys that entries are signed with", media_type="application/json"
    )
    async def keys() -> Response[bytes]:
        """The key ring; its SHA-256 is in the log's newest `keys` event."""
        return Response(services.key_ring(), media_type="application/json", headers=_FRESH)

    return [checkpoint, vkeys, keys]


def tile_route(services: Services) -> HTTPRouteHandler:
    @get("/log/tile/{path:path}", summary="Tiles and entry bundles")
    async def tile(
        request: Request[object, object, State], caller: TheCaller, path: FromPath[str]
    ) -> Response[bytes]:
        """A tile under its C2SP path; the raw path is read, so that it has one spelling only."""
        del path
        if not (caller.policy.public_log or caller.decision.audit):
            raise Denied("the log's tiles need an auditor").of(proved_of(caller))
        raw = request.scope["raw_path"].decode("latin-1")
        at = raw.find(_TILE_PREFIX + "tile/")
        if at < 0 or not raw.isascii():
            raise Malformed("not the path of a tile")
        data = await services.log.tile(raw[at + len(_TILE_PREFIX) :])
        return Response(data, media_type="application/octet-stream", headers=_IMMUTABLE)

    return tile
