"""What every page has in common: who asks, and what is shown when it may not be answered."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import urlencode

from litestar import Request
from litestar.datastructures import State
from litestar.response import Response

from secure_cache.http.audit_question import Asked
from secure_cache.http.console.render import PAGE_HEADERS, Renderer
from secure_cache.http.console.session import SessionCookie, Visitor, place_of
from secure_cache.http.errors import true_status
from secure_cache.http.front import note_refusal
from secure_cache.http.services import Services
from secure_cache.model.errors import (
    Denied,
    ExpiredToken,
    InvalidToken,
    Malformed,
    Misconfigured,
    NoAuditIndex,
    NotFound,
    Revoked,
    SecureCacheError,
    TooLarge,
    Unavailable,
    WrongFilter,
)

AnyRequest: TypeAlias = Request[object, object, State]
Answer: TypeAlias = Response[bytes]
Work: TypeAlias = Callable[[Asked], Awaitable[Answer]]

_SENTENCES: dict[type[SecureCacheError], str] = {
    ExpiredToken: "The token has expired. Get a new one, and sign in again.",
    Revoked: "The token was taken back.",
    Denied: "The token is valid, but the policy does not make it an auditor's: its rule must say"
    " audit: true.",
    NoAuditIndex: "This server keeps no audit index. Its operator can turn it on: audit.enabled and"
    " audit.index in the settings.",
    TooLarge: "The token is too large for a cookie. Exchange it first, with `secure-cache token"
    " exchange`, and sign in with what that prints.",
    Malformed: "Paste an auditor's token into the field.",
}
_FOREIGN = (
    "This form came from another site, or from a browser that does not say where it came from."
    " Nothing was done. Open the console itself, and try again there."
)
_NOT_KEPT = (
    "The token is good, but your browser did not keep the cookie that would sign you in. It keeps"
    " one only from https, or from a server on its own machine, and only where cookies are allowed."
)


class Desk:
    """Answers a page's question for a signed-in auditor, or shows why not."""

    def __init__(self, services: Services, renderer: Renderer) -> None:
        self.services = services
        self.pages = renderer

    async def answer(self, request: AnyRequest, work: Work) -> Answer:
        """Who is not signed in is sent to do so; every question is told to the server's log.

        Every answer has a page's headers, whatever it is.
        """
        answer = await self._answer(request, work)
        for name, value in PAGE_HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    async def _answer(self, request: AnyRequest, work: Work) -> Answer:
        try:
            token = self.cookie(request).token(request.scope["headers"])
        except InvalidToken as error:
            # Not ours to clear: a neighbour's second cookie would be all that is left.
            return self.sign_in(request, error)
        if token is None:
            return self._send_to_sign_in(request)
        try:
            caller = await self.services.access(token)
            asked = Asked(self.services, caller, request)
        except (InvalidToken, ExpiredToken, Revoked, Denied) as error:
            # Over: the cookie goes, or each further page would only say so again.
            return self.sign_in(request, error, cookie=self.cookie(request).clear())
        except SecureCacheError as error:
            return self.problem(request, error)
        try:
            async with asked:
                return await work(asked)
        except SecureCacheError as error:
            return self.problem(request, error)

    def cookie(self, request: AnyRequest) -> SessionCookie:
        """Where this browser keeps the token."""
        return SessionCookie.of(visitor(request), self.services.root_path)

    def sign_in(
        self,
        request: AnyRequest,
        error: SecureCacheError | None = None,
        *,
        place: str = "",
        cookie: str | None = None,
    ) -> Answer:
        """The form; after an error it says which.

        Args:
            request: of the browser.
            error: why its token did not do.
            place: the page to go to afterwards.
            cookie: what becomes of the cookie; by itself it stays, because whoever mistypes, or is
                made to, does not lose the session that he has.
        """
        if error is not None:
            self._count(request, error)
        return self._form(
            request,
            status=200 if error is None else true_status(error),
            cookie=cookie,
            why=None if error is None else sentence(error),
            place=place,
        )

    def not_kept(self, request: AnyRequest, place: str) -> Answer:
        """The form again, for a browser that came back without the cookie."""
        return self._form(request, status=200, cookie=None, why=_NOT_KEPT, place=place)

    def _form(
        self, request: AnyRequest, *, status: int, cookie: str | None, why: str | None, place: str
    ) -> Answer:
        return self.pages.page(
            "sign-in",
            status=status,
            cookie=cookie,
            page="sign-in",
            why=why,
            place=place,
            kept=visitor(request).keeps_cookies,
        )

    def problem(self, request: AnyRequest, error: SecureCacheError) -> Answer:
        """A page that says what is wrong."""
        self._count(request, error)
        if isinstance(error, NotFound):
            return self.show(true_status(error), "there is nothing here")
        status = 503 if isinstance(error, Misconfigured) else true_status(error)
        return self.show(status, error.title, sentence(error))

    def show(self, status: int, title: str, why: str = "") -> Answer:
        """The page for what has no other: `title` in a few words, and what there is to add."""
        return self.pages.page("problem", status=status, page="problem", title=title, why=why)

    def foreign(self, request: AnyRequest, error: Denied) -> Answer:
        """A form of another site: says nothing of the token, which was not looked at."""
        self._count(request, error)
        return self.show(403, error.title, _FOREIGN)

    def _count(self, request: AnyRequest, error: SecureCacheError) -> None:
        """Guessing at this door is counted like guessing at the API's."""
        note_refusal(request.scope, error)
        self.services.counts_denials.count("audit", error)

    def _send_to_sign_in(self, request: AnyRequest) -> Answer:
        """With the way back: whoever follows a link from elsewhere is not signed in at first,
        since a strict cookie is not sent along."""
        query = request.scope["query_string"].decode("latin-1")
        path = request.scope["path"].partition("/audit/")[2]
        place = place_of(f"{path}?{query}" if query else path)
        return self.pages.redirect("sign-in" + (f"?{urlencode({'to': place})}" if place else ""))


def visitor(request: AnyRequest) -> Visitor:
    return Visitor(request.scope["headers"], request.scope["scheme"])


def sentence(error: SecureCacheError) -> str:
    """For people. What errors say of files and paths stays in the server's log."""
    if isinstance(error, WrongFilter):
        return str(error)
    if isinstance(error, InvalidToken):
        return f"This token is not accepted: {error.hint}."
    if isinstance(error, Unavailable):
        return f"{error.title.capitalize()}. Try again in a moment; the server's log says more."
    return _SENTENCES.get(type(error), f"{error.title.capitalize()}. The server's log says more.")
