"""The operator's log: structlog to stderr, one line per event, JSON unless asked otherwise.

stdout belongs to the commands. Everything goes through one chain, also what libraries say
through the standard `logging`: time, level, what was raised, redaction, rendering.

An error of ours is its type, code and text. Its traceback is added at level debug, when it is
`Broken` (somebody will have to find out), and when it is none of ours, which is a bug.
"""

import logging
import sys
import time
import traceback
from collections.abc import MutableMapping
from functools import partial
from typing import Any, Literal, TextIO

import msgspec
import structlog

from secure_cache.model.errors import Broken, SecureCacheError
from secure_cache.observability.redaction import Cleaned, Redactor, clean_text

MAX_TRACEBACK_LINES = 60

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_CHATTY = ("uvicorn", "uvicorn.error", "httpx", "httpcore", "asyncio", "litestar")

Event = MutableMapping[str, Any]


def configure_logging(
    *,
    style: Literal["json", "console"],
    level: Literal["debug", "info", "warning", "error"],
    stream: TextIO | None = None,
) -> None:
    """Set up structlog and the standard library's logging. Once, at the start of a process.

    Args:
        style: `json` is one object a line.
        level: the least that is written.
        stream: of a short command or a test, where set-ups follow each other. By default
            `sys.stderr`, for good.
    """
    target = sys.stderr if stream is None else stream
    threshold = _LEVELS[level]
    render: structlog.typing.Processor = _render_json
    if style == "console":
        render = _Console()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _Stamp(),
            _Raised(with_traceback=threshold <= logging.DEBUG),
            Redactor(),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=partial(_Lines, target),
        # Loggers are made at import; once one has written, it need not look its chain up again.
        # Whoever names a stream may name another one later.
        cache_logger_on_first_use=stream is None,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(threshold)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


class _Lines(structlog.WriteLogger):
    """Writes, and never raises: whoever logs has more to do than that. A disk that is full or a
    reader that is gone would else end the tasks of a server, one after the other, as they log.

    What was lost is told when the place takes lines again.
    """

    def __init__(self, stream: TextIO, *_names: object) -> None:
        super().__init__(stream)
        self._lost = 0

    def msg(self, message: str) -> None:
        try:
            super().msg(message)
        except (OSError, ValueError):
            # Full, closed, or nobody reads it.
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            structlog.get_logger(__name__).warning("logging.lines_lost", at_most=lost)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _Stamp:
    """The time, RFC 3339 in UTC with microseconds. The second is written out once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
        second, nanos = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        event["time"] = f"{self._text}.{nanos // 1000:06d}Z"
        return event


class _Raised:
    """`exc_info` becomes error, code, text, and a traceback where one is wanted."""

    def __init__(self, *, with_traceback: bool) -> None:
        self._always = with_traceback

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
        if "exc_info" not in event:
            return event
        error = _exception(event.pop("exc_info"))
        if error is None:
            return event
        event["error"] = type(error).__name__
        event["error_text"] = str(error)
        wanted = self._always
        if isinstance(error, SecureCacheError):
            event["code"] = error.code
            wanted = wanted or isinstance(error, Broken)
        else:
            wanted = True
        if wanted:
            lines = "".join(traceback.format_exception(error)).splitlines()
            event["traceback"] = Cleaned(map(clean_text, lines[-MAX_TRACEBACK_LINES:]))
        return event


def _exception(info: object) -> BaseException | None:
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple):
        return info[1] if isinstance(info[1], BaseException) else None
    return sys.exc_info()[1] if info else None


class _Console:
    """For people, in a terminal."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=False, timestamp_key="time")

    def __call__(self, logger: Any, method: str, event: Event) -> str:
        raised = event.pop("traceback", [])
        return "\n".join([str(self._render(logger, method, event)), *raised])


def _render_json(_logger: object, _method: str, event: Event) -> str:
    # Redaction left printable text and plain data only, so this is one line whatever came in.
    return msgspec.json.encode(event).decode()


class _Bridge(logging.Handler):
    """What a library says through the standard logging, as an event of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        structlog.get_logger(record.name).log(
            record.levelno,
            "library.message",
            library=record.name,
            message=text,
            exc_info=record.exc_info,
        )
