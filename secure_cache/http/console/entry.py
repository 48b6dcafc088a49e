"""One entry: its provenance as a chain, and what a browser needs to verify it by itself."""

import base64
import json
from typing import Any, NamedTuple

import rfc8785
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from secure_cache.audit.auditor import Details
from secure_cache.audit.forms import inert_json
from secure_cache.audit.row import STORED, UNREADABLE, Row
from secure_cache.http.audit_answers import file_answer, json_answer
from secure_cache.http.audit_question import Asked
from secure_cache.http.console.desk import Answer, AnyRequest, Desk
from secure_cache.model.errors import NotFound, WrongFilter

_MAX_INDEX = 10**18


def entry_routes(desk: Desk) -> list[HTTPRouteHandler]:
    return [*_page(desk), *_evidence(desk), *_downloads(desk)]


def _page(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/entries/{index:str}", include_in_schema=False)
    async def entry(request: AnyRequest, index: FromPath[str]) -> Answer:
        async def work(asked: Asked) -> Answer:
            number = _index(asked, index)
            details = await asked.auditor().details(number)
            return desk.pages.page("entry", page="search", **entry_view(details))

        return await desk.answer(request, work)

    return [entry]


def _evidence(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/entries/{index:str}/evidence", include_in_schema=False)
    async def evidence(request: AnyRequest, index: FromPath[str]) -> Answer:
        """Everything that a verifier needs, and nothing that it has to believe."""

        async def work(asked: Asked) -> Answer:
            auditor, number = asked.auditor(), _index(asked, index)
            proof, leaf = await auditor.proof(number), await auditor.envelope(number)
            return json_answer(
                {
                    "index": number,
                    "leaf": base64.b64encode(leaf).decode(),
                    "proof": proof.decode(),
                    "vkeys": desk.services.vkeys().splitlines(),
                    "keys": desk.services.key_ring().decode(),
                    "witnesses": await _witness_keys(desk),
                }
            )

        return await desk.answer(request, work)

    @get("/audit/consistency", include_in_schema=False)
    async def consistency(request: AnyRequest) -> Answer:
        """`old` and `new`: that the log of `new` entries continues that of `old`."""

        async def work(asked: Asked) -> Answer:
            asked.only("old", "new")
            old, new = asked.number("old", None, at_least=1), asked.number("new", None, at_least=1)
            if old is None or new is None or old > new:
                raise WrongFilter("old: a size of the log, at most new")
            hashes = await desk.services.log.consistency_proof(old, new)
            return json_answer({"hashes": [base64.b64encode(item).decode() for item in hashes]})

        return await desk.answer(request, work)

    return [evidence, consistency]


def _downloads(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/entries/{index:str}/{form:str}", include_in_schema=False)
    async def download(request: AnyRequest, index: FromPath[str], form: FromPath[str]) -> Answer:
        async def work(asked: Asked) -> Answer:
            auditor, number = asked.auditor(), _index(asked, index)
            if form == "proof":
                data = await auditor.proof(number)
                return file_answer(data, f"{number}.tlog-proof", "text/plain")
            if form == "leaf":
                data = await auditor.envelope(number)
                return file_answer(data, f"{number}.leaf", "application/octet-stream")
            if form == "bundle":
                data = inert_json(await auditor.bundle(number))
                return file_answer(data, f"{number}.sigstore.json", "application/json")
            raise NotFound("no such form")

        return await desk.answer(request, work)

    return [download]


def _index(asked: Asked, text: str) -> int:
    number = asked.index(text)
    if number > _MAX_INDEX:
        raise NotFound("no log has so many entries")
    return number


async def _witness_keys(desk: Desk) -> list[str]:
    """Of the witnesses that are asked; which of them have signed is in the checkpoint."""
    witnesses = (await desk.services.health()).witnesses
    return [] if witnesses is None else [witness.vkey for witness in witnesses.witnesses]


class Fact(NamedTuple):
    """One line of the page, and what of the verified statement it must be: a JSON pointer, or a
    name that `shown.js` knows; None for what no statement says."""

    name: str
    value: object
    says: str | None = None


def entry_view(details: Details) -> dict[str, Any]:
    """What the page shows; also of a leaf that is no statement, or one with odd members."""
    document = details.document()
    statement = document["statement"] or {}
    predicate = statement.get("predicate", {})
    writer = predicate.get("writer", {})
    notes = details.proof.checkpoint.decode("utf-8", "replace").partition("\n\n")[2]
    signers = [line.split(" ")[1] for line in notes.splitlines() if line.startswith("\u2014 ")]
    return {
        "row": details.row,
        "entry": document["entry"],
        "writer": writer,
        "token": [
            Fact(label, writer.get(name), f"/predicate/writer/{name}")
            for label, name in _TOKEN_FACTS.items()
        ],
        "claims": [
            Fact(name, _claim(value), f"/predicate/writer/claims/{_pointer(name)}")
            for name, value in sorted(writer.get("claims", {}).items())
        ],
        "grant": [Fact(name, predicate.get(name), f"/predicate/{name}") for name in _GRANT_FACTS],
        "stated": _stated(details.row, document["entry"]),
        "predicate": predicate,
        "statement": json.dumps(statement, indent=2, ensure_ascii=True) if statement else "",
        "signature": document["signature"],
        "proof": document["proof"],
        "signers": signers,
        "state": document["state"],
        "about": details.about,
    }


_TOKEN_FACTS = {
    "issuer": "issuer",
    "iss": "iss",
    "subject": "sub",
    "token": "token_id",
    "family": "family",
}
_GRANT_FACTS = ("rule", "tier", "epoch")


def _stated(row: Row, entry: dict[str, Any]) -> list[Fact]:
    """From the index: that it says what the statement says is what the browser looks at."""
    if row.event == UNREADABLE:
        return []
    stored = row.event == STORED
    about = "/predicate" if stored else "/predicate/event"
    return [
        Fact("time", entry.get("time"), "/predicate/storedAt" if stored else "/predicate/at"),
        Fact("namespace", row.namespace, "namespace"),
        Fact("key", row.key, f"{about}/key"),
        Fact("digest", row.digest, "/subject/0/digest/sha256"),
        Fact("bytes", row.size, f"{about}/sizeBytes"),
        Fact("entry id", row.entry_id, f"{about}/entryId"),
        Fact("server", row.server, "/predicate/server"),
    ]


def _claim(value: object) -> str:
    """A claim that is no text in the one spelling that its statement has it in."""
    return value if isinstance(value, str) else rfc8785.dumps(value).decode()  # type: ignore[arg-type]


def _pointer(name: str) -> str:
    """A member's name in a JSON pointer, RFC 6901."""
    return name.replace("~", "~0").replace("/", "~1")
