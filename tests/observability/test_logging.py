"""The operator's log: what happens to a server whose log nobody takes."""

import errno
import io
import json
import logging
import os
from pathlib import Path

import pytest
import structlog

from secure_cache.observability.logging import configure_logging


class Stream(io.StringIO):
    """Takes nothing while `full`."""

    full = False

    def write(self, text):
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


def gone():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full():
    return Path("/dev/full").open("w")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("place", [gone, full, closed])
def test_a_log_that_cannot_be_written_ends_nothing(place):
    """Whoever logged was ended: the task that had taken up a policy, and the supervisor."""
    stream = place()
    configure_logging(style="json", level="info", stream=stream)
    structlog.get_logger("ours").info("policy.took_effect")
    structlog.get_logger("ours").critical("server.failed", exc_info=KeyError())
    logging.getLogger("a.library").error("no names")
    try:
        stream.close()
    except OSError:
        assert place is not closed


def test_what_a_log_has_lost_is_told_when_it_can_be_written_again():
    stream = Stream()
    configure_logging(style="json", level="info", stream=stream)
    ours = structlog.get_logger("ours").bind()
    ours.info("one")
    stream.full = True
    ours.info("two")
    ours.info("three")
    stream.full = False
    ours.info("four")
    ours.info("five")
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in said] == ["one", "four", "logging.lines_lost", "five"]
    assert said[2]["at_most"] == 2
