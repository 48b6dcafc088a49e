"""Servers for the tests that look at the product from outside.

A test that takes a server and is marked `every_storage` runs over a folder, over Azurite by the
account's key, and over Azurite with TLS by a token; marked `azurite`, over the latter two. With
`oldest_nx=True`, what uses Nx runs over all of them with the oldest and the newest version.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world.nx import NEWEST, OLDEST
from world.server import Server
from world.storage import InAFolder, OnAzurite, Storage, by_token

EVERYWHERE = ("folder", "azurite", "azurite-token")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage" in metafunc.fixturenames:
        if metafunc.definition.get_closest_marker("azurite") is not None:
            kinds = EVERYWHERE[1:]
        elif metafunc.definition.get_closest_marker("every_storage") is not None:
            kinds = EVERYWHERE
        else:
            kinds = EVERYWHERE[:1]
        metafunc.parametrize("storage", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over Azurite the newest Nx speaks for all, where a test does not ask for the oldest too:
    where clients differ is before the server. All of them run over the folder."""
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
    marked = item.get_closest_marker("every_storage")
    oldest_too = marked is not None and marked.kwargs.get("oldest_nx", False)
    return parameters.get("version", NEWEST) in ({OLDEST, NEWEST} if oldest_too else {NEWEST})


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
