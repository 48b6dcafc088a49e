"""docs/audit.md, done: an auditor who types what stands there gets what it says."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from world.server import Server, command, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text()
LINES = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
COMMANDS = [line for line in LINES if line.startswith("secure-cache audit ")]
# The document explains questions first; what asks a mirror needs one.
COMMANDS.sort(key=lambda line: " audit mirror " not in line)
RULES = re.search(r"^```yaml\n(version: 1\nexpect:.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
REVOCATION = """\
id: incident-7
match: { subject: "branch:main" }
reason: a drill
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("audited") / "server",
        environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"},
    ).start()
    token = server.token()
    for key in ("100", "101", "102"):
        assert server.put(token, key, key.encode()).status_code == 200
    server.edit_policy(lambda text: text + "# edited\n")
    # It began with three events: opened, keys, policy.
    wait_until(lambda: server.checkpoint()[0] == 3 + 3 + 1, "the new policy's event")
    yield server
    server.kill9()


@pytest.fixture
def typed(server, tmp_path):
    """Runs a line in a shell of an auditor's, after the lines that set its variables."""
    (tmp_path / "artifact.tar.gz").write_bytes(b"101")
    (tmp_path / "revocation.yaml").write_text(REVOCATION)
    revoked = f"revocations: [{{{', '.join(REVOCATION.splitlines())}}}]"
    (tmp_path / "next.yaml").write_text(
        server.policy.read_text().replace("revocations: []", revoked)
    )
    (tmp_path / "rules.yaml").write_text(RULES.group(1))
    with server.client() as client:
        (tmp_path / "checkpoint.old").write_bytes(client.get("/log/checkpoint").content)
    environment = os.environ | {
        "PATH": f"{Path(command()).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "DIR": str(server.directory),
        "SECURE_CACHE_SERVER": server.url,
        "SECURE_CACHE_TOKEN": server.token(role="auditor"),
    }
    variables = [line for line in LINES if re.match("(LOG_KEY|SHA256|MIRROR)=", line)]
    assert len(variables) == 3

    def type_it(line):
        return subprocess.run(
            ["bash", "-c", "\n".join([*variables, line])],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
            env=environment,
        )

    return type_it


def test_each_command_of_the_document_works(typed):
    assert len(COMMANDS) > 20
    for line in [line for line in LINES if line.startswith("curl ")]:
        done = typed(line)
        assert done.returncode == 0, (line, done.stderr)
    for line in COMMANDS:
        done = typed(line)
        # There is no evidence against a server that has done nothing.
        expected = 2 if "--evidence" in line else 0
        assert done.returncode == expected, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
