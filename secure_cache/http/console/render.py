"""From a view to a page: escaped, and with headers that let it load nothing from elsewhere."""

import unicodedata
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar.response import Response
from markupsafe import Markup, escape

from secure_cache.model.clock import rfc3339

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
STATIC = {"console.css": "text/css", "entry.js": "text/javascript", "verify.js": "text/javascript"}
_SHOWN = 96
_LATEST = 253_402_300_799  # 9999-12-31


class Renderer:
    """Makes pages. `base` is the console's own path, such as `/audit`."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._templates = Environment(
            loader=PackageLoader("secure_cache.http.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            visible=visible, moment=moment, query=query, number=number, short=short
        )
        folder = files("secure_cache.http.console") / "static"
        self._static = {name: (folder / name).read_bytes() for name in STATIC}

    def page(
        self, name: str, *, status: int = 200, cookie: str | None = None, **view: Any
    ) -> Response[bytes]:
        """A page. Names that its template wants and the view lacks are an error."""
        text = self._templates.get_template(f"{name}.html").render(base=self.base, **view)
        headers = PAGE_HEADERS if cookie is None else PAGE_HEADERS | {"set-cookie": cookie}
        return Response(
            text.encode(),
            status_code=status,
            media_type="text/html",
            headers=headers,
        )

    def static(self, name: str) -> Response[bytes] | None:
        """A style or script of ours; None for any other name."""
        if name not in self._static:
            return None
        headers = PAGE_HEADERS | {"cache-control": "no-cache"}
        return Response(self._static[name], media_type=STATIC[name], headers=headers)

    def redirect(self, path: str, *, cookie: str | None = None) -> Response[bytes]:
        """To another page of ours."""
        headers = PAGE_HEADERS | {"location": f"{self.base}/{path}"}
        if cookie is not None:
            headers["set-cookie"] = cookie
        return Response(b"", status_code=303, media_type="text/plain", headers=headers)


def visible(value: object, limit: int = _SHOWN) -> Markup:
    """Text from outside: nothing in it is hidden, turns the line around or runs off the page.

    Control, format and bidirectional characters are written out; a long value is cut, and is whole
    in its title.
    """
    text = "" if value is None else str(value)
    whole = "".join(_plain(character) for character in text)
    shown = Markup("").join(_mark(character) for character in text[:limit])
    if len(text) <= limit:
        return shown
    return Markup('<span class="cut" title="{}">{}…</span>').format(whole[:4000], shown)


def _mark(character: str) -> Markup:
    plain = _plain(character)
    if plain == character:
        return escape(character)
    return Markup('<span class="odd">{}</span>').format(plain)


def _plain(character: str) -> str:
    odd = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return f"\\u{ord(character):04x}" if odd else character


def moment(seconds: int | None) -> str:
    """A time for people, in UTC."""
    if seconds is None:
        return "no time"
    # A witness may sign any time that it likes.
    return rfc3339(max(0, min(seconds, _LATEST))).replace("T", " ")


def number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def short(value: str | None) -> str:
    """The beginning of a digest."""
    return "" if value is None else value[:12]


def query(values: dict[str, Any]) -> str:
    """A query string of what is not empty."""
    return urlencode({name: value for name, value in values.items() if value}, doseq=True)
