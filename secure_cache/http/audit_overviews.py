"""`/audit/v1`: what is derived from many entries at once, for the console and for scripts."""

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from secure_cache.audit.namespaces import MAX_SHOWN
from secure_cache.audit.timeline import Bucket
from secure_cache.core.denial_reading import GROUPS, MAX_SPAN_SECONDS
from secure_cache.http.audit_answers import json_answer
from secure_cache.http.audit_question import AnyRequest, Asked
from secure_cache.http.services import Services, TheCaller
from secure_cache.model.clock import rfc3339

MAX_ROWS = 10_000
_DAY_SECONDS = 86_400


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

    @get("/audit/v1/denials", summary="What was refused, as counted by the servers")
    async def denials(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        """`since` and `until` (31 days at most; by itself the last day), and `group`: several of
        hour, day, method, code, who, issuer, project, rule, tier."""
        async with Asked(services, caller, request) as asked:
            asked.only("since", "until", "group")
            since, until = asked.span(MAX_SPAN_SECONDS, by_default=_DAY_SECONDS)
            names = asked.several("group", GROUPS, ("day", "tier", "code"))
            seen = await services.denials.between(since, until)
            rows = seen.by(*names)
            asked.answered = len(rows)
            return json_answer(
                {
                    "since": rfc3339(seen.since),
                    "until": rfc3339(seen.until),
                    "total": seen.total,
                    "counts": [
                        {**dict(zip(names, values, strict=True)), "count": count}
                        for values, count in rows[:MAX_ROWS]
                    ],
                    "unreadable": seen.unreadable,
                    "cut": seen.cut or len(rows) > MAX_ROWS,
                }
            )

    @get("/audit/v1/namespaces", summary="Who may read whom, and what was written")
    async def namespaces(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        """`limit`: so many namespaces, those with the most entries."""
        async with Asked(services, caller, request) as asked:
            asked.only("limit")
            limit = asked.number("limit", 200, at_least=1, at_most=MAX_SHOWN)
            view = await asked.overviews().namespaces(limit)
            asked.answered = len(view.seen)
            return json_answer(view.document())

    @get("/audit/v1/revocations", summary="What the policy in force takes back")
    async def revocations(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        async with Asked(services, caller, request) as asked:
            asked.only()
            found = await asked.overviews().revocations()
            asked.answered = len(found)
            return json_answer({"revocations": [item.document() for item in found]})

    @get("/audit/v1/health", summary="The log, its witnesses, the index, the storage")
    async def health(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        async with Asked(services, caller, request) as asked:
            asked.only()
            return json_answer((await services.health()).document())

    return [timeline, denials, namespaces, revocations, health]
