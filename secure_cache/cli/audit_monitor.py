"""`secure-cache audit monitor`."""

import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import click

from secure_cache.audit.forms import inert_json
from secure_cache.audit.watch_rules import MAX_RULES_BYTES, WatchRules
from secure_cache.cli.audit_query import Progress
from secure_cache.cli.boundary import Exit, complain, note
from secure_cache.cli.options import DURATION
from secure_cache.cli.source_options import read_given, source_options
from secure_cache.client.http_answer import new_client
from secure_cache.client.monitor_state import StateFile, opened_state
from secure_cache.client.webhook import Webhook
from secure_cache.compose.log_source import LogPlace
from secure_cache.compose.monitoring import Looked, look
from secure_cache.core.key_files import read_private_file
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import CorruptObject, Malformed, Misconfigured, Unavailable

WEBHOOK = "SECURE_CACHE_MONITOR_WEBHOOK"
SECRET = "SECURE_CACHE_MONITOR_SECRET"  # noqa: S105 - the name of a variable
_MAX_SECRET_BYTES = 4096
_FILE = click.Path(path_type=Path, dir_okay=False)


class _Begin(click.ParamType[int | None]):
    name = "now|start|INDEX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value in {None, "now"}:
            return None
        if value == "start":
            return 0
        if str(value).isascii() and str(value).isdecimal() and len(str(value)) <= 18:
            return int(value)
        return self.fail("now, start or the index of an entry", param, ctx)


@click.command("monitor")
@click.argument("rules", type=_FILE)
@click.option("--state", required=True, type=_FILE, help="Where it keeps how far it has come.")
@click.option("--from", "begin", type=_Begin(), default="now", help="Where a first look begins.")
@click.option("--follow", type=DURATION, help="Look again so often, and go on through outages.")
@click.option("--webhook-file", type=_FILE, help="Holds the URL that alerts are posted to.")
@click.option("--webhook-secret-file", type=_FILE, help="Holds the secret that signs them.")
@source_options
def monitor_command(
    rules: Path,
    state: Path,
    *,
    begin: int | None,
    follow: int | None,
    webhook_file: Path | None,
    webhook_secret_file: Path | None,
    place: LogPlace,
) -> int:
    """Judge what is new in the log by the file RULES; print each alert as a line of JSON.

    Ends with 0 when nothing was unexpected, 1 when there were alerts, 2 for a mistake in options or
    rules, 3 when the log or the webhook could not be reached, 4 without the right to read, 5 when
    the log is not proved: its history was changed, too few witnesses, a file that is damaged.

    Alerts also go to a webhook, whose URL is a secret: in a file that nobody else can read, or in
    SECURE_CACHE_MONITOR_WEBHOOK; they are signed with the secret of the other file, or of
    SECURE_CACHE_MONITOR_SECRET. Each entry is judged once; after a crash its alerts may come twice,
    with the same id.
    """
    compiled = WatchRules.parse(_read(rules), name=str(rules))
    url = _secret(webhook_file, WEBHOOK, "--webhook-file")
    secret = _secret(webhook_secret_file, SECRET, "--webhook-secret-file")
    if secret and not url:
        raise click.UsageError(f"a secret, and no webhook: give --webhook-file or {WEBHOOK}")
    outlet = _Outlet(url, secret, place)
    with opened_state(state) as file:
        once = partial(
            look,
            place,
            compiled,
            file,
            outlet,
            begin=begin,
            clock=system_clock,
            progress=Progress("judging"),
        )
        if follow is None:
            return _code(anyio.run(once))
        return _follow(once, follow, file)


def _follow(once: Callable[[], Awaitable[Looked]], seconds: int, file: StateFile) -> int:
    note(f"Looking every {seconds} s; the state is in {file.path}.")
    return anyio.run(_looking, once, seconds)


async def _looking(once: Callable[[], Awaitable[Looked]], seconds: int) -> int:
    """Until the log is broken, or SIGTERM: between two looks, or in the midst of one, since the
    state on disk is whole at any time."""
    code = int(Exit.OK)
    async with anyio.create_task_group() as tasks:
        await tasks.start(_cancel_when_told, tasks.cancel_scope)
        while True:
            try:
                found = await once()
            except Unavailable as error:
                complain(f"{error}; looking again in {seconds} s")
            else:
                _tell_first(found)
                if found.broken is not None:
                    code = _broken(found, found.broken)
                    tasks.cancel_scope.cancel()
            await anyio.sleep(seconds)
    return code


async def _cancel_when_told(
    scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    # An exception raised by a handler could strike anywhere, also where an event loop is being
    # closed, and leave threads behind that never end.
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return


def _code(found: Looked) -> int:
    _tell_first(found)
    if found.broken is not None:
        return _broken(found, found.broken)
    note(f"{found.judged} entries were judged; {found.alerts} alerts.")
    return Exit.NO if found.alerts else Exit.OK


def _tell_first(found: Looked) -> None:
    """What a person should know of a first look, and of no other."""
    if not found.pinned:
        note("The log's key was taken from the server; it is in the state from now on.")
    if found.began is not None:
        note(f"This is the first look: from entry {found.began} on, entries are judged.")


def _broken(found: Looked, why: str) -> int:
    complain(why.removesuffix("."))
    if not found.told:
        note("The webhook did not take the alert about that.")
    return Exit.INTEGRITY


class _Outlet:
    """Standard output and, if there is one, the webhook."""

    def __init__(self, url: str | None, secret: str | None, place: LogPlace) -> None:
        self._hook = None
        if url:
            key = secret.encode() if secret else None
            self._hook = Webhook(url, secret=key, client=new_client)
        self._name = place.server.url if place.server is not None else "log"

    def show(self, alerts: list[dict[str, Any]]) -> None:
        for alert in alerts:
            click.echo(inert_json(alert))

    def post(self, alerts: list[dict[str, Any]]) -> None:
        if self._hook is not None:
            self._hook.deliver(self._name, alerts)

    def leave(self, alerts: list[dict[str, Any]]) -> None:
        note(
            f"Stopped before the webhook took all of {len(alerts)} alerts: the next run tells them"
            " again."
        )


def _secret(path: Path | None, variable: str, option: str) -> str | None:
    """From a file or the environment, never from the command line: others can read that."""
    given = os.environ.get(variable)
    if path is None:
        return given
    if given:
        raise click.UsageError(f"{option} and {variable}: give one of them")
    try:
        text = read_private_file(path, max_bytes=_MAX_SECRET_BYTES).decode().strip()
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path} is not text") from error
    if not text or "\n" in text:
        raise Misconfigured(f"{path} does not hold one line")
    return text


def _read(path: Path) -> bytes:
    if not path.exists():
        raise Misconfigured(f"{path} is not there: write the rules, see docs/audit.md")
    try:
        return read_given(path, MAX_RULES_BYTES)
    except CorruptObject as error:
        raise Malformed(f"{path}: no plain file of at most {MAX_RULES_BYTES} bytes") from error
