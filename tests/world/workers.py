"""A connection to each worker of a server: what one answers says nothing of the others."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
from world.server import Server

_ATTEMPTS = 400


@contextmanager
def a_client_of_each_worker(server: Server, token: str) -> Iterator[dict[int, httpx.Client]]:
    """By the worker's process id: a client with one kept connection, which that worker took.

    Which worker takes a connection is the kernel's choice, so they are made until there is one of
    each.
    """
    with ExitStack() as stack:
        found: dict[int, httpx.Client] = {}
        for _ in range(_ATTEMPTS):
            client = stack.enter_context(closing(server.client(token)))
            pid = worker_of(server, client.get("/healthz"))
            if pid in found:
                client.close()
                continue
            found[pid] = client
            if len(found) == server.workers:
                yield found
                return
        raise AssertionError(f"{len(found)} of {server.workers} workers took a connection")


def worker_of(server: Server, response: httpx.Response) -> int:
    """The process that answered; its connection is still open."""
    port = response.extensions["network_stream"].get_extra_info("client_addr")[1]
    wanted = f"socket:[{_inode(server.port, port)}]"
    for pid in server.processes():
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if str(fd.readlink()) == wanted:
                    return pid
            except FileNotFoundError:
                continue
    raise AssertionError(f"no process of the server holds {wanted}")


def _inode(local: int, remote: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(address.split(":")[1], 16) for address in fields[1:3]]
        if ports == [local, remote]:
            return fields[9]
    raise AssertionError(f"no connection from port {remote} to {local}")
