"""GitHub Actions as a server meets it: an issuer that its policy trusts, and tokens of its jobs."""

from fakes.issuer import Issuer
from world.server import Server

AUDIENCE = "https://secure-cache.localhost"
MAIN = {
    "aud": AUDIENCE,
    "repository_owner_id": "65",
    "repository_id": "74",
    "repository": "octo/mono",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "event_name": "push",
    "sub": "repo:octo/mono:ref:refs/heads/main",
}
PULL_REQUEST = MAIN | {
    "ref": "refs/pull/5/merge",
    "ref_protected": "false",
    "event_name": "pull_request",
    "head_ref": "feature",
    "base_ref": "main",
    "sub": "repo:octo/mono:pull_request",
}
_ISSUER = """
issuers:
  ci:
    preset: github
    iss: {iss}
    jwks_url: {jwks_url}
    allow_private: true
    pin: {{ repository_owner_id: "65" }}
"""
_PROJECT = """
projects:
  mono:
    issuers: [ci]
    ruleset: standard
    match: { repository_id: "74" }
"""


def trust_ci(server: Server, issuer: Issuer) -> None:
    """Add to the server's policy the issuer `ci`, and the project `mono` of its jobs."""
    more = _ISSUER.format(iss=issuer.iss, jwks_url=issuer.jwks_url)

    def trust(text: str) -> str:
        assert "\nissuers:\n" in text
        return text.replace("\nissuers:\n", more).replace("\nprojects:\n", _PROJECT)

    server.edit_policy(trust)
