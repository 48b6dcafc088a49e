"""Signing in: the auditor's token in a cookie, judged anew with each request.

There is no session on the server. So every worker and replica knows the same at once, and a token
that is revoked, or a policy that says `audit` no longer, ends it with the next click.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from secure_cache.http.bearer import MAX_TOKEN_BYTES, bearer_token
from secure_cache.model.errors import Denied, InvalidToken, Malformed, TooLarge

COOKIE = "secure_cache_auditor"
MAX_COOKIE_BYTES = 3800
"""Browsers keep 4096 with name and attributes, and drop what is longer without a word."""
MAX_PLACE_CHARACTERS = 2048
MAX_FORM_BYTES = MAX_TOKEN_BYTES + 3 * MAX_PLACE_CHARACTERS

Headers = Iterable[tuple[bytes, bytes]]

_PLACE = re.compile(r"[a-z0-9-][a-z0-9/-]{0,200}(?:\?[!-~]*)?")
_LOOPBACK = re.compile(
    r"(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """What a browser says of the way that it came.

    Attributes:
        headers: of the request.
        scheme: as this server was reached; a proxy with TLS in front speaks plain http to it.
    """

    headers: Headers
    scheme: str

    def said(self, name: bytes) -> str:
        """A header's last value; empty without it."""
        values = [value for key, value in self.headers if key == name]
        return values[-1].decode("latin-1") if values else ""

    @property
    def by_tls(self) -> bool:
        """Whether the browser came by https, or might have.

        Only to loopback is plain http of any use, since browsers keep a secure cookie from
        nowhere else. So whoever asks for any other host gets, and must show, the cookie of https.
        """
        told = self.scheme == "https" or self.said(b"x-forwarded-proto") == "https"
        return told or _LOOPBACK.fullmatch(self.said(b"host")) is None

    @property
    def keeps_cookies(self) -> bool:
        """Whether the browser will keep a secure cookie, as far as a server can tell.

        A browser sends `Sec-Fetch-*` only to where it would send one. This is for a hint to
        people, and decides nothing.
        """
        told = self.scheme == "https" or self.said(b"x-forwarded-proto") == "https"
        return told or bool(self.said(b"sec-fetch-site")) or not self.by_tls


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """Under which name a browser keeps the token, and for which path."""

    name: str
    path: str

    @classmethod
    def of(cls, visitor: Visitor, root_path: str) -> "SessionCookie":
        """By https with a prefix in its name, which a browser takes only from this very host.

        Without one a neighbour, such as another host of the same domain, could set a cookie of
        his own and have an auditor look at what he chose. `__Host-` must be for all paths; where
        the host is shared, and others would be sent the token, `__Secure-` must do.
        """
        if not visitor.by_tls:
            return cls(COOKIE, f"{root_path}/audit")
        if root_path:
            return cls(f"__Secure-{COOKIE}", f"{root_path}/audit")
        return cls(f"__Host-{COOKIE}", "/")

    def token(self, headers: Headers) -> str | None:
        """The token of this cookie; None without one.

        Raises:
            InvalidToken: two of them, or not the form of a token.
        """
        found: list[bytes] = []
        for name, value in headers:
            if name == b"cookie":
                pairs = (part.strip(b" ").partition(b"=") for part in value.split(b";"))
                found += [text for key, _, text in pairs if key == self.name.encode()]
        if not found:
            return None
        if len(found) > 1:
            # A neighbour may have set one of its own: then it is not clear who asks.
            raise InvalidToken("two cookies of one name")
        return as_token(found[0].decode("latin-1"))

    def set(self, token: str, *, seconds: int) -> str:
        """The header's value. No script can read it, no other site and no plain http has it."""
        kept = f"{self.name}={token}; Path={self.path}; Max-Age={seconds}"
        return f"{kept}; Secure; HttpOnly; SameSite=Strict"

    def clear(self) -> str:
        return self.set("", seconds=0)


def as_token(text: str) -> str | None:
    """What somebody gave as a token, in the form that a header would have. Raises: InvalidToken."""
    data = text.strip().encode("utf-8", "replace")
    return bearer_token([(b"authorization", b"Bearer " + data)])


def require_same_origin(visitor: Visitor) -> None:
    """Refuse a form that another site sent: it could sign an auditor in as somebody else.

    Browsers of before 2023 do not say `Sec-Fetch-Site`. They say the origin, and say it of a form
    of ours because our pages do not forbid them to (`Referrer-Policy: same-origin`).

    Raises:
        Denied: another origin, or a browser that does not say.
    """
    site = visitor.said(b"sec-fetch-site")
    if site:
        if site != "same-origin":
            raise Denied("a form from another site")
        return
    host, origin = visitor.said(b"host"), visitor.said(b"origin")
    ours = {f"https://{host}"} if visitor.by_tls else {f"https://{host}", f"http://{host}"}
    if not host or origin not in ours:
        raise Denied("a form from another site")


@dataclass(frozen=True, slots=True)
class Form:
    """What the sign-in form holds: the token, and the page to go to."""

    token: str
    place: str


def read_form(body: bytes) -> Form:
    """The sign-in form.

    Raises:
        Malformed: no such form, or an empty one.
        TooLarge: more than a form of ours, or a token that no cookie can hold.
    """
    if len(body) > MAX_FORM_BYTES:
        raise TooLarge("longer than any form of ours")
    try:
        fields = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=4)
    except ValueError as error:
        raise Malformed("not the form of this page") from error
    tokens = [value.strip() for name, value in fields if name == "token"]
    if len(tokens) != 1 or not tokens[0]:
        raise Malformed("no token was given")
    if len(tokens[0]) > MAX_COOKIE_BYTES:
        raise TooLarge("the token is too large for a cookie")
    return Form(tokens[0], place_of(next((value for name, value in fields if name == "to"), "")))


def place_of(text: str) -> str:
    """A page of the console, relative to it, with its query; empty for anything else.

    It comes from a link, which anybody may have made: it can lead to no other site, since the
    console's own path is put before it, and to nothing but a plain path below that.
    """
    plain = len(text) <= MAX_PLACE_CHARACTERS and _PLACE.fullmatch(text) is not None
    return text if plain else ""
