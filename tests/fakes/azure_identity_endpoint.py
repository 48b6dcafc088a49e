"""Who hands out tokens in Azure: a host's managed-identity endpoint, and the token service (STS)
that workload identities and client secrets turn to. Real HTTP servers on loopback; the tokens are
those that Azurite's `--oauth basic` accepts.

    with ManagedIdentity() as identity:
        environment = identity.environment
        identity.status = 500
        assert len(identity.requests) == 1
"""

import http.server
import json
import threading
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from world.azurite import unsigned_token
from world.tls import Certificate

RESOURCE = "https://storage.azure.com"
TENANT = "00000000-0000-0000-0000-000000000001"
CLIENT = "00000000-0000-0000-0000-000000000003"


@dataclass(frozen=True)
class Asked:
    """One request: its path, and its parameters from the query or from the form."""

    path: str
    parameters: dict[str, str]


class _TokenServer:
    """Attributes that a test may set at any time:

    lifetime: of the tokens, in seconds; below 300 a client asks again before each use, below 0
        they have expired.
    status: of the answers; other than 200 there is no token.
    requests: every request with a good secret.
    refused: how many came without one.
    """

    def __init__(self, certificate: Certificate | None = None):
        self.lifetime = 3600.0
        self.status = 200
        self.requests: list[Asked] = []
        self.refused = 0
        self._scheme = "http" if certificate is None else "https"
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._server.handle_error = lambda *_: None
        if certificate is not None:
            self._server.socket = certificate.server_context().wrap_socket(
                self._server.socket, server_side=True
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def accepts(self, asked: Asked, headers: Any) -> bool:
        """Whether the asker has shown the secret that this server wants."""
        raise NotImplementedError

    def granted(self) -> dict[str, object]:
        """The answer's members beside the token and its type."""
        raise NotImplementedError

    def answer(self, asked: Asked, headers: Any) -> tuple[int, dict[str, object]]:
        if not self.accepts(asked, headers):
            self.refused += 1
            return 401, {"error": "invalid_client", "error_description": "AADSTS700027: who?"}
        self.requests.append(asked)
        if self.status != 200:
            return self.status, {"error": "invalid_request", "error_description": "as told"}
        token = unsigned_token(lifetime=self.lifetime)
        return 200, {"access_token": token, "token_type": "Bearer", **self.granted()}

    def _handler(server) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: N805 - see issuer.py
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(urlsplit(self.path).query)

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

            def _answer(self, text: str) -> None:
                asked = Asked(urlsplit(self.path).path, dict(parse_qsl(text)))
                status, document = server.answer(asked, self.headers)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class ManagedIdentity(_TokenServer):
    """What Container Apps and App Service put beside a program."""

    SECRET: ClassVar = "header-of-this-host"

    @property
    def environment(self) -> dict[str, str]:
        return {"IDENTITY_ENDPOINT": f"{self.url}/msi/token", "IDENTITY_HEADER": self.SECRET}

    def accepts(self, asked: Asked, headers: Any) -> bool:
        return (
            headers["X-IDENTITY-HEADER"] == self.SECRET
            and asked.path == "/msi/token"
            and asked.parameters.get("api-version") == "2019-08-01"
            and asked.parameters.get("resource") == RESOURCE
        )

    def granted(self) -> dict[str, object]:
        return {"expires_on": str(int(time.time() + self.lifetime)), "resource": RESOURCE}


class TokenService(_TokenServer):
    """Entra ID's token endpoint, for one client of one tenant. It speaks TLS: give it Azurite's
    certificate, since a client of both trusts one CA."""

    SECRET: ClassVar = "secret-of-this-client"
    ASSERTION: ClassVar = "projected.service-account.token"

    def __init__(self, certificate: Certificate):
        super().__init__(certificate)

    @property
    def environment(self) -> dict[str, str]:
        """Of every client; then comes `AZURE_CLIENT_SECRET`, or `AZURE_FEDERATED_TOKEN_FILE` with
        `ASSERTION` in the file."""
        return {
            "AZURE_AUTHORITY_HOST": self.url,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
        }

    def accepts(self, asked: Asked, headers: Any) -> bool:
        del headers
        proved = (asked.parameters.get("client_secret"), asked.parameters.get("client_assertion"))
        return (
            asked.path == f"/{TENANT}/oauth2/v2.0/token"
            and asked.parameters.get("client_id") == CLIENT
            and asked.parameters.get("scope") == f"{RESOURCE}/.default"
            and proved in ((self.SECRET, None), (None, self.ASSERTION))
        )

    def granted(self) -> dict[str, object]:
        return {"expires_in": int(self.lifetime), "ext_expires_in": int(self.lifetime)}
