"""The overview, and the pages about the installation as a whole."""

from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

import anyio
from litestar import get
from litestar.handlers import HTTPRouteHandler

from secure_cache.audit.filters import Filter
from secure_cache.audit.queries import PageRequest
from secure_cache.audit.timeline import Bucket
from secure_cache.http.audit_question import Asked
from secure_cache.http.console.charts import HEIGHT, LEFT, RIGHT, WIDTH, bars, drawings
from secure_cache.http.console.desk import Answer, AnyRequest, Desk
from secure_cache.model.clock import rfc3339
from secure_cache.model.errors import SecureCacheError
from secure_cache.policy.past import Verdict

_DAYS = 30
_DAY_SECONDS = 86_400
_NEWEST = 10
_SHOWN_NAMESPACES = 200


def overview_routes(desk: Desk) -> list[HTTPRouteHandler]:
    shared = Shared()

    @get("/audit/", include_in_schema=False)
    async def overview(request: AnyRequest) -> Answer:
        async def work(asked: Asked) -> Answer:
            view = await shared.get(partial(_overview, desk, asked))
            return desk.pages.page("overview", page="overview", **view)

        return await desk.answer(request, work)

    @get("/audit/namespaces", include_in_schema=False)
    async def namespaces(request: AnyRequest) -> Answer:
        async def work(asked: Asked) -> Answer:
            view = await asked.overviews().namespaces(_SHOWN_NAMESPACES)
            return desk.pages.page(
                "namespaces",
                page="namespaces",
                view=view,
                drawings=drawings(view.graph),
                left=LEFT,
                right=RIGHT,
            )

        return await desk.answer(request, work)

    @get("/audit/revocations", include_in_schema=False)
    async def revocations(request: AnyRequest) -> Answer:
        async def work(asked: Asked) -> Answer:
            found = await asked.overviews().revocations()
            return desk.pages.page("revocations", page="revocations", revocations=found)

        return await desk.answer(request, work)

    @get("/audit/health", include_in_schema=False)
    async def health(request: AnyRequest) -> Answer:
        async def work(_: Asked) -> Answer:
            seen = await desk.services.health()
            return desk.pages.page("health", page="health", health=seen)

        return await desk.answer(request, work)

    return [overview, namespaces, revocations, health]


class Shared:
    """One view for all auditors who ask within a moment: it counts the whole log several times,
    and a page that is reloaded over and over must not cost more than one look a moment."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._one = anyio.Lock()
        self._made: tuple[float, dict[str, Any]] | None = None

    async def get(self, make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Raises: as `make`; what it raises is not kept."""
        async with self._one:
            if self._made is None or perf_counter() - self._made[0] >= self._seconds:
                self._made = None
                view = await make()
                self._made = (perf_counter(), view)
            return self._made[1]


async def _overview(desk: Desk, asked: Asked) -> dict[str, Any]:
    """The last days, the newest entries, and what asks for a look."""
    auditor, now = asked.auditor(), int(desk.services.clock())
    since = (now // _DAY_SECONDS - _DAYS + 1) * _DAY_SECONDS
    wanted = Filter.parse({"event": ["stored"], "since": [rfc3339(since)]})
    timeline = await auditor.timeline(wanted, Bucket.DAY)
    denials = await desk.services.denials.between(since, now)
    newest = await auditor.query(Filter.parse({}), PageRequest(limit=_NEWEST, newest_first=True))
    totals = {
        event: await auditor.count(Filter.parse({"event": [event]}))
        for event in ("stored", "policy", "keys", "quarantined", "unreadable")
    }
    return {
        "bars": bars(
            ((cell.start or 0, cell.tier or "", cell.entries) for cell in timeline.cells),
            ((cell.start, cell.denial.tier, cell.count) for cell in denials.cells),
            since=since,
            until=now,
        ),
        "height": HEIGHT,
        "width": WIDTH,
        "stored": timeline.total,
        "refused": denials,
        "newest": newest.rows,
        "totals": totals,
        "size": newest.size,
        "troubles": await _troubles(desk, asked, totals),
        "days": _DAYS,
    }


async def _troubles(desk: Desk, asked: Asked, totals: dict[str, int]) -> list[tuple[str, str]]:
    """One line each, and where to look."""
    found = []
    if totals["unreadable"]:
        found.append(
            (f"{totals['unreadable']} entries are no statements of ours", "search?event=unreadable")
        )
    if totals["quarantined"]:
        found.append(
            (f"{totals['quarantined']} entries were quarantined", "search?event=quarantined")
        )
    try:
        versions = await asked.history().versions()
    except SecureCacheError as error:
        found.append((f"The policies' history cannot be read: {error.title}", "policies"))
    else:
        loosened = [item for item in versions if item.verdict is Verdict.LOOSENED]
        if loosened:
            last = loosened[-1].in_force
            found.append(
                (f"The policy was loosened, last on {rfc3339(last.at)}", f"policies/{last.sha256}")
            )
    health = await desk.services.health()
    found += [
        (f"{part}: {trouble}", "health") for part, trouble in health.troubles.items() if trouble
    ]
    return found
