"""`secure-cache audit monitor`."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from secure_cache.audit.forms import inert_json
from secure_cache.audit.watch_rules import MAX_RULES_BYTES, WatchRules
from secure_cache.cli.boundary import Exit, complain, note
from secure_cache.cli.options import DURATION
from secure_cache.cli.source_options import source_options
from secure_cache.client.http_answer import new_client
from secure_cache.client.log_folder import read_bounded
from secure_cache.client.monitor_state import StateFile, opened_state
from secure_cache.client.webhook import Webhook
from secure_cache.compose.log_source import LogPlace
from secure_cache.compose.monitoring import Deliver, Looked, look
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import Misconfigured, NotFound, Unavailable

WEBHOOK = "SECURE_CACHE_MONITOR_WEBHOOK"
SECRET = "SECURE_CACHE_MONITOR_SECRET"  # noqa: S105 - the name of a variable
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
@source_options
def monitor_command(
    rules: Path, state: Path, *, begin: int | None, follow: int | None, place: LogPlace
) -> int:
    """Judge what is new in the log by the file RULES; print each alert as a line of JSON.

    Ends with 0 when nothing was unexpected, 1 when there were alerts, 3 when the log or the webhook
    could not be reached, 4 without the right to read, 5 when the log's history was changed. Alerts
    also go to the webhook in SECURE_CACHE_MONITOR_WEBHOOK, signed with SECURE_CACHE_MONITOR_SECRET.
    Each entry is judged once; after a crash its alerts may come twice.
    """
    compiled = WatchRules.parse(_read(rules), name=str(rules))
    deliver = _delivery(os.environ.get(WEBHOOK), os.environ.get(SECRET), place)
    with opened_state(state) as file:
        once = partial(look, place, compiled, file, deliver, begin=begin, clock=system_clock)
        if follow is None:
            found = anyio.run(once)
            if not found.pinned:
                note("The log's key was taken from the server; it is in the state from now on.")
            return _code(found)
        return _follow(once, follow, file)


def _follow(once: Any, seconds: int, file: StateFile) -> int:
    note(f"Looking every {seconds} s; the state is in {file.path}.")
    # Between two looks, or in the midst of one: the state on disk is whole at any time.
    signal.signal(signal.SIGTERM, _stop)
    while True:
        try:
            found: Looked = anyio.run(once)
        except Unavailable as error:
            complain(f"{error}; looking again in {seconds} s")
        else:
            if found.broken:
                return Exit.INTEGRITY
        time.sleep(seconds)


def _stop(*_: object) -> None:
    raise SystemExit(Exit.OK)


def _code(found: Looked) -> int:
    note(f"{found.judged} entries were judged; {found.alerts} alerts.")
    if found.broken:
        return Exit.INTEGRITY
    return Exit.NO if found.alerts else Exit.OK


def _delivery(url: str | None, secret: str | None, place: LogPlace) -> Deliver:
    hook = None
    if url:
        hook = Webhook(url, secret=secret.encode() if secret else None, client=new_client)
    name = place.server.url if place.server is not None else "log"

    def deliver(alerts: list[dict[str, Any]]) -> None:
        for alert in alerts:
            click.echo(inert_json(alert))
        if hook is not None:
            hook.deliver(name, alerts)

    return deliver


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_RULES_BYTES)
    except NotFound as error:
        raise Misconfigured(f"{path} is not there: write the rules, see docs/audit.md") from error
