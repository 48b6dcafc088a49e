"""`secure-cache token`. No token is ever an argument: the process list shows those to everybody."""

import json
import os
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import click

from secure_cache.cli.boundary import note
from secure_cache.cli.decision import decision_document, decision_lines
from secure_cache.cli.options import (
    DURATION,
    config_option,
    duration_text,
    json_option,
    print_json,
    read_settings,
)
from secure_cache.client.ci_token import SOURCES, ci_token, clean_token
from secure_cache.client.http_answer import new_client
from secure_cache.client.remote import ServerAddress, exchange, whoami
from secure_cache.compose.offline import open_offline
from secure_cache.identity.issue import Grant
from secure_cache.identity.tokens import UnverifiedToken, parse_token
from secure_cache.model.clock import rfc3339, system_clock
from secure_cache.settings import Settings

_MAX_TOKEN_BYTES = 16_384

server_option = click.option(
    "--server",
    required=True,
    envvar="SECURE_CACHE_SERVER",
    show_envvar=True,
    help="The server, like https://cache.example.com.",
)
insecure_option = click.option(
    "--insecure-http", is_flag=True, help="Send tokens in plain text, also to other machines."
)


@click.group("token")
def token_command() -> None:
    """Tokens: for CIs without OIDC, for people, and for CI jobs."""


@token_command.command("issue")
@config_option
@click.option("--project", required=True, help="The project in the policy.")
@click.option("--branch", help="For the CI of this branch.")
@click.option("--pull-request", metavar="N", help="For the CI of this pull request (with --base).")
@click.option("--base", help="The branch that the pull request is to be merged into.")
@click.option("--role", help="For a person or tool with this role; at most 12h.")
@click.option(
    "--ttl", type=DURATION, default="1h", show_default=True, help="30m, 8h, 90d (the longest)."
)
def issue_token(  # noqa: PLR0917 - one parameter for each option
    settings: Settings,
    project: str,
    branch: str | None,
    pull_request: str | None,
    base: str | None,
    role: str | None,
    ttl: int,
) -> None:
    """Print a token of this server, alone on stdout; what it may do is said on stderr."""
    if sum(given is not None for given in (branch, pull_request, role)) != 1:
        raise click.UsageError("give exactly one of --branch, --pull-request and --role")
    if (base is None) != (pull_request is None):
        raise click.UsageError("--pull-request and --base go together")
    grant = Grant(project, branch=branch, pull_request=pull_request, base=base, role=role)
    offline = open_offline(settings, system_clock)

    async def work() -> str:
        issued, judged = await offline.issue(
            grant, ttl_seconds=ttl, new_id=lambda: str(uuid.uuid4())
        )
        for line in decision_lines(judged.decision):
            note(line)
        note(f"expires: {rfc3339(issued.expires_at)} (tid {issued.family}, for a revocation)")
        return issued.token

    click.echo(anyio.run(work))


@token_command.command("exchange")
@server_option
@click.option(
    "--from",
    "source",
    default="auto",
    show_default=True,
    help=f"Where the CI's token is: {SOURCES}.",
)
@click.option("--audience", help="What the CI's token is made for; by default the server's URL.")
@insecure_option
@json_option
def exchange_token(
    server: str, source: str, audience: str | None, *, insecure_http: bool, as_json: bool
) -> None:
    """Print a session token for this CI job, alone on stdout.

    The CI's own token lives for minutes and is accepted once; the session lasts for the build.
    """
    address = ServerAddress.parse(server, insecure=insecure_http)
    subject = ci_token(
        source,
        audience=audience or address.audience,
        environ=os.environ,
        client=new_client,
    )
    session = exchange(address, subject, client=new_client)
    if as_json:
        print_json({"token": session.token, "expires_in": session.expires_in})
        return
    click.echo(session.token)
    note(f"The session token is good for {duration_text(session.expires_in)}.")


@token_command.command("inspect")
@click.argument("file", required=False)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Verify it against this server's settings."
)
@click.option("--server", help="Ask this server what the token may do.")
@insecure_option
@json_option
def inspect_token(
    file: str | None,
    config: Path | None,
    server: str | None,
    *,
    insecure_http: bool,
    as_json: bool,
) -> None:
    """Say what the token in FILE says. Without FILE: SECURE_CACHE_TOKEN, else stdin (-).

    Nothing of it is proved unless --config or --server is given.
    """
    token = _read_token(file)
    said = _Inspected.of(token)
    if config is not None:
        said.add_verdict(token, read_settings(config))
    if server is not None:
        address = ServerAddress.parse(server, insecure=insecure_http)
        said.document["whoami"] = whoami(address, token, client=new_client)
    if as_json:
        print_json(said.document)
    else:
        for line in said.lines():
            click.echo(line)


@dataclass(frozen=True, slots=True)
class _Inspected:
    """What is known of a token; the token itself is not in it."""

    document: dict[str, Any]

    @classmethod
    def of(cls, token: str) -> "_Inspected":
        parsed = parse_token(token)
        return cls(
            {
                "verified": False,
                "unverified_header": _header(parsed),
                "unverified_claims": dict(parsed.unverified_claims),
                "unverified_expiry": _expiry(parsed),
            }
        )

    def add_verdict(self, token: str, settings: Settings) -> None:
        offline = open_offline(settings, system_clock)
        judged = anyio.run(offline.judge, token)
        self.document["verified"] = True
        self.document["decision"] = decision_document(judged.decision)

    def lines(self) -> list[str]:
        found: list[str] = []
        for section, value in self.document.items():
            title = section.replace("_", " ")
            if isinstance(value, dict):
                found.append(f"{title}:")
                found += [f"  {name}: {_shown(item)}" for name, item in value.items()]
            else:
                found.append(f"{title}: {_shown(value)}")
        return found


def _header(parsed: UnverifiedToken) -> dict[str, str | None]:
    jws = parsed.jws
    kind = "made by a secure-cache" if jws.own else "made by a CI or another issuer"
    return {"alg": jws.algorithm, "kid": jws.kid, "kind": kind}


def _expiry(parsed: UnverifiedToken) -> str:
    expires = parsed.unverified_claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        return "never said: no server accepts it"
    try:
        moment = rfc3339(expires)
    except (ValueError, OverflowError, OSError):
        return "not a time: no server accepts it"
    left = expires - system_clock()
    if left < 0:
        return f"{moment}, expired {duration_text(-left)} ago"
    return f"{moment}, in {duration_text(left)}"


def _shown(value: object) -> str:
    """One line of printable text, whatever a stranger's claim holds."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def _read_token(file: str | None) -> str:
    if file is None:
        value = os.environ.get("SECURE_CACHE_TOKEN")
        if value:
            return clean_token(value, where="SECURE_CACHE_TOKEN")
    if file in {None, "-"}:
        data = sys.stdin.buffer.read(_MAX_TOKEN_BYTES + 1)
        return clean_token(data.decode("ascii", "replace"), where="stdin")
    assert file is not None  # noqa: S101 - for the type checker
    if file.count(".") == 2 and file.startswith("eyJ"):
        raise click.UsageError(
            "a token does not belong on the command line, where every user of the machine can"
            " read it; pipe it in, or give a file"
        )
    return ci_token(f"file:{file}", audience="", environ={}, client=new_client)
