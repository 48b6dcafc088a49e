"""A running server with a log worth looking at, for a browser at its console."""

from contextlib import contextmanager

from fakes.issuer import Issuer
from world.github_ci import MAIN, trust_ci
from world.server import Server, wait_until

HOSTILE = (
    "<script>fetch('http://evil.example')</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.exe\u2066 \x1b[31mred\x1b[0m \u200b",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 3000,
    "=HYPERLINK(1)",
    "ᚠ日本語😀",
)
SIGN_IN = """
  await page.goto(input.url + "/audit/");
  await page.waitForURL("**/audit/sign-in");
  await page.getByLabel("Auditor's token").fill(input.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/audit/");
"""


@contextmanager
def console_server(folder):
    """A server and an auditor's token. The log has an opening, policies, and entries of a branch,
    of a pull request and of writers whose claims are hostile."""
    with Issuer() as issuer:
        issuer.claims = MAIN
        server = Server(
            folder,
            environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"},
        )
        trust_ci(server, issuer)
        server.start()
        main, pull_request = server.token(), server.token(pr=7)
        for number in range(20):
            assert server.put(main, str(1000 + number), b"main").status_code == 200
            assert server.put(pull_request, str(2000 + number), b"pr").status_code == 200
        for number, text in enumerate(HOSTILE):
            hostile = issuer.token(sub=text[:900], workflow=text[:900], actor=text[:200])
            assert server.put(hostile, str(3000 + number), b"x").status_code == 200
        auditor = server.token(role="auditor")
        for refused in [server.token(role="developer")] * 9 + [auditor] * 2:
            assert server.put(refused, "4000", b"x").status_code == 403
        assert server.put(None, "4000", b"x").status_code == 403
        assert server.put("not.a.token", "4000", b"x").status_code == 401
        server.revoke(run_id="99", actor_id="<b>1</b>")

        def indexed():
            with server.client(auditor) as client:
                answer = client.get("/audit/v1/counts", params={"event": "policy"})
            return answer.status_code == 200 and answer.json()["total"] >= 2

        wait_until(indexed, "the index")
        try:
            yield server, auditor
        finally:
            server.kill9()
