"""Exit 0 when the server of this container answers. No shell, no curl, no proxy variables."""

import http.client
import os
import sys

SECONDS = 3


def main() -> int:
    port = int(os.environ.get("SECURE_CACHE_SERVER__PORT", "8642"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"/healthz: {error}", file=sys.stderr)  # noqa: T201 - the engine keeps it
        return 1
    finally:
        connection.close()
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
