"""From a view to a page: escaped, and with headers that let it load nothing from elsewhere."""

from base64 import b64encode
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
_SCRIPTS = ("bytes", "entry", "envelope", "memory", "merkle", "note", "shown", "verify")
STATIC = {"console.css": "text/css"} | {f"{name}.js": "text/javascript" for name in _SCRIPTS}
_SHOWN = 96
_WHOLE = 8192
_LATEST = 253_402_300_799  # 9999-12-31
_UNSEEN = frozenset(
    map(
        chr,
        (
            *(0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
"""Printable by their category, and nothing is seen of them: fillers and variation selectors."""


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
            visible=visible,
            cut=cut,
            whole=whole,
            plainly=plainly,
            lines=lines,
            moment=moment,
            query=query,
            number=number,
            base64=lambda data: b64encode(data).decode(),
            short=short,
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
            text.encode("utf-8", "replace"),
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

    Control, format and bidirectional characters are written out, and so are blanks of other kinds.
    Of a long value the beginning is seen; the whole opens by mouse, touch and keyboard alike.
    """
    text = "" if value is None else str(value)
    if len(text) <= limit:
        return _marked(text)
    return Markup(
        '<details class="long"><summary>{}…</summary><span class="whole">{}</span></details>'
    ).format(_marked(text[:limit]), _marked(text[:_WHOLE]))


def cut(value: object, limit: int = _SHOWN) -> Markup:
    """The same for a line of a table that leads to a page with the whole of it."""
    text = "" if value is None else str(value)
    if len(text) <= limit:
        return _marked(text)
    return Markup('<span class="cut" title="{}">{}…</span>').format(
        plainly(text, _WHOLE), _marked(text[:limit])
    )


def whole(value: object) -> Markup:
    """The same uncut, where there is room for it and none for what opens."""
    return _marked(str(value)[:_WHOLE])


def plainly(value: object, limit: int = _SHOWN) -> str:
    """The same where no markup can stand, in titles, labels and drawings: cut, with an ellipsis."""
    text = "" if value is None else str(value)
    shown = "".join(_plain(character) for character in text[:limit])
    return shown if len(text) <= limit else f"{shown}…"


def lines(text: str) -> Markup:
    """The same for a text of several lines, uncut."""
    return Markup("\n").join(_marked(line) for line in text.split("\n"))


def _marked(text: str) -> Markup:
    return Markup("").join(_mark(character) for character in text)


def _mark(character: str) -> Markup:
    plain = _plain(character)
    if plain == character:
        return escape(character)
    return Markup('<span class="odd">{}</span>').format(plain)


def _plain(character: str) -> str:
    odd = not character.isprintable() or character in _UNSEEN
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
