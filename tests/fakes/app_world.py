"""The real application over real files and real tokens of a CI, in this process.

Everything is what `secure-cache serve` runs but the socket: settings, policy file, keys, stores on
disk, log, Litestar. Two issuers sign with keys of their own, and the policy names their key files.
"""

import json
import os
from contextlib import asynccontextmanager

import anyio
import httpx
from fakes.clock import HeldClock
from fakes.issuer import Issuer

from secure_cache.compose.init import initialise
from secure_cache.compose.server import Server
from secure_cache.http.server import Worker
from secure_cache.identity.issue import Ed25519TokenSigner, Grant, TokenIssuer
from secure_cache.settings import load_settings

AUDIENCE = "https://cache.acme.example"
GITHUB_ISS = "https://token.actions.githubusercontent.com"
GITLAB_ISS = "https://gitlab.com"

POLICY = """\
version: 1
audience: https://cache.acme.example
issuers:
  gha: { preset: github, jwks_file: gha.json, pin: { repository_owner_id: "65" } }
  gitlab: { preset: gitlab, jwks_file: gitlab.json, pin: { namespace_id: "72" } }
  own: { preset: self }
rulesets:
  standard:
    - { name: publish, when: { branch: main }, claims: { environment: npm }, tier: trusted,
        read: [] }
    - { name: main, when: { branch: main }, tier: trusted, write: self, read: [self] }
    - { name: queue, when: { merge_queue: main }, tier: candidate, write: self,
        read: [branch/main, self] }
    - { name: pull-request, when: { pull_request: any }, tier: contributor, write: self,
        read: [branch/main, base, self] }
    - { name: other-branch, when: { branch: "**" }, tier: contributor, write: self,
        read: [branch/main, self] }
    - { name: blind, when: { role: blind }, tier: contributor, read: [] }
    - { name: developer, when: { role: developer }, tier: contributor, read: [branch/main] }
    - { name: auditor, when: { role: auditor }, tier: contributor, read: [], audit: true }
projects:
  mono: { issuers: [gha, own], match: { repository_id: "74" }, ruleset: standard }
  other: { issuers: [gha], match: { repository_id: "101" }, ruleset: standard }
  lab: { issuers: [gitlab], match: { project_id: "20" }, ruleset: standard }
revocations: []
"""

GITHUB_MAIN = {
    "aud": AUDIENCE,
    "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
    "repository": "octo-org/octo-repo",
    "repository_id": "74",
    "repository_owner": "octo-org",
    "repository_owner_id": "65",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "event_name": "push",
    "run_id": "1000",
    "actor_id": "12",
}
GITLAB_MAIN = {
    "aud": AUDIENCE,
    "sub": "project_path:g/p:ref_type:branch:ref:main",
    "project_id": "20",
    "namespace_id": "72",
    "job_project_id": "20",
    "pipeline_source": "push",
    "ref": "main",
    "ref_type": "branch",
    "ref_path": "refs/heads/main",
    "ref_protected": "true",
    "user_id": "1",
}


class AppWorld:
    """See the module. `edit` puts another policy in force; `clock` moves when it is told to."""

    def __init__(self, folder, **environ):
        self.folder = folder / "server"
        self.clock = HeldClock()
        initialise(self.folder, url=AUDIENCE, clock=self.clock, random_bytes=os.urandom)
        self.github = Issuer(iss=GITHUB_ISS, clock=self.clock, claims=GITHUB_MAIN)
        self.gitlab = Issuer(iss=GITLAB_ISS, clock=self.clock, claims=GITLAB_MAIN)
        # Not the same key as GitHub's: tests share the keys that are slow to make.
        self.gitlab.rotate()
        for name, issuer in (("gha", self.github), ("gitlab", self.gitlab)):
            document = json.dumps({"keys": issuer.published})
            (self.folder / f"{name}.json").write_text(document)
        self.policy = self.folder / "policy.yaml"
        self.policy.write_text(POLICY)
        # Edits are taken up when `edit` says so, and not by chance before.
        variables = {"SECURE_CACHE_POLICY_POLL_SECONDS": "3600", **environ}
        settings = load_settings(self.folder / "secure-cache.toml", variables)
        self.server = Server(settings, worker=Worker(), clock=self.clock)
        self.app = self.server.app()

    def edit(self, text):
        self.policy.write_text(text)
        holder = self.server._parts.policy
        holder.look()
        holder.look()
        assert holder.trouble is None, holder.trouble

    # who asks

    def main(self, **claims):
        """A push to main, on GitHub."""
        return self.github.token(**claims)

    def pull_request(self, number, **claims):
        return self.github.token(
            **{
                "event_name": "pull_request",
                "ref": f"refs/pull/{number}/merge",
                "ref_protected": "false",
                "base_ref": "main",
                "head_ref": "feature",
                "sub": "repo:octo-org/octo-repo:pull_request",
                **claims,
            }
        )

    def own(self, **grant):
        """A token that this server issued itself, for one branch, pull request or role."""
        signer = self.server._parts.keys.current.token_signer(self.clock())
        maker = TokenIssuer(
            Ed25519TokenSigner(signer.private_key),
            AUDIENCE,
            self.clock,
            lambda: os.urandom(8).hex(),
        )
        return maker.issue_token(Grant("mono", **grant), ttl_seconds=3600).token

    # what they ask

    @asynccontextmanager
    async def running(self):
        """Run the application's lifespan; gives itself."""
        started, ended = anyio.Event(), anyio.Event()
        messages = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))

        async def receive():
            message = next(messages)
            if message["type"] == "lifespan.shutdown":
                await ended.wait()
            return message

        async def send(message):
            assert not message["type"].endswith("failed"), message
            started.set()

        failed = None
        async with anyio.create_task_group() as group:
            group.start_soon(self.app, {"type": "lifespan", "state": {}}, receive, send)
            await started.wait()
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            try:
                async with httpx.AsyncClient(transport=transport, base_url=AUDIENCE) as self.client:
                    yield self
            except BaseException as error:  # noqa: BLE001 - raised below
                # In here it would cancel the lifespan, which Python 3.11 can unwind for ever.
                failed = error
            ended.set()
        if failed is not None:
            raise failed

    async def request(self, method, path, token=None, **more):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        headers |= more.pop("headers", {})
        return await self.client.request(method, path, headers=headers, **more)

    async def get(self, token, key):
        return await self.request("GET", f"/v1/cache/{key}", token)

    async def put(self, token, key, body):
        return await self.request("PUT", f"/v1/cache/{key}", token, content=body)

    async def whoami(self, token):
        return (await self.request("GET", "/v1/whoami", token)).json()

    async def exchange(self, token):
        return await self.request("POST", "/v1/token", token)

    def stored(self):
        """Every stored record and artifact, by its path."""
        data = self.folder / "data"
        return sorted(
            str(path.relative_to(data))
            for store in ("records", "artifacts")
            for path in (data / store).rglob("*")
            if path.is_file() and ".tmp" not in path.parts
        )
