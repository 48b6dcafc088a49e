"""Where an error becomes an exit code and one line on stderr; no traceback reaches a user.

`SECURE_CACHE_DEBUG=1` shows the traceback as well, for a report.
"""

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

import click

from secure_cache.model import errors

_MAX_FINDINGS = 50
_MAX_LINE = 2000


class Exit(IntEnum):
    """What scripts may rely on."""

    OK = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHORIZED = 4
    INTEGRITY = 5
    INTERRUPTED = 130


EXIT_CODES: Mapping[type[errors.SecureCacheError], Exit] = {
    # A defect of ours must never look like the answer "no".
    errors.SecureCacheError: Exit.INTEGRITY,
    errors.Refused: Exit.UNAUTHORIZED,
    errors.Malformed: Exit.USAGE,
    errors.TooLarge: Exit.USAGE,
    errors.TooSlow: Exit.UNREACHABLE,
    errors.DigestMismatch: Exit.INTEGRITY,
    errors.NotFound: Exit.NO,
    errors.AlreadyExists: Exit.NO,
    errors.VersionMismatch: Exit.UNREACHABLE,
    errors.Unavailable: Exit.UNREACHABLE,
    errors.Broken: Exit.INTEGRITY,
    errors.StorageForbidden: Exit.UNAUTHORIZED,
    errors.Misconfigured: Exit.USAGE,
}


def exit_code(error: errors.SecureCacheError) -> Exit:
    """The code of the nearest class in the tree."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def guarded(command: Callable[[], object], environ: Mapping[str, str]) -> int:
    """Run a command to its exit code.

    Args:
        command: gives its exit code, or None for 0.
        environ: `os.environ` in the program.
    """
    try:
        code = command()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - this is the boundary
        if environ.get("SECURE_CACHE_DEBUG") == "1":
            traceback.print_exc()
        return _tell(_leaf(error))
    return code if isinstance(code, int) else Exit.OK


def _leaf(error: BaseException) -> BaseException:
    """What a task group wraps: its first error is the one that ended the others."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _tell(error: BaseException) -> Exit:
    match error:
        case click.ClickException():
            return _tell_usage(error)
        case KeyboardInterrupt() | click.Abort():
            return Exit.INTERRUPTED
        case errors.InvalidPolicy(findings=[_, *_] as findings):
            _tell_findings(findings)
        case errors.SecureCacheError():
            complain(str(error) or error.title)
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            complain(f"{place}{error.strerror or type(error).__name__}")
            return Exit.USAGE if error.filename else Exit.UNREACHABLE
        case _:
            complain(
                f"a defect of secure-cache itself: {type(error).__name__}: {error};"
                " run it again with SECURE_CACHE_DEBUG=1 and report what it prints"
            )
            return Exit.INTEGRITY
    return exit_code(error)


def _tell_findings(findings: Sequence[object]) -> None:
    """A line for each error; warnings would only hide them."""
    refused = [item for item in findings if getattr(item, "severity", "error") == "error"]
    for finding in refused[:_MAX_FINDINGS]:
        complain(str(finding))
    if len(refused) > _MAX_FINDINGS:
        complain(f"{len(refused) - _MAX_FINDINGS} more errors are not shown")


def _tell_usage(error: click.ClickException) -> Exit:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return Exit.USAGE
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context is not None else ""
    complain(error.format_message().rstrip(".") + hint)
    return Exit.USAGE


def complain(text: str) -> None:
    """One line on stderr for the person who can act."""
    print(f"secure-cache: {one_line(text)}", file=sys.stderr)


def note(text: str) -> None:
    """One line on stderr that is no refusal."""
    print(printable(text), file=sys.stderr)


def one_line(text: str) -> str:
    """On one line, whatever a file, a server or a token put into it."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Without characters that would steer a terminal or forge a line of a log."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= _MAX_LINE else f"{shown[:_MAX_LINE]}..."
