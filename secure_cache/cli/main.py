"""The console script `secure-cache`.

Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 the answer is no, 2 usage or
configuration, 3 unreachable, 4 not authorized, 5 integrity.
"""

import os
import sys
from collections.abc import Mapping, Sequence

import click

import secure_cache
from secure_cache.cli.boundary import guarded
from secure_cache.cli.lazy import Lazy, LazyGroup


class _Root(LazyGroup):
    lazy = {  # noqa: RUF012 - a class constant of click's making
        "init": Lazy("secure_cache.cli.init", "Make a server's folder: settings, policy, keys."),
        "serve": Lazy("secure_cache.cli.serve", "Run the server."),
        "token": Lazy("secure_cache.cli.token", "Issue, exchange and inspect tokens."),
        "policy": Lazy("secure_cache.cli.policy", "Lint, test, explain and compare policies."),
        "keys": Lazy("secure_cache.cli.keys", "List, rotate, revoke and show signing keys."),
        "log": Lazy("secure_cache.cli.log", "Check the transparency log."),
        "witness": Lazy("secure_cache.cli.witness", "Watch logs as a third party."),
        "audit": Lazy("secure_cache.cli.audit", "Ask who wrote what, and prove it."),
        "storage": Lazy("secure_cache.cli.storage", "Check or make the storage."),
    }


@click.group(
    cls=_Root,
    name="secure-cache",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 the answer is no, 2 usage or configuration, 3 unreachable,"
    " 4 not authorized, 5 integrity. SECURE_CACHE_DEBUG=1 shows tracebacks.",
)
@click.version_option(secure_cache.__version__, message="%(prog)s %(version)s")
def root() -> None:
    """A remote build cache that a pull request cannot poison."""


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command line to its exit code."""
    return guarded(
        lambda: root.main(args=list(arguments), prog_name="secure-cache", standalone_mode=False),
        environ,
    )


def main() -> None:
    """Entry point."""
    sys.exit(run(sys.argv[1:], os.environ))
