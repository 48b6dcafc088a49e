"""Fixtures of the whole suite."""

from collections.abc import Iterator

import pytest
from world.azurite import Azurite, running_azurite


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """The Azurite of this test process, over plain HTTP. Take a container of your own in it, and
    never stop it: who needs it to die makes an `Azurite`."""
    with running_azurite(tmp_path_factory.mktemp("azurite")) as found:
        yield found


@pytest.fixture(scope="session")
def azurite_oauth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """As `azurite`, over TLS, where bearer tokens open it."""
    with running_azurite(tmp_path_factory.mktemp("azurite-oauth"), oauth=True) as found:
        yield found
