"""The real application, for attacks that go through all of it."""

import pytest
from fakes.app_world import AppWorld


@pytest.fixture
def app_world(tmp_path):
    return AppWorld(tmp_path)
