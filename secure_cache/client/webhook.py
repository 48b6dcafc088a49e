"""Alerts to a webhook: one JSON document for each batch, signed if there is a secret."""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx

from secure_cache.audit.forms import inert_json
from secure_cache.client.http_answer import read_answer
from secure_cache.client.remote import ServerAddress
from secure_cache.model.errors import Malformed, Unavailable

SIGNATURE = "X-Secure-Cache-Signature"
MAX_ALERTS = 100
MAX_BYTES = 256 * 1024
_TRIES = 3
_PAUSE_SECONDS = 1.0


class Webhook:
    """Delivers at least once.

    Args:
        url: a secret: whoever knows it can post. It is in no message.
        secret: for HMAC-SHA256 over the body, in `X-Secure-Cache-Signature: sha256=HEX`.
        client: makes the HTTP client; it must follow no redirect.
        sleep: between two tries.

    Raises:
        Malformed: no URL of https, or of http on this machine.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: bytes | None,
        client: Callable[[], httpx.Client],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            # Of the rules for servers; a webhook's URL may have a query.
            ServerAddress.parse(str(httpx.URL(url).copy_with(query=None)))
        except (Malformed, httpx.InvalidURL):
            raise Malformed("the webhook's URL is not https, or not a URL") from None
        self._url = url
        self._secret = secret
        self._client = client
        self._sleep = sleep

    def deliver(self, log: str, alerts: Sequence[dict[str, Any]]) -> None:
        """Post them, at most `MAX_ALERTS` and `MAX_BYTES` at a time.

        Raises:
            Unavailable: it did not take them; some may have arrived.
        """
        with self._client() as http:
            for body in bodies(log, alerts):
                self._post(http, body)

    def _post(self, http: httpx.Client, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        if self._secret is not None:
            code = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
            headers[SIGNATURE] = f"sha256={code}"
        said = "no answer"
        for number in range(_TRIES):
            if number:
                self._sleep(_PAUSE_SECONDS * 2**number)
            request = http.build_request("POST", self._url, content=body, headers=headers)
            try:
                status, _ = read_answer(http, request)
            except Unavailable:
                continue
            if status // 100 == 2:
                return
            said = f"status {status}"
            if status // 100 != 5 and status != 429:
                break
        raise Unavailable(f"the webhook did not take the alerts: {said}")


def bodies(log: str, alerts: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """Documents within the limits. An alert that is larger by itself goes alone."""
    frame = len(_body(log, []))
    part: list[bytes] = []
    size = frame
    for alert in alerts:
        data = inert_json(alert)
        if part and (len(part) == MAX_ALERTS or size + len(data) > MAX_BYTES):
            yield _body(log, part)
            part, size = [], frame
        part.append(data)
        size += len(data) + len(_BETWEEN)
    if part:
        yield _body(log, part)


_BETWEEN = b", "


def _body(log: str, alerts: Sequence[bytes]) -> bytes:
    return b'{"log": %b, "alerts": [%b]}' % (inert_json(log), _BETWEEN.join(alerts))
