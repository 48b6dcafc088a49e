"""Somebody with a browser at the console, as far as HTTP shows: forms, cookies and redirects."""

import re
from contextlib import asynccontextmanager
from html import unescape
from html.parser import HTMLParser

from fakes.audit_desk import Desk, until

FROM_HERE = {"sec-fetch-site": "same-origin"}
COOKIE = "__Host-secure_cache_auditor"
_VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """What a browser would make of it: elements with their attributes, and text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self._open, self._text = [], [], []
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self._text.append(data)

    @property
    def text(self):
        return " ".join("".join(self._text).split())

    def all(self, tag, **attributes):
        """The attributes of each such element."""
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]

    def links(self):
        return [found["href"] for found in self.all("a") if "href" in found]


class Visitor(Desk):
    """An auditor's `Desk`, and a browser beside it. `base` is what the console's paths begin
    with."""

    def __init__(self, world, base=""):
        super().__init__(world)
        self.base = f"{base}/audit"

    async def ready(self):
        """Whether the index can be asked."""
        return (await self.get("counts")).status_code == 200

    async def visit(self, path="", method="GET", **more):
        """One request, with the cookies that the browser keeps."""
        return await self.world.client.request(method, f"{self.base}/{path}", **more)

    async def sign_in(self, token=None, **more):
        """Fill in the form and send it."""
        data = {"token": self.world.auditor if token is None else token, **more.pop("data", {})}
        return await self.visit(
            "sign-in", "POST", data=data, headers=more.pop("headers", FROM_HERE), **more
        )

    async def page(self, path="", status=200):
        answer = await self.visit(path)
        assert answer.status_code == status, (path, answer.status_code, why(answer))
        return Page(answer.text)


def why(answer):
    """What a page complains of."""
    found = re.search(r'role="alert"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return unescape(found[1]) if found else ""


@asynccontextmanager
async def visiting(world, *, signed_in=True, base=""):
    """A running application, and somebody in front of its console."""
    async with world.running():
        world.auditor = world.own(role="auditor")
        visitor = Visitor(world, base)
        await until(visitor.ready)
        if signed_in:
            assert (await visitor.sign_in()).status_code == 303
        yield visitor
