"""`secure-cache log`."""

import base64

import anyio
import click

from secure_cache.cli.boundary import Exit, note, printable
from secure_cache.cli.options import config_option, json_option, print_json
from secure_cache.compose.offline import check_log
from secure_cache.compose.stores import place_of_the_log
from secure_cache.settings import Settings
from secure_cache.tlog.fsck import MAX_FINDINGS, Report

_BETWEEN_LOOKS_SECONDS = 0.5


@click.group("log")
def log_command() -> None:
    """The transparency log, from the operator's side."""


@log_command.command("fsck")
@config_option
@json_option
def check_whole_log(settings: Settings, *, as_json: bool) -> int:
    """Derive every tile and the root anew from the entries; exit 5 on any difference.

    Writes nothing. Also while a server runs.
    """
    note(f"Reading the whole log in {place_of_the_log(settings.storage)} ...")
    report = anyio.run(_check, settings)
    if as_json:
        print_json(_document(report))
    else:
        for line in _lines(report):
            click.echo(printable(line))
    if not report.findings:
        return Exit.OK
    most = "at least " if len(report.findings) >= MAX_FINDINGS else ""
    note(f"The log is damaged or tampered with: {most}{len(report.findings)} differences.")
    return Exit.INTEGRITY


async def _check(settings: Settings) -> Report:
    async def wait() -> None:
        note("There are differences. Looking again, in case a server was writing ...")
        await anyio.sleep(_BETWEEN_LOOKS_SECONDS)

    return await check_log(settings, wait=wait)


def _lines(report: Report) -> list[str]:
    if report.findings:
        return [str(finding) for finding in report.findings]
    checkpoint = report.checkpoint
    origin = checkpoint.origin if checkpoint else "the log"
    root = _base64(checkpoint.root) if checkpoint else ""
    return [
        f"ok: {origin} has {report.entries} entries with root {root}",
        f"waiting to be sequenced: {report.pending}; to be published: {report.unpublished}",
    ]


def _document(report: Report) -> dict[str, object]:
    checkpoint = report.checkpoint
    return {
        "ok": not report.findings,
        "origin": checkpoint.origin if checkpoint else None,
        "size": checkpoint.size if checkpoint else None,
        "root": _base64(checkpoint.root) if checkpoint else None,
        "entries": report.entries,
        "pending": report.pending,
        "unpublished": report.unpublished,
        "findings": report.findings,
    }


def _base64(root: bytes) -> str:
    """As in a checkpoint, so that the two can be compared by eye."""
    return base64.b64encode(root).decode("ascii")
