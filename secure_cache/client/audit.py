"""A server's audit API, for commands."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from secure_cache.client.remote import ServerAddress, ask
from secure_cache.model.errors import (
    CorruptObject,
    DamagedIndex,
    LogInconsistent,
    Misconfigured,
    NoAuditIndex,
    NotFound,
    WrongFilter,
)

_MAX_ANSWER_BYTES = 64 << 20
_PAGE = 500
_ERRORS = {
    kind.code: kind
    for kind in (
        WrongFilter,
        NotFound,
        NoAuditIndex,
        DamagedIndex,
        CorruptObject,
        LogInconsistent,
    )
}


@dataclass(frozen=True, slots=True)
class RemoteAudit:
    """Raises from all: Unavailable, Denied, InvalidToken, Misconfigured, and what the server says
    of the question or of its log."""

    server: ServerAddress
    token: str
    client: Callable[[], httpx.Client]

    def entries(
        self, given: Mapping[str, Sequence[str]], *, limit: int, newest_first: bool
    ) -> Iterator[dict[str, Any]]:
        """Rows, page by page, at most `limit`."""
        cursor: dict[str, Any] = {}
        order = "newest" if newest_first else "oldest"
        with self.client() as http:
            while limit > 0:
                page = {"limit": min(limit, _PAGE), "order": order, **cursor}
                answer = self._get(http, "entries", {**given, **page})
                rows, cursor = answer.get("entries"), answer.get("next") or {}
                if not isinstance(rows, list) or not isinstance(cursor, dict):
                    raise Misconfigured(
                        f"{self.server.url} does not answer as a secure-cache server does"
                    )
                yield from rows[:limit]
                limit -= len(rows)
                # A page without rows that names another one would be asked for for ever.
                if not rows or not cursor:
                    return

    def counts(self, given: Mapping[str, Sequence[str]], group: str | None) -> dict[str, Any]:
        """The number of entries, also by `group`."""
        with self.client() as http:
            return self._get(http, "counts", {**given, **({"group": group} if group else {})})

    def details(self, index: int) -> dict[str, Any]:
        """Everything about one entry."""
        with self.client() as http:
            return self._get(http, f"entries/{index}", {})

    def _get(self, http: httpx.Client, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        request = http.build_request(
            "GET",
            f"{self.server.url}/audit/v1/{path}",
            params=dict(parameters),
            headers={"Authorization": f"Bearer {self.token}"},
        )
        return ask(http, request, errors=_ERRORS, max_bytes=_MAX_ANSWER_BYTES)
