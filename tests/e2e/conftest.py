"""Servers for the tests that look at the product from outside."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world.server import Server


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes installations that do not run yet; all are removed at the end."""
    made: list[Server] = []

    def make(**settings: object) -> Server:
        server = Server(tmp_path / f"server{len(made)}", **settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.remove()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A running server with one worker."""
    return make_server().start()
