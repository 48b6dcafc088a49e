"""The Litestar application: which routes there are, and what each needs to be reached."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from litestar import Litestar, Request, Router, asgi
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.response import Response
from litestar.types import Receive, Scope, Send

import secure_cache
from secure_cache.core.access import Caller
from secure_cache.core.denials import CountsDenials
from secure_cache.http.audit import audit_routes
from secure_cache.http.bearer import bearer_token
from secure_cache.http.body import Answer
from secure_cache.http.console.routes import Console
from secure_cache.http.errors import REASON_HEADER, true_status
from secure_cache.http.front import Front, note_refusal, route_name
from secure_cache.http.health import health_routes
from secure_cache.http.log import public_routes, tile_route
from secure_cache.http.nx import refusal_text
from secure_cache.http.services import Services
from secure_cache.http.token import exchange_route, whoami_route
from secure_cache.model.errors import Broken, SecureCacheError

_log = structlog.get_logger(__name__)

AnyRequest = Request[object, object, State]


def create_app(services: Services) -> Front:
    """The whole application. A route is closed unless it is mounted outside `_with_caller`."""

    @asgi("/v1/cache", is_mount=True, copy_scope=False)
    async def cache(scope: Scope, receive: Receive, send: Send) -> None:
        await services.cache(scope, receive, send)  # type: ignore[arg-type]

    async def provide_caller(request: AnyRequest) -> Caller:
        return await services.access(bearer_token(request.scope["headers"]))

    with_caller = Router(
        "/",
        route_handlers=[whoami_route(), tile_route(services), *audit_routes(services)],
        dependencies={"caller": Provide(provide_caller)},
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with services.lifespan():
            yield

    console = Console(services)
    refusals = _Refusals(console, services.counts_denials)
    app = Litestar(
        route_handlers=[
            cache,
            exchange_route(services),
            with_caller,
            *public_routes(services),
            *health_routes(services),
            *console.routes,
        ],
        lifespan=[lifespan],
        openapi_config=OpenAPIConfig(
            title="secure-cache",
            version=secure_cache.__version__,
            path="/schema",
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
        ),
        exception_handlers=refusals.handlers(),
        logging_config=None,
        debug=False,
    )
    return Front(
        app,
        cache=services.cache,
        root_path=services.root_path,
        telemetry=services.telemetry,
        early=refusals.early,
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal outside the data path: a stable code, and one fixed line."""

    code: str
    title: str


class _Refusals:
    """What is answered instead of an answer: to people a page, to programs a `Problem`."""

    def __init__(self, console: Console, counts_denials: CountsDenials) -> None:
        self._console = console
        self._counts_denials = counts_denials

    def handlers(self) -> dict[type[Exception] | int, Callable[[Any, Any], Response[Any]]]:
        return {
            SecureCacheError: self.refused,
            HTTPException: self.framework_refused,
            Exception: self.crashed,
        }

    def refused(self, request: AnyRequest, error: SecureCacheError) -> Response[Any]:
        """The text of the error stays in the log: it may hold paths or claims."""
        note_refusal(request.scope, error)
        self._counts_denials.count(route_name(request.scope["path"]), error)
        return self._say(request, true_status(error), error.code, refusal_text(error).decode())

    def framework_refused(self, request: AnyRequest, error: HTTPException) -> Response[Any]:
        title = {404: "there is nothing here", 405: "this path does not take that method"}
        return self._say(
            request, error.status_code, "http", title.get(error.status_code, "not well formed")
        )

    def crashed(self, request: AnyRequest, error: Exception) -> Response[Any]:
        _log.error("request.crashed", path=request.scope["path"], exc_info=error)
        note_refusal(request.scope, Broken(repr(error)))
        title = "the server met a defect of its own; its log says more"
        return self._say(request, 500, "crashed", title)

    def early(self, path: str, error: SecureCacheError) -> Answer:
        """For a request whose body was not read: the application never saw it."""
        status, reason = true_status(error), (REASON_HEADER, error.code.encode())
        page = self._console.problem(path, status, error.title)
        if page is None:
            headers = ((b"content-type", b"text/plain"), reason)
            return Answer(status, f"secure-cache: {error.title}".encode(), headers)
        named = {**page.headers, "content-type": f"{page.media_type}; charset=utf-8"}
        pairs = ((name.encode(), value.encode()) for name, value in named.items())
        return Answer(status, page.content, (*pairs, reason))

    def _say(self, request: AnyRequest, status: int, code: str, title: str) -> Response[Any]:
        page = self._console.problem(request.scope["path"], status, title)
        return _problem(status, code, title) if page is None else page


def _problem(status: int, code: str, title: str) -> Response[Problem]:
    return Response(
        Problem(code, title),
        status_code=status,
        media_type="application/json",
        headers={REASON_HEADER.decode(): code},
    )
