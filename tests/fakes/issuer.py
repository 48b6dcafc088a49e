"""A CI's token issuer: a real HTTP(S) server on loopback with real keys, and bad days on demand.

with Issuer() as issuer:
    policy_entry = {"iss": issuer.iss, "jwks_url": issuer.jwks_url, "allow_private": True}
    token = issuer.token(ref="refs/heads/main", aud="https://cache.example")
    issuer.behaviour = "error"
    assert issuer.requests == 1
"""

import base64
import datetime as dt
import functools
import http.server
import ipaddress
import json
import ssl
import tempfile
import threading
import time
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

BEHAVIOURS = {
    "ok",
    "error",
    "giant",
    "drip",
    "silent",
    "redirect",
    "garbage",
    "compressed",
    "alg-none-entry",
    "duplicate-kid",
    "too-many",
    "empty",
}


@functools.cache
def private_key(kind="RS256", number=0):
    """A key of this kind; the same one for the same number, since RSA keys are slow to make."""
    del number
    if kind == "weak":
        return rsa.generate_private_key(65537, 1024)  # noqa: S505 - it must be refused
    if kind.startswith(("RS", "PS")):
        return rsa.generate_private_key(65537, 2048)
    if kind == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(kind)


def public_jwk(key, kid, **more):
    """The public JWK of a private key."""
    names = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    algorithm = next(found for kind, found in names.items() if isinstance(key, kind))
    members = algorithm.to_jwk(key.public_key(), as_dict=True)
    members.pop("key_ops", None)
    return {**members, "kid": kid, "use": "sig", **more}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def segment(document):
    """A token's segment; bytes and text are taken as they are."""
    if isinstance(document, str):
        document = document.encode()
    if not isinstance(document, bytes):
        document = json.dumps(document).encode()
    return b64(document)


def sign(header, payload, key, algorithm="RS256"):
    """Sign whatever it is given: header and payload may be objects, text or bytes."""
    signing_input = f"{segment(header)}.{segment(payload)}"
    algorithms = jwt.algorithms.get_default_algorithms()
    signature = algorithms[algorithm].sign(signing_input.encode(), key)
    return f"{signing_input}.{b64(signature)}"


class Issuer:
    """See the module. Attributes: `iss`, `jwks_url`, `requests`, `behaviour`, `kid`, `key`."""

    def __init__(self, *, tls=False, algorithm="RS256", clock=time.time, claims=None, iss=None):
        self._iss = iss
        self.algorithm = algorithm
        self.clock = clock
        self.behaviour = "ok"
        self.requests = 0
        self.hosts = []
        self.claims = dict(claims or {})
        self.published = []
        self._number = -1
        self._stop = threading.Event()
        self._tls = tls
        self._certificate = _certificate() if tls else None
        self.rotate()

    def __enter__(self):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._server.handle_error = lambda *_: None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.TemporaryDirectory() as folder:
                pem = Path(folder, "server.pem")
                pem.write_bytes(self._certificate)
                context.load_cert_chain(pem)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self):
        return self._server.server_address[1]

    @property
    def iss(self):
        """Its URL; or what it was told, for an issuer that is never asked for its keys."""
        if self._iss is not None:
            return self._iss
        return self._url("")

    @property
    def jwks_url(self):
        return self._url("/.well-known/jwks")

    def trust(self):
        """A TLS context that trusts this issuer's certificate and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        text = self._certificate.decode()
        context.load_verify_locations(cadata=text[text.index("-----BEGIN CERTIFICATE") :])
        return context

    def rotate(self, *, keep=False):
        """Sign with a new key from now on; `keep` publishes the old ones too."""
        self._number += 1
        self.kid = f"key-{self._number}"
        self.key = private_key(self.algorithm, self._number)
        if not keep:
            self.published.clear()
        self.published.append(public_jwk(self.key, self.kid, alg=self.algorithm))

    def token(self, *, header=None, key=None, without=(), **claims):
        """A token of now, for five minutes; claims of None stay as null."""
        now = int(self.clock())
        payload = {
            "iss": self.iss,
            "sub": "repo:octo/mono:ref:refs/heads/main",
            "iat": now,
            "nbf": now - 5,
            "exp": now + 300,
            "jti": f"{self.kid}-{self._next()}",
            **self.claims,
            **claims,
        }
        for name in without:
            payload.pop(name, None)
        header = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT"} | (header or {})
        return sign(header, payload, key or self.key, self.algorithm)

    def document(self):
        """The key set, in its present mood."""
        keys = list(self.published)
        if self.behaviour == "alg-none-entry":
            keys = [
                {"kty": "RSA", "alg": "none", "kid": "none", "n": "AQAB", "e": "AQAB"},
                {"kty": "oct", "alg": "HS256", "kid": "oct", "k": "c2VjcmV0"},
                "not an object",
                *keys,
            ]
        if self.behaviour == "duplicate-kid":
            keys = [*keys, public_jwk(private_key("RS256", 99), self.kid)]
        if self.behaviour == "too-many":
            keys = [*keys, *({"kty": "RSA", "kid": str(n)} for n in range(100))]
        if self.behaviour == "empty":
            keys = []
        return json.dumps({"keys": keys}).encode()

    def _url(self, path):
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}{path}"

    def _next(self):
        self._tokens = getattr(self, "_tokens", 0) + 1
        return self._tokens

    def _handler(issuer):  # noqa: N805 - the handler's methods have their own self
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.requests += 1
                issuer.hosts.append(self.headers["Host"])
                issuer._answer(self)

            def log_message(self, *_):
                pass

        return Handler

    def _answer(self, handler):
        assert self.behaviour in BEHAVIOURS, self.behaviour
        if self.behaviour == "silent":
            self._stop.wait()
            return
        status = {"error": 500, "redirect": 302}.get(self.behaviour, 200)
        handler.send_response(status)
        if self.behaviour == "redirect":
            handler.send_header("Location", self.jwks_url + "?again")
        if self.behaviour == "compressed":
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        if self.behaviour == "giant":
            for _ in range(2048):
                handler.wfile.write(b" " * 65536)
        elif self.behaviour == "drip":
            while not self._stop.wait(0.02):
                handler.wfile.write(b" ")
        elif self.behaviour == "garbage":
            handler.wfile.write(b'{"keys": [], "keys": []}')
        else:
            handler.wfile.write(self.document())


def _certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("localhost"),
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)
