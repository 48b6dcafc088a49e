"""A real browser, Chromium, driven by Playwright; only loopback answers it."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import require_tool
from world import npm

HERE = Path(__file__).resolve().parents[1] / "browser"


@dataclass(frozen=True)
class Visit:
    """What a script gave back, and what the browser saw meanwhile."""

    value: Any
    console: tuple[dict[str, str], ...]
    """Messages on the console: `type` and `text`. What a Content-Security-Policy refused is here,
    as an `error`."""
    errors: tuple[str, ...]
    """Exceptions that nobody caught."""
    requests: tuple[dict[str, str], ...]
    """Every request: `method` and `url`."""

    @property
    def complaints(self) -> list[str]:
        """Errors of any kind: a sound page has none."""
        return [item["text"] for item in self.console if item["type"] == "error"] + [*self.errors]


def run_page(script: str, *, timeout: float = 180, **inputs: object) -> Visit:
    """Run `script` in a fresh browser: the body of an async function over `page` and `context`
    (Playwright), `input` (the keyword arguments, through JSON) and `axe()` (accessibility
    violations of the page as it stands). What it returns, through JSON, is `Visit.value`.

    Raises:
        AssertionError: the script threw, with what it threw and what the browser saw.
    """
    chromium = require_tool("chromium", "apt-get install chromium")
    npm.install(HERE)
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as scratch:
        module = Path(scratch, "script.mjs")
        module.write_text(
            f"export default async ({{ page, context, input, axe }}) => {{{script}}};"
        )
        done = subprocess.run(
            [npm.node(), str(HERE / "visit.mjs"), chromium, f"{scratch}/profile", str(module)],
            input=json.dumps(inputs),
            env={"PATH": os.environ["PATH"], "HOME": scratch, "TMPDIR": scratch},
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return Visit(
        value=found["value"],
        console=tuple(found["console"]),
        errors=tuple(found["errors"]),
        requests=tuple(found["requests"]),
    )
