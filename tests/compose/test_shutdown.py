"""How a process ends."""

from fakes.app_world import AppWorld

from secure_cache.http.server import KILL_AFTER_SECONDS


def test_the_last_flush_of_the_log_gives_up_before_the_supervisor_kills(tmp_path):
    world = AppWorld(tmp_path)

    assert world.server._parts.log._options.flush_seconds < KILL_AFTER_SECONDS
