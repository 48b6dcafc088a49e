"""`/healthz`, `/readyz` and `/metrics`, for the machines that look after this one."""

from litestar import Request, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from secure_cache.core.access import Access, proved_of
from secure_cache.http.bearer import bearer_token
from secure_cache.http.services import Readiness, Services
from secure_cache.model.errors import Denied


def health_routes(services: Services) -> list[HTTPRouteHandler]:
    @get("/healthz", summary="The process answers", media_type="text/plain")
    async def healthz() -> str:
        return "ok"

    @get("/readyz", summary="The process can serve, and what an operator should look at")
    async def readyz() -> Response[Readiness]:
        readiness = await services.readiness()
        return Response(readiness, status_code=200 if readiness.ready else 503)

    @get("/metrics", summary="Prometheus metrics", media_type="text/plain")
    async def metrics(request: Request[object, object, State]) -> Response[bytes]:
        if not services.metrics_public:
            await _require_auditor(services.access, request)
        content_type, text = services.metrics()
        # The framework adds the charset to every text by itself.
        return Response(text, media_type=content_type.removesuffix("; charset=utf-8"))

    return [healthz, readyz, metrics]


async def _require_auditor(access: Access, request: Request[object, object, State]) -> None:
    caller = await access(bearer_token(request.scope["headers"]))
    if not caller.decision.audit:
        why = "metrics need an auditor, unless the setting metrics.public says otherwise"
        raise Denied(why).of(proved_of(caller))
