"""Signing in: the auditor's token in a cookie, judged anew with each request.

There is no session on the server. So every worker and replica knows the same at once, and a token
that is revoked, or a policy that says `audit` no longer, ends it with the next click.
"""

from collections.abc import Iterable
from urllib.parse import parse_qsl

from secure_cache.http.bearer import MAX_TOKEN_BYTES, bearer_token
from secure_cache.model.errors import Denied, InvalidToken, Malformed, TooLarge

COOKIE = "secure_cache_auditor"
MAX_COOKIE_BYTES = 3800
"""Browsers keep 4096 with name and attributes, and drop what is longer without a word."""
MAX_FORM_BYTES = MAX_TOKEN_BYTES + 1024

Headers = Iterable[tuple[bytes, bytes]]


def cookie_token(headers: Headers) -> str | None:
    """The token of our cookie; None without one.

    Raises:
        InvalidToken: two of them, or not the form of a token.
    """
    found: list[bytes] = []
    for name, value in headers:
        if name == b"cookie":
            pairs = (part.strip(b" ").partition(b"=") for part in value.split(b";"))
            found += [text for key, _, text in pairs if key == COOKIE.encode()]
    if not found:
        return None
    if len(found) > 1:
        # A neighbour on the same host may set one of its own: then it is not clear who asks.
        raise InvalidToken("two cookies of one name")
    return as_token(found[0].decode("latin-1"))


def as_token(text: str) -> str | None:
    """What somebody gave as a token, in the form that a header would have. Raises: InvalidToken."""
    data = text.strip().encode("utf-8", "replace")
    return bearer_token([(b"authorization", b"Bearer " + data)])


def require_same_origin(headers: Headers) -> None:
    """Refuse a form that another site sent: it could sign an auditor in as somebody else.

    Raises:
        Denied: another origin, or a browser that does not say.
    """
    said = {
        name: value for name, value in headers if name in {b"origin", b"sec-fetch-site", b"host"}
    }
    if b"sec-fetch-site" in said:
        if said[b"sec-fetch-site"] != b"same-origin":
            raise Denied("a form from another site")
        return
    origin = said.get(b"origin", b"").partition(b"://")[2]
    if not origin or origin != said.get(b"host"):
        raise Denied("a form from another site")


def read_form(body: bytes) -> str:
    """The token of the sign-in form.

    Raises:
        Malformed: no such form.
        TooLarge: more than a form of ours, or a token that no cookie can hold.
    """
    if len(body) > MAX_FORM_BYTES:
        raise TooLarge("longer than any token")
    try:
        fields = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=4)
    except ValueError as error:
        raise Malformed("not the form of this page") from error
    tokens = [value.strip() for name, value in fields if name == "token"]
    if len(tokens) != 1 or not tokens[0]:
        raise Malformed("no token was given")
    if len(tokens[0]) > MAX_COOKIE_BYTES:
        raise TooLarge(
            "the token is too large for a cookie: exchange it first, with"
            " `secure-cache token exchange`"
        )
    return tokens[0]


def set_cookie(token: str, *, path: str, seconds: int) -> str:
    """The header's value. Not readable by scripts, not sent by other sites, not over plain http."""
    return f"{COOKIE}={token}; Path={path}; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict"


def clear_cookie(*, path: str) -> str:
    return set_cookie("", path=path, seconds=0)
