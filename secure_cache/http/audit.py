"""`/audit/v1`: the audit API, for those whom the policy makes auditors.

Statuses are true here: no build waits for these answers. Each question is told to the server's
own log, with who asked it: auditors are watched too.
"""

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Response, Stream

from secure_cache.audit.forms import inert_json, row_document
from secure_cache.audit.index import MAX_GROUPS
from secure_cache.audit.segment import GROUPS
from secure_cache.http.audit_answers import PRIVATE, file_answer, json_answer
from secure_cache.http.audit_export import export_answer
from secure_cache.http.audit_overviews import overview_routes
from secure_cache.http.audit_policies import policy_routes
from secure_cache.http.audit_question import PAGE_NAMES, AnyRequest, Asked
from secure_cache.http.services import Services, TheCaller


def audit_routes(services: Services) -> list[HTTPRouteHandler]:
    """The routes; they stand where a caller is provided."""
    return [
        *_many_entries(services),
        *_one_entry(services),
        *_forms_of_one_entry(services),
        *_overviews(services),
        *overview_routes(services),
        *policy_routes(services),
    ]


def _many_entries(services: Services) -> list[HTTPRouteHandler]:
    @get("/audit/v1/entries", summary="Entries of the log that match a filter, page by page")
    async def entries(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        """Filters, and `limit`, `after`, `before` (log indexes) and `order` (oldest, newest)."""
        async with Asked(services, caller, request) as asked:
            wanted, page = asked.filter_and_page(PAGE_NAMES)
            answer = await asked.auditor().query(wanted, page)
            asked.answered = len(answer.rows)
            last = answer.rows[-1].number if answer.more else None
            return json_answer(
                {
                    "size": answer.size,
                    "entries": [row_document(row) for row in answer.rows],
                    "next": {("before" if page.newest_first else "after"): last}
                    if answer.more
                    else None,
                }
            )

    @get("/audit/v1/export", summary="All entries that match a filter, as JSON lines or CSV")
    async def export(request: AnyRequest, caller: TheCaller) -> Stream:
        """Filters, `format` (jsonl, csv), `after`, `before` and `order`."""
        async with Asked(services, caller, request) as asked:
            return await export_answer(asked, PRIVATE)

    return [entries, export]


def _one_entry(services: Services) -> list[HTTPRouteHandler]:
    @get("/audit/v1/entries/{index:str}", summary="Everything about one entry of the log")
    async def entry(
        request: AnyRequest, caller: TheCaller, index: FromPath[str]
    ) -> Response[bytes]:
        async with Asked(services, caller, request) as asked:
            details = await asked.auditor().details(asked.index(index))
            return json_answer(details.document())

    return [entry]


def _forms_of_one_entry(services: Services) -> list[HTTPRouteHandler]:
    @get("/audit/v1/entries/{index:str}/proof", summary="Its inclusion, as a .tlog-proof file")
    async def proof(
        request: AnyRequest, caller: TheCaller, index: FromPath[str]
    ) -> Response[bytes]:
        async with Asked(services, caller, request) as asked:
            number = asked.index(index)
            data = await asked.auditor().proof(number)
            return file_answer(data, f"{number}.tlog-proof", "text/plain")

    @get("/audit/v1/entries/{index:str}/envelope", summary="Its exact bytes, the leaf")
    async def envelope(
        request: AnyRequest, caller: TheCaller, index: FromPath[str]
    ) -> Response[bytes]:
        async with Asked(services, caller, request) as asked:
            number = asked.index(index)
            data = await asked.auditor().envelope(number)
            return file_answer(data, f"{number}.leaf", "application/octet-stream")

    @get("/audit/v1/entries/{index:str}/bundle", summary="It as a Sigstore bundle")
    async def bundle(
        request: AnyRequest, caller: TheCaller, index: FromPath[str]
    ) -> Response[bytes]:
        async with Asked(services, caller, request) as asked:
            number = asked.index(index)
            data = inert_json(await asked.auditor().bundle(number))
            return file_answer(data, f"{number}.sigstore.json", "application/json")

    return [proof, envelope, bundle]


def _overviews(services: Services) -> list[HTTPRouteHandler]:
    @get("/audit/v1/counts", summary="How many entries match a filter, also by group")
    async def counts(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        """Filters, `group` (namespace, writer, rule, day, ...) and `limit`."""
        async with Asked(services, caller, request) as asked:
            wanted, _ = asked.filter_and_page(frozenset({"group", "limit"}))
            group = asked.one("group", None)
            if group is None:
                return json_answer({"total": await asked.auditor().count(wanted)})
            limit = asked.number("limit", MAX_GROUPS, at_least=1, at_most=MAX_GROUPS)
            found = await asked.auditor().count_by(
                asked.choice("group", group, tuple(GROUPS)), wanted, limit=limit
            )
            asked.answered = len(found.counts)
            return json_answer(
                {
                    "size": found.size,
                    "total": found.total,
                    "distinct": found.distinct,
                    "group": group,
                    "counts": [{"value": value, "entries": n} for value, n in found.counts],
                }
            )

    @get("/audit/v1/status", summary="How far the index has come")
    async def status(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        async with Asked(services, caller, request):
            return json_answer(await services.audit.status())

    return [counts, status]
