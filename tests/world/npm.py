"""Node packages for tests, installed once from a lock and kept between runs."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tools import require_tool


def install(directory: Path) -> Path:
    """`npm ci` in `directory`, unless its node_modules is already what the lock says."""
    require_tool("node", "install Node.js 20 or newer")
    npm = require_tool("npm", "install Node.js 20 or newer with npm")
    modules = directory / "node_modules"
    wanted = hashlib.sha256((directory / "package-lock.json").read_bytes()).hexdigest()
    stamp = modules / ".installed-from"
    # Two test processes may want the same packages at once. The lock is on the folder itself, so
    # that no lock file is left behind.
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == wanted:
            return modules
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"],
            cwd=directory,
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"npm ci in {directory}: {done.stderr}"
        stamp.write_text(wanted)
        return modules
    finally:
        os.close(handle)


def node() -> str:
    path = shutil.which("node")
    assert path is not None
    return path
