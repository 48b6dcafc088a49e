"""The console's paths."""

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from secure_cache.http.console.desk import Answer, AnyRequest, Desk
from secure_cache.http.console.entry import entry_routes
from secure_cache.http.console.overview import overview_routes
from secure_cache.http.console.policies import policy_routes
from secure_cache.http.console.render import Renderer
from secure_cache.http.console.search import search_routes
from secure_cache.http.console.session import (
    MAX_FORM_BYTES,
    as_token,
    clear_cookie,
    read_form,
    require_same_origin,
    set_cookie,
)
from secure_cache.http.services import Services
from secure_cache.model.errors import Denied, InvalidToken, NotFound, SecureCacheError, TooLarge

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
            *entry_routes(self._desk),
            *policy_routes(self._desk),
        ]

    def problem(self, path: str, status: int, title: str) -> Answer | None:
        """What to show where no route answers, or one crashed; None for the paths of others."""
        parts = [part for part in path.split("/") if part]
        if parts[:1] != ["audit"] or parts[1:2] == ["v1"]:
            return None
        return self._desk.show(status, title, f"{title[:1].upper()}{title[1:]}.")


def _session_routes(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/sign-in", include_in_schema=False)
    async def form(request: AnyRequest) -> Answer:
        return desk.sign_in(request)

    @post("/audit/sign-in", include_in_schema=False)
    async def sign_in(request: AnyRequest) -> Answer:
        """The token comes in the body: a URL is kept in histories and in logs."""
        try:
            require_same_origin(request.scope["headers"])
        except Denied as error:
            return desk.foreign(request, error)
        try:
            token = read_form(await _body(request))
            seconds = await _judge(desk, token)
        except SecureCacheError as error:
            # Whoever mistypes, or is made to, does not lose the session that he has.
            return desk.sign_in(request, error, forget=False)
        cookie = set_cookie(token, path=desk.pages.base, seconds=seconds)
        return desk.pages.redirect("", cookie=cookie)

    @post("/audit/sign-out", include_in_schema=False)
    async def sign_out(request: AnyRequest) -> Answer:
        try:
            require_same_origin(request.scope["headers"])
        except Denied as error:
            return desk.foreign(request, error)
        return desk.pages.redirect("sign-in", cookie=clear_cookie(path=desk.pages.base))

    @get("/audit/static/{name:str}", include_in_schema=False)
    async def static(request: AnyRequest, name: FromPath[str]) -> Answer:
        return desk.pages.static(name) or desk.problem(request, NotFound("no such file"))

    return [form, sign_in, sign_out, static]


async def _judge(desk: Desk, text: str) -> int:
    """For how many seconds the browser may keep it. Raises: as `Access`; Denied: no auditor."""
    token = as_token(text)
    if token is None:
        raise InvalidToken("an empty token")
    caller = await desk.services.access(token)
    if not caller.decision.audit or caller.identity is None:
        raise Denied("no auditor")
    left = caller.identity.expires_at - int(desk.services.clock())
    return max(1, min(left, _LONGEST_SECONDS))


async def _body(request: AnyRequest) -> bytes:
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > MAX_FORM_BYTES:
            raise TooLarge("longer than any token")
    return bytes(data)
