"""`secure-cache audit index`."""

from pathlib import Path

import anyio
import anyio.to_thread
import click

from secure_cache.audit.checking import IndexFinding
from secure_cache.audit.index import AuditIndex, remove_index
from secure_cache.cli.audit_query import Progress
from secure_cache.cli.boundary import Exit, note, printable
from secure_cache.cli.options import config_option, json_option, print_json, read_settings
from secure_cache.client.mirror_folder import INDEX, read_pins
from secure_cache.compose.audit_offline import offline_audit, offline_index_path
from secure_cache.compose.auditing import index_path
from secure_cache.compose.log_source import LogPlace, open_log_source
from secure_cache.compose.mirroring import check_mirror_index
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import Misconfigured
from secure_cache.settings import Settings

_INDEX = click.option(
    "--index",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The index file; by default the server's.",
)


@click.group("index")
def index_command() -> None:
    """The index that answers audit queries; it is derived from the log, which is the truth."""


@index_command.command("check")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default="secure-cache.toml",
    envvar="SECURE_CACHE_CONFIG",
    show_envvar=True,
    show_default=True,
    help="The settings file of the installation.",
)
@_INDEX
@click.option(
    "--mirror",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Check the index of this mirror instead.",
)
@click.option("--log", "with_log", is_flag=True, help="Also hold each row to its entry in the log.")
@json_option
def check_index(
    config: Path, path: Path | None, mirror: Path | None, *, with_log: bool, as_json: bool
) -> int:
    """Check every row, set and count of an index; exit 5 on any difference. Changes nothing."""
    if mirror is not None:
        if path is not None:
            raise click.UsageError("--mirror stands alone: it has its own index")
        file, remedy = mirror / INDEX, f"`secure-cache audit mirror {mirror} --repair`"
        read_pins(mirror)
        if not file.exists():
            raise Misconfigured(f"{file} is not there: `secure-cache audit query` makes it")
        findings, size = anyio.run(_check_mirrored, mirror, with_log)
    else:
        settings, remedy = read_settings(config), "`secure-cache audit index rebuild`"
        file = offline_index_path(settings, path or index_path(settings))
        if not file.exists():
            raise Misconfigured(f"{file} is not there: {remedy} makes it")
        found, size = anyio.run(_check, settings, file, with_log)
        findings = [str(finding) for finding in found]
    if as_json:
        print_json({"ok": not findings, "entries": size, "findings": findings})
    else:
        for finding in findings:
            click.echo(printable(finding))
    if findings:
        note(f"{file} is damaged or was changed; the log is not: {remedy}")
        return Exit.INTEGRITY
    if not as_json:
        held = "its own proof and the log" if with_log else "its own proof"
        click.echo(f"ok: {size} entries, held to {held}")
    return Exit.OK


async def _check_mirrored(
    folder: Path,
    with_log: bool,  # noqa: FBT001 - handed on by anyio
) -> tuple[list[str], int]:
    async with open_log_source(LogPlace(mirror=folder), clock=system_clock) as source:
        problems, size = await check_mirror_index(folder, source, with_log=with_log)
        return [problem.what for problem in problems], size


async def _check(
    settings: Settings,
    path: Path,
    with_log: bool,  # noqa: FBT001 - handed on by anyio
) -> tuple[tuple[IndexFinding, ...], int]:
    async with offline_audit(settings, path, clock=system_clock) as audit:
        index: AuditIndex = audit.index
        findings = await anyio.to_thread.run_sync(index.check)
        size = 0 if findings else index.state().size
        if with_log and not findings:
            findings = await index.check_against(audit.log, progress=Progress("comparing"))
        return findings, size


@index_command.command("rebuild")
@config_option
@_INDEX
def rebuild_index(settings: Settings, path: Path | None) -> None:
    """Delete an index and make it anew from the log. Also beside a server."""
    file = offline_index_path(settings, path or index_path(settings))
    remove_index(file)

    async def work() -> int:
        async with offline_audit(settings, file, clock=system_clock) as audit:
            return (await audit.catch_up(Progress("indexing"))).size

    click.echo(f"ok: {anyio.run(work)} entries in {file}")
