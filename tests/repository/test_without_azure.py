"""An installation from requirements/run.txt alone lacks the Azure SDK, and nothing else."""

import subprocess
import sys

import pytest

# A machine without the extra: whatever is imported from it is not there.
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"aiohttp", "azure", "isodate", "msal", "requests"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
COMMAND = f"{WITHOUT}\nfrom secure_cache.cli.main import main\nmain()\n"
EVERYTHING = f"""{WITHOUT}
import importlib
import pkgutil
import secure_cache

names = [found.name for found in pkgutil.walk_packages(
    secure_cache.__path__, "secure_cache.", onerror=lambda name: None)]
for name in names:
    if "azure_blob" not in name and not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


def run(program, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )


def test_every_module_but_the_adapter_comes_without_it():
    done = run(EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_a_server_on_the_filesystem_is_made_and_checked_without_it(tmp_path):
    made = run(COMMAND, "init", tmp_path / "server")
    assert made.returncode == 0, made.stderr
    config = tmp_path / "server" / "secure-cache.toml"
    checked = run(COMMAND, "log", "fsck", "--config", config)
    assert checked.returncode == 0, checked.stderr


def test_no_command_pays_for_it_before_it_is_needed():
    done = run(
        "import sys, secure_cache.cli.main, secure_cache.compose.server\n"
        "print({'azure', 'aiohttp', 'msal'} & sys.modules.keys())"
    )
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


@pytest.mark.parametrize("command", [["log", "fsck"], ["storage", "check"]])
def test_where_it_is_needed_its_absence_is_said_with_the_cure(tmp_path, command):
    made = run(COMMAND, "init", tmp_path / "server")
    assert made.returncode == 0, made.stderr
    config = tmp_path / "server" / "secure-cache.toml"
    text = config.read_text().replace('kind = "filesystem"', 'kind = "azure"')
    lines = [line for line in text.splitlines() if not line.startswith("path =")]
    at = lines.index('kind = "azure"')
    lines[at:at] = ['container = "cache"', 'accountName = "account"']
    lines[at:at] = ['credential = "managed-identity"']
    config.write_text("\n".join(lines) + "\n")
    done = run(COMMAND, *command, "--config", config)
    assert done.returncode == 2, done.stderr
    assert "pip install 'secure-cache[azure]'" in done.stderr
    assert "Traceback" not in done.stderr
