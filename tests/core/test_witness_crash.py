"""A witness that is killed at any of its writes, and its next life: never two histories."""

import subprocess
import sys

import pytest
from core.test_witness import leaves, note_of, proof_of
from fakes.logs import ORIGIN, SIGNER
from fakes.witnesses import make_witness
from tools import require_tool

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.witness import OtherSize
from secure_cache.tlog.witness_wire import AddCheckpoint

pytestmark = pytest.mark.anyio

# Takes files with requests, in order, and says what it answers. Its end may come at any moment.
WITNESS = """
import sys
from pathlib import Path
from fakes.logs import SIGNER
from fakes.witnesses import answer, make_witness
witness = make_witness(Path(sys.argv[1]), SIGNER)
for name in sys.argv[2:]:
    said = answer(witness, Path(name).read_bytes())
    sys.stdout.buffer.write(b"%d\\n" % said.status + said.body)
    sys.stdout.flush()
"""

STEPS = ((0, 5), (5, 9), (9, 12))
MOMENTS = [
    f"{call}:signal=SIGKILL:when={when}"
    for call, times in (("fsync", 7), ("rename", 3), ("write", 6), ("flock", 3), ("mkdir", 1))
    for when in range(1, times + 1)
]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_death_at_any_write_never_leads_to_two_histories(tmp_path, moment):
    requests = []
    for number, (old, size) in enumerate(STEPS):
        request = AddCheckpoint(old, proof_of(b"a", old, size), await note_of(b"a", size))
        (tmp_path / f"{number}").write_bytes(bytes(request))
        requests.append(str(tmp_path / f"{number}"))
    answered = killed_at(moment, tmp_path / "state", requests)
    # Its next life is offered another history from wherever it may stand.
    witness = make_witness(tmp_path / "state", SIGNER)
    witness.check()
    given = []
    for _, size in STEPS:
        for old in (0, 5, 9, 12):
            request = AddCheckpoint(old, proof_of(b"b", old, size), await note_of(b"b", size))
            try:
                result = witness.add_checkpoint(request)
            except (LogInconsistent, Malformed):
                continue
            if not isinstance(result, OtherSize):
                given.append((b"b", size))
    for size in answered:
        for branch, other in given:
            least = min(size, other)
            assert leaves(branch, least) == leaves(b"a", least), f"{moment}: two histories"
    if answered:
        assert given == []
        assert witness.last(ORIGIN)[1].size >= answered[-1]


def killed_at(moment, folder, requests):
    """The sizes whose cosignatures were given out before the end."""
    strace = require_tool("strace", "apt-get install strace")
    done = subprocess.run(
        [
            *(strace, "-f", "-o", "/dev/null"),
            *("-e", f"trace={moment.partition(':')[0]}", "-e", f"inject={moment}"),
            *(sys.executable, "-B", "-c", WITNESS, str(folder), *requests),
        ],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        check=False,
        timeout=60,
    )
    assert done.returncode != 0, "it was not killed"
    # One status line and one cosignature line for each; what is cut was not given out.
    lines = done.stdout.split(b"\n")[:-1]
    sizes = []
    for number in range(len(lines) // 2):
        assert lines[2 * number] == b"200"
        sizes.append(STEPS[number][1])
    return sizes
