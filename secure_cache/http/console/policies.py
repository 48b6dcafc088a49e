"""Which policy was in force when, and what each change did."""

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from secure_cache.http.audit_answers import file_answer
from secure_cache.http.audit_question import Asked
from secure_cache.http.console.desk import Answer, AnyRequest, Desk


def policy_routes(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/policies", include_in_schema=False)
    async def policies(request: AnyRequest) -> Answer:
        async def work(asked: Asked) -> Answer:
            versions = await asked.history().versions()
            asked.answered = len(versions)
            return desk.pages.page("policies", page="policies", versions=versions[::-1])

        return await desk.answer(request, work)

    @get("/audit/policies/{sha256:str}", include_in_schema=False)
    async def policy(request: AnyRequest, sha256: FromPath[str]) -> Answer:
        """`against`: the earlier one; by itself the one before."""

        async def work(asked: Asked) -> Answer:
            asked.only("against")
            digest, against = asked.digest("a policy", sha256), asked.one("against", None)
            if against is not None:
                against = asked.digest("against", against)
            found = await asked.history().diff(digest, against)
            versions = await asked.history().versions()
            return desk.pages.page("policy", page="policies", diff=found, versions=versions[::-1])

        return await desk.answer(request, work)

    @get("/audit/policies/{sha256:str}/text", include_in_schema=False)
    async def text(request: AnyRequest, sha256: FromPath[str]) -> Answer:
        async def work(asked: Asked) -> Answer:
            digest = asked.digest("a policy", sha256)
            data = await asked.history().text(digest)
            return file_answer(data, f"policy-{digest[:16]}.yaml", "text/plain")

        return await desk.answer(request, work)

    return [policies, policy, text]
