"""Hot reload: a good edit acts, a bad one never does, a half-written one is never read."""

import os

import pytest
from fakes.cache_world import POLICY, World
from fakes.clock import HeldClock
from structlog.testing import capture_logs

from secure_cache.core.policy_file import PolicyFile, PolicyFiles
from secure_cache.core.telemetry import Silent
from secure_cache.identity.presets import load_presets
from secure_cache.model.errors import Misconfigured

OTHER = POLICY.replace("branch: main }", "branch: trunk }")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    path.chmod(0o600)
    return path


@pytest.fixture
def holder(path):
    return make(path)


def make(path, **kwargs):
    return PolicyFile(
        PolicyFiles(path, **kwargs), presets=load_presets(), clock=HeldClock(), telemetry=Silent()
    )


def test_an_edit_takes_effect_at_the_second_look(path, holder):
    before = holder.current
    path.write_text(OTHER)
    assert not holder.look()
    assert holder.look()

    assert holder.current.sha256 != before.sha256


def test_a_file_that_still_changes_is_not_read(path, holder):
    before = holder.current
    for end in range(200, len(OTHER), 37):
        path.write_text(OTHER[:end])
        assert not holder.look()

    assert holder.current is before


@pytest.mark.parametrize("bad", ["", "version: 1\n", OTHER + "surprise: 1\n", "\x00", "{"])
def test_a_bad_file_keeps_the_last_good_one_and_says_so(path, holder, bad):
    before = holder.current
    path.write_text(bad)
    holder.look()
    assert not holder.look()
    assert holder.current is before
    assert holder.trouble

    path.write_text(OTHER)
    holder.look()
    assert holder.look()
    assert holder.trouble is None


def test_a_file_that_vanishes_keeps_the_last_good_one(path, holder):
    before = holder.current
    path.unlink()
    holder.look()
    holder.look()

    assert holder.current is before
    assert "cannot be read" in holder.trouble


def test_going_back_to_the_file_in_force_clears_the_trouble(path, holder):
    path.rename(path.with_suffix(".aside"))
    holder.look()
    assert holder.trouble
    path.with_suffix(".aside").rename(path)
    holder.look()
    holder.look()
    holder.look()

    assert holder.trouble is None


def test_a_file_that_others_may_write_is_refused(path):
    path.chmod(0o666)

    with pytest.raises(Misconfigured, match="chmod go-w"):
        make(path)


def test_a_pipe_in_the_place_of_the_policy_does_not_stop_the_looking(path, holder):
    """It once held the one who looks for ever: no later revocation acted, and nothing told it."""
    before = holder.current
    path.unlink()
    os.mkfifo(path)
    holder.look()
    assert not holder.look()
    assert holder.current is before
    assert "not a plain file" in holder.trouble

    path.unlink()
    path.write_text(OTHER)
    holder.look()
    assert holder.look()
    assert holder.trouble is None


def test_a_file_that_changes_between_the_look_and_the_reading_is_not_taken_up(path):
    """Whoever writes in place truncates first; what is read then may be a good, shorter policy."""

    class WritesMeanwhile(HeldClock):
        """The clock is asked after the file was read: a writer is at work by then."""

        armed = False

        def __call__(self):
            if self.armed:
                self.armed = False
                path.write_text(OTHER)
            return super().__call__()

    clock = WritesMeanwhile()
    holder = PolicyFile(PolicyFiles(path), presets=load_presets(), clock=clock, telemetry=Silent())
    before = holder.current
    path.write_text(POLICY + "# half\n")
    holder.look()
    clock.armed = True
    assert not holder.look()
    assert holder.current is before
    holder.look()
    assert holder.look()
    assert holder.data == OTHER.encode()


def test_required_tests_must_pass_before_a_policy_takes_effect(path, tmp_path):
    tests = tmp_path / "policy_test.yaml"
    tests.write_text(
        "version: 1\n"
        "base: { iss: self, prj: demo }\n"
        "cases:\n"
        "  - { name: main, claims: { branch: main }, expect: { rule: main, write: branch/main,"
        " read: [branch/main] } }\n"
    )
    tests.chmod(0o600)
    holder = make(path, tests=tests)
    before = holder.current
    path.write_text("require_tests: true\n" + OTHER)
    holder.look()
    holder.look()

    assert holder.current is before
    assert holder.trouble


def test_a_touched_file_with_the_same_bytes_changes_nothing(path, holder):
    path.write_text(POLICY)
    holder.look()

    assert not holder.look()


def test_a_shadow_policy_is_compared_and_never_enforced(path, tmp_path):
    shadow = tmp_path / "next.yaml"
    shadow.write_text(OTHER)
    shadow.chmod(0o600)
    path.write_text("shadow_policy: next.yaml\n" + POLICY)
    holder = make(path)
    world = World()
    with capture_logs() as lines:
        holder.compare_shadow(world.caller(branch="main").identity)
        holder.compare_shadow(world.caller(branch="feature").identity)

    (line,) = lines
    assert line["event"] == "policy.shadow_differs"
    assert "trusted" in line["difference"]
    assert holder.current.decide(world.caller(branch="main").identity).rule == "main"


def test_a_bad_shadow_policy_is_told_and_left_out(path, tmp_path):
    path.write_text("shadow_policy: next.yaml\n" + POLICY)
    with capture_logs() as lines:
        holder = make(path)

    assert holder.shadow is None
    assert "policy.shadow_refused" in {line["event"] for line in lines}
