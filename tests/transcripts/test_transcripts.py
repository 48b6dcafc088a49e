"""Plays the conversations in this folder against the whole application, in one process."""

import re
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secure_cache.compose.init import initialise
from secure_cache.compose.server import Server
from secure_cache.http.server import Worker
from secure_cache.identity.issue import Ed25519TokenSigner, Grant, TokenIssuer
from secure_cache.model.clock import system_clock
from secure_cache.settings import load_settings

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent
GRANTS = {
    "main": Grant("demo", branch="main"),
    "pr": Grant("demo", pull_request="7", base="main"),
    "other": Grant("demo", pull_request="8", base="main"),
    "feature": Grant("demo", branch="feature"),
    "developer": Grant("demo", role="developer"),
    "auditor": Grant("demo", role="auditor"),
}


def scenes(name):
    """Each scene of a file: its title, and what is asked and answered."""
    title, steps = None, []
    for line in (FOLDER / name).read_text().splitlines():
        if line.startswith("=="):
            if title:
                yield pytest.param(steps, id=title)
            title, steps = line.removeprefix("==").strip(), []
        elif line.startswith(">"):
            method, path, caller = line[1:].split()
            steps.append(SimpleNamespace(method=method, path=path, caller=caller, body=b""))
        elif line.startswith("<"):
            status, reason, body = [*line[1:].split(maxsplit=2), "", ""][:3]
            steps[-1].status, steps[-1].reason = int(status), reason.removeprefix("-")
            steps[-1].answer = body.encode()
        elif line and not line.startswith("#"):
            steps[-1].body = line.encode()
    yield pytest.param(steps, id=title)


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """Made outside any event loop, as the command does it."""
    folder = tmp_path_factory.mktemp("transcripts") / "server"
    return initialise(folder, url=None, clock=system_clock, random_bytes=lambda n: b"\x07" * n)


def tokens(server, audience):
    key = server._parts.keys.current.token_signer(system_clock()).private_key

    def issue(grant, signing_key=key, clock=system_clock):
        signer = Ed25519TokenSigner(signing_key)
        return TokenIssuer(signer, audience, clock, lambda: "id").issue_token(grant).token

    made = {name: issue(grant) for name, grant in GRANTS.items()}
    made["expired"] = issue(GRANTS["main"], clock=lambda: system_clock() - 7200)
    made["stranger"] = issue(GRANTS["main"], signing_key=Ed25519PrivateKey.generate())
    made["garbage"] = "not-a-token"
    return made


@pytest.mark.parametrize("steps", list(scenes("nx.txt")))
async def test_the_nx_protocol(steps, installation):
    server = Server(load_settings(installation.config, {}), worker=Worker())
    transport = httpx.ASGITransport(app=server.app(), raise_app_exceptions=True)
    async with server._running(), httpx.AsyncClient(transport=transport) as client:
        bearer = tokens(server, installation.audience)
        for step in steps:
            headers = {}
            if step.caller in bearer:
                headers["authorization"] = f"Bearer {bearer[step.caller]}"
            answer = await client.request(
                step.method,
                httpx.URL("http://cache.test").copy_with(raw_path=step.path.encode()),
                headers=headers,
                content=step.body or None,
            )
            said = f"{step.method} {step.path} as {step.caller}: {answer.text}"
            assert answer.status_code == step.status, said
            assert answer.headers.get("x-secure-cache-reason", "") == step.reason, said
            if step.answer:
                assert answer.content == step.answer, said
            if step.status != 200 and step.method != "HEAD":
                assert answer.headers["content-type"] == "text/plain"
                assert re.fullmatch(r"[^\n]+", answer.text)
