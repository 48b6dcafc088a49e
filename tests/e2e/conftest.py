"""Servers for the tests that look at the product from outside.

A test that takes a server and is marked `every_storage` runs over a folder, over Azurite by the
account's key, and over Azurite with TLS by a token.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world.nx import NEWEST
from world.server import Server
from world.storage import InAFolder, OnAzurite, Storage, by_token

EVERYWHERE = ("folder", "azurite", "azurite-token")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("every_storage")
        kinds = EVERYWHERE if marked is not None else EVERYWHERE[:1]
        metafunc.parametrize("storage", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over Azurite the newest Nx speaks for all: where clients differ is before the server. All of
    them run over the folder."""
    left_out = [item for item in items if not _is_wanted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if _is_wanted(item)]


def _is_wanted(item: pytest.Item) -> bool:
    parameters = (
        item.callspec.params
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else {}
    )
    if parameters.get("storage", "folder") == "folder":
        return True
    return parameters.get("version", NEWEST) == NEWEST


@pytest.fixture(scope="session")
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    if request.param == "folder":
        yield InAFolder()
    elif request.param == "azurite":
        yield OnAzurite(request.getfixturevalue("azurite"))
    else:
        with by_token(request.getfixturevalue("azurite_oauth")) as found:
            yield found


@pytest.fixture
def make_server(storage: Storage, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes installations that do not run yet; all are removed at the end."""
    made: list[Server] = []

    def make(**settings: object) -> Server:
        server = Server(tmp_path / f"server{len(made)}", storage=storage, **settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.remove()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A running server with one worker."""
    return make_server().start()
