"""Fixtures of the whole suite."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from fakes.patience import patient
from hypothesis import settings
from world.azurite import Azurite, running_azurite

# Hypothesis would call a test that took 0.2 s once, beside seven others, a failed one.
settings.register_profile("patient", patient)
settings.load_profile("patient")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that runs inside a test sets up logging for its process, which is ours: the next
    test must not meet its level, nor a stream that has been closed since."""
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


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
