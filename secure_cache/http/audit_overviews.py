"""`/audit/v1`: what is derived from many entries at once, for the console and for scripts."""

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from secure_cache.audit.timeline import Bucket
from secure_cache.http.audit_answers import json_answer
from secure_cache.http.audit_question import AnyRequest, Asked
from secure_cache.http.services import Services, TheCaller


def overview_routes(services: Services) -> list[HTTPRouteHandler]:
    @get("/audit/v1/timeline", summary="How many entries when, by tier and event")
    async def timeline(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        """Filters, and `bucket` (hour, day): by itself hours for a week at most."""
        async with Asked(services, caller, request) as asked:
            wanted, _ = asked.filter_and_page(frozenset({"bucket"}))
            name = asked.one("bucket", None)
            bucket = None if name is None else Bucket(asked.choice("bucket", name, tuple(Bucket)))
            found = await asked.auditor().timeline(wanted, bucket)
            asked.answered = len(found.cells)
            return json_answer(found.document())

    return [timeline]
