"""One request and its answer, within bounds of time and size."""

import time

import httpx

from secure_cache.client.body import ACCEPTED, BoundedBody
from secure_cache.model.errors import Unavailable

MAX_ANSWER_BYTES = 65_536
DEADLINE_SECONDS = 30.0
_STEP_SECONDS = 10.0


def new_client() -> httpx.Client:
    """Follows no redirect: a token goes where it was meant to go, or nowhere."""
    return httpx.Client(
        timeout=httpx.Timeout(_STEP_SECONDS),
        follow_redirects=False,
        headers={"Accept-Encoding": ACCEPTED},
    )


def read_answer(
    client: httpx.Client,
    request: httpx.Request,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> tuple[int, bytes]:
    """Send, and read status and body.

    Raises:
        Unavailable: no answer, not in time, too large, or packed oddly. Names the host, and
            nothing that was sent.
    """
    host = request.url.host
    end = time.monotonic() + deadline_seconds
    try:
        response = client.send(request, stream=True)
        try:
            body = BoundedBody(response, where=host, max_bytes=max_bytes)
            for part in response.iter_raw():
                body.add(part)
                if time.monotonic() > end:
                    raise Unavailable(f"{host} took longer than {deadline_seconds:g} s")
        finally:
            response.close()
    except (httpx.HTTPError, UnicodeError) as error:
        # The second: a part of the host's name is longer than any name may be.
        raise Unavailable(f"{host} cannot be reached: {error or type(error).__name__}") from None
    return response.status_code, body.whole()
