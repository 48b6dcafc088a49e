"""`/audit/v1/policies`: which policy was in force when, its text, and what each change did."""

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Response

from secure_cache.http.audit_answers import file_answer, json_answer
from secure_cache.http.audit_question import AnyRequest, Asked
from secure_cache.http.services import Services, TheCaller


def policy_routes(services: Services) -> list[HTTPRouteHandler]:
    @get("/audit/v1/policies", summary="Which policy was in force when, and what it changed")
    async def policies(request: AnyRequest, caller: TheCaller) -> Response[bytes]:
        async with Asked(services, caller, request) as asked:
            asked.only()
            found = await asked.history().versions()
            asked.answered = len(found)
            return json_answer({"policies": [version.document() for version in found]})

    @get("/audit/v1/policies/{sha256:str}", summary="The text of a policy, byte for byte")
    async def text(
        request: AnyRequest, caller: TheCaller, sha256: FromPath[str]
    ) -> Response[bytes]:
        async with Asked(services, caller, request) as asked:
            asked.only()
            digest = asked.digest("a policy", sha256)
            data = await asked.history().text(digest)
            return file_answer(data, f"policy-{digest[:16]}.yaml", "text/plain")

    @get("/audit/v1/policies/{sha256:str}/diff", summary="What a policy changed")
    async def difference(
        request: AnyRequest, caller: TheCaller, sha256: FromPath[str]
    ) -> Response[bytes]:
        """`against`: the earlier policy; by default the one before."""
        async with Asked(services, caller, request) as asked:
            asked.only("against")
            digest, against = asked.digest("a policy", sha256), asked.one("against", None)
            if against is not None:
                against = asked.digest("against", against)
            found = await asked.history().diff(digest, against)
            asked.answered = len(found.hunks)
            return json_answer(found.document())

    return [policies, text, difference]
