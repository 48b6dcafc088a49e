"""The console's paths."""

from urllib.parse import urlencode

import structlog
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from secure_cache.core.access import proved_of
from secure_cache.http.console.denials import denial_routes
from secure_cache.http.console.desk import Answer, AnyRequest, Desk, visitor
from secure_cache.http.console.entry import entry_routes
from secure_cache.http.console.overview import overview_routes
from secure_cache.http.console.policies import policy_routes
from secure_cache.http.console.render import Renderer
from secure_cache.http.console.search import search_routes
from secure_cache.http.console.session import (
    as_token,
    place_of,
    read_form,
    require_same_origin,
)
from secure_cache.http.services import Services
from secure_cache.model.errors import Denied, InvalidToken, NotFound, SecureCacheError

_log = structlog.get_logger(__name__)

_LONGEST_SECONDS = 12 * 3600


class Console:
    """The console as the application sees it.

    Attributes:
        routes: each asks for its own auditor, by the cookie.
    """

    def __init__(self, services: Services) -> None:
        self._desk = Desk(services, Renderer(f"{services.root_path}/audit"))
        self.routes: list[HTTPRouteHandler] = [
            *_session_routes(self._desk),
            *overview_routes(self._desk),
            *search_routes(self._desk),
            *denial_routes(self._desk),
            *entry_routes(self._desk),
            *policy_routes(self._desk),
        ]

    def problem(self, path: str, status: int, title: str) -> Answer | None:
        """What to show where no route answers, or one crashed; None for the paths of others."""
        parts = [part for part in path.split("/") if part]
        if parts[:1] != ["audit"] or parts[1:2] == ["v1"]:
            return None
        return self._desk.show(status, title)


def _session_routes(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/sign-in", include_in_schema=False)
    async def form(request: AnyRequest) -> Answer:
        """`to`: the page to go to afterwards."""
        return desk.sign_in(request, place=_place(request))

    @post("/audit/sign-in", include_in_schema=False)
    async def sign_in(request: AnyRequest) -> Answer:
        """The token comes in the body: a URL is kept in histories and in logs."""
        try:
            require_same_origin(visitor(request))
        except Denied as error:
            return desk.foreign(request, error)
        place = ""
        try:
            filled = read_form(await request.body())
            place = filled.place
            seconds = await _judge(desk, filled.token)
        except SecureCacheError as error:
            return desk.sign_in(request, error, place=place)
        cookie = desk.cookie(request).set(filled.token, seconds=seconds)
        query = f"?{urlencode({'to': place})}" if place else ""
        return desk.pages.redirect(f"signed-in{query}", cookie=cookie)

    @get("/audit/signed-in", include_in_schema=False)
    async def signed_in(request: AnyRequest) -> Answer:
        """Whether the browser kept the cookie is known only when it comes back."""
        if desk.cookie(request).name in request.headers.get("cookie", ""):
            return desk.pages.redirect(_place(request))
        return desk.not_kept(request, _place(request))

    @post("/audit/sign-out", include_in_schema=False)
    async def sign_out(request: AnyRequest) -> Answer:
        try:
            require_same_origin(visitor(request))
        except Denied as error:
            return desk.foreign(request, error)
        return desk.pages.redirect("sign-in", cookie=desk.cookie(request).clear())

    @get("/audit/static/{name:str}", include_in_schema=False)
    async def static(request: AnyRequest, name: FromPath[str]) -> Answer:
        return desk.pages.static(name) or desk.problem(request, NotFound("no such file"))

    return [form, sign_in, signed_in, sign_out, static]


def _place(request: AnyRequest) -> str:
    return place_of(request.query_params.get("to", ""))


async def _judge(desk: Desk, text: str) -> int:
    """For how many seconds the browser may keep it; the server's log is told who came.

    Raises:
        SecureCacheError: as `Access` does.
        Denied: no auditor.
    """
    token = as_token(text)
    if token is None:
        raise InvalidToken("an empty token")
    caller = await desk.services.access(token)
    identity, decision = caller.identity, caller.decision
    if not decision.audit or identity is None:
        raise Denied("no auditor").of(proved_of(caller))
    left = identity.expires_at - int(desk.services.clock())
    seconds = max(1, min(left, _LONGEST_SECONDS))
    _log.info(
        "audit.signed_in",
        issuer=identity.issuer,
        subject=identity.subject,
        project=decision.project,
        rule=decision.rule,
        seconds=seconds,
    )
    return seconds
