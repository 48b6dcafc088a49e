"""Promise 5 with the real Nx client: the cache never fails a build that passes without it, and a
token that can never work is loud."""

import concurrent.futures
import os
import signal
import time

import pytest
from world.nx import BUILD, NEWEST, VERSIONS, Run, Started, Workspace, large, tiny
from world.server import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

ALL = set(tiny(3))
WAIT = f"touch ../../started && until [ -e ../../go ]; do sleep 0.1; done && {BUILD}"
"""A build that lets the test decide when it ends."""


def paused(run: Started, workspace: Workspace) -> Started:
    """The run, once its waiting task has begun."""
    wait_until((workspace.directory / "started").exists, "the waiting task to begin", 60)
    assert run.process.poll() is None
    return run


def resume(run: Started, workspace: Workspace) -> Run:
    (workspace.directory / "go").touch()
    return run.wait()


@pytest.mark.every_storage
@pytest.mark.parametrize("version", VERSIONS)
def test_a_second_machine_gets_every_output_from_the_cache(server, tmp_path, version):
    token = server.token(branch="main")
    workspace = Workspace(tmp_path / "one", version, tiny(3))
    miss = workspace.run(server.url, token, mark="first")
    assert (miss.code, miss.remote) == (0, set()), miss
    second = workspace.clone(tmp_path / "two")
    hit = second.run(server.url, token, mark="second")
    assert (hit.code, hit.remote) == (0, ALL), hit
    assert {second.read(project) for project in ALL} == {"first"}


@pytest.mark.every_storage
@pytest.mark.parametrize("version", VERSIONS)
def test_two_machines_that_store_the_same_task_both_succeed(server, tmp_path, version):
    """The slower one is answered 409."""
    token = server.token(branch="main")
    slow = Workspace(tmp_path / "slow", version, {"p0": WAIT})
    run = paused(slow.start(server.url, token, mark="slow"), slow)

    fast = slow.clone(tmp_path / "fast")
    (fast.directory / "go").touch()
    won = fast.run(server.url, token, mark="fast")
    assert (won.code, won.remote) == (0, set()), won

    lost = resume(run, slow)
    assert (lost.code, lost.remote) == (0, set()), lost
    assert slow.read("p0") == "slow"
    assert 409 in [event.get("status") for event in server.events()]

    reader = slow.clone(tmp_path / "reader")
    assert reader.run(server.url, token).code == 0
    assert reader.read("p0") == "fast"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_developer_reads_main_and_builds_what_it_lacks(server, tmp_path, version):
    workspace = Workspace(tmp_path / "main", version, tiny(3))
    assert workspace.run(server.url, server.token(branch="main"), mark="main").code == 0

    projects = tiny(5)
    reader = Workspace(tmp_path / "developer", version, projects)
    run = reader.run(server.url, server.token(role="developer"), mark="mine")
    assert (run.code, run.remote) == (0, ALL), run
    assert (reader.read("p0"), reader.read("p4")) == ("main", "mine")

    # Nothing of the developer's was stored.
    again = Workspace(tmp_path / "again", version, projects)
    second = again.run(server.url, server.token(role="developer"), mark="again")
    assert (second.code, second.remote) == (0, ALL), second
    assert again.read("p4") == "again"


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_token_the_build_passes_and_shares_nothing(server, tmp_path, version):
    workspace = Workspace(tmp_path / "main", version, tiny(3))
    assert workspace.run(server.url, server.token(branch="main"), mark="main").code == 0
    for name in ("fork", "fork-again"):
        fork = workspace.clone(tmp_path / name)
        run = fork.run(server.url, None, mark=name)
        assert (run.code, run.remote) == (0, set()), run
        assert fork.read("p0") == name


@pytest.mark.parametrize("version", VERSIONS)
def test_a_garbage_token_is_loud(server, tmp_path, version):
    """The one line of the 401 reaches whoever reads the CI log."""
    workspace = Workspace(tmp_path / "one", version, tiny(1))
    token = "not-a-token"
    run = workspace.run(server.url, token)
    assert run.code != 0, run
    with server.client(token) as client:
        line = client.get("/v1/cache/1").text.strip()
    assert line
    assert f"Unauthorized: {line}" in run.output, run


@pytest.mark.slow
def test_a_token_that_expires_during_the_run_costs_only_the_cache(server, tmp_path):
    """All versions at once, because each has to wait for the token and the leeway to run out."""
    # One after the other: both are stored, and by Nx 20 and 22 the second looked up, after expiry.
    tasks = {"p0": WAIT, "p1": BUILD}
    token = server.token(branch="main", ttl="5s")
    begun = time.monotonic()
    runs = []
    for version in VERSIONS:
        # Different names, so that no version meets another's entries.
        projects = {f"v{version}{name}": command for name, command in tasks.items()}
        workspace = Workspace(tmp_path / version, version, projects)
        runs.append((workspace, workspace.start(server.url, token, mark=version, parallel=1)))
    for workspace, run in runs:
        paused(run, workspace)

    wait_until(
        lambda: server.get(token, "0").headers["X-Secure-Cache-Reason"].startswith("token-expired"),
        "the token to expire",
        60,
    )
    assert time.monotonic() - begun >= 30, "the leeway of 30 s was not given"
    for workspace, run in runs:
        done = resume(run, workspace)
        assert done.code == 0, done
        assert workspace.read(f"v{workspace.version}p1") == workspace.version
    answers = [event.get("status") for event in server.events() if event.get("method") == "PUT"]
    assert answers.count(403) >= len(VERSIONS), answers


@pytest.mark.every_storage
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("how", ["restart", "crash"])
def test_a_server_that_restarts_during_the_run_costs_nothing(server, tmp_path, version, how):
    token = server.token(branch="main")
    workspace = Workspace(tmp_path / "one", version, {"p0": WAIT, "p1": BUILD})
    before, _ = server.checkpoint()
    run = paused(workspace.start(server.url, token, mark="one"), workspace)
    # A look-up that meets no server at all fails every released Nx at once; nobody behind the port
    # can help that. What is promised begins where the connection does.
    wait_until(lambda: server.checkpoint()[0] > before, "the other task to be stored")
    if how == "restart":
        server.restart()
    else:
        server.kill9()
        server.start()
    done = resume(run, workspace)
    assert done.code == 0, done

    second = workspace.clone(tmp_path / "two")
    (second.directory / "go").touch()
    hit = second.run(server.url, token, mark="two")
    assert (hit.code, hit.remote) == (0, {"p0", "p1"}), hit
    assert second.read("p0") == "one"


@pytest.mark.every_storage
@pytest.mark.parametrize("workers", [1, 2])
def test_three_hundred_tasks_at_once_are_answered(make_server, tmp_path, workers):
    """Nx 24 looks all of them up in the same moment, over as many connections."""
    server = make_server(workers=workers).start()
    token = server.token(branch="main")
    projects = tiny(300)
    workspace = Workspace(tmp_path / "one", NEWEST, projects)
    miss = workspace.run(server.url, token, mark="first")
    assert (miss.code, miss.remote) == (0, set()), miss
    second = workspace.clone(tmp_path / "two")
    hit = second.run(server.url, token, mark="second")
    assert (hit.code, hit.remote) == (0, set(projects)), hit
    assert {second.read(project) for project in projects} == {"first"}
    # Acknowledged is durable; the published tree follows within a commit or two.
    wait_until(lambda: server.checkpoint()[0] >= 300, "all 300 entries in the published log")


@pytest.mark.every_storage
@pytest.mark.parametrize("version", VERSIONS)
def test_an_output_of_100_mib_comes_back_whole(server, tmp_path, version):
    token = server.token(branch="main")
    workspace = Workspace(tmp_path / "one", version, {"big": large(100)})
    miss = workspace.run(server.url, token)
    assert (miss.code, miss.remote) == (0, set()), miss
    second = workspace.clone(tmp_path / "two")
    hit = second.run(server.url, token)
    assert (hit.code, hit.remote) == (0, {"big"}), hit
    one, two = (w.built("big", "large.bin").read_bytes() for w in (workspace, second))
    assert len(one) == 100 * 1024 * 1024
    assert one == two


@pytest.mark.every_storage
def test_many_machines_at_once_never_fail(make_server, tmp_path):
    """Main and pull requests, all versions, over the same tasks, on two workers."""
    server = make_server(workers=2).start()
    origin = Workspace(tmp_path / "origin", NEWEST, tiny(20))
    jobs = [
        (Workspace(tmp_path / f"{version}-{name}", version, origin.projects), token)
        for version in VERSIONS
        for name, token in (
            ("main", server.token(branch="main")),
            ("pr", server.token(pr=int(version))),
        )
    ]
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        runs = list(
            pool.map(lambda job: job[0].run(server.url, job[1], mark=job[0].directory.name), jobs)
        )
    for run in runs:
        assert run.code == 0, run
    for (workspace, _), run in zip(jobs, runs, strict=True):
        if workspace.directory.name.endswith("main"):
            marks = {workspace.read(project) for project in run.remote}
            assert all(mark.endswith("main") for mark in marks), marks


def test_idle_connections_of_a_run_do_not_hold_up_a_stop(server, tmp_path):
    """Nx keeps its connections for 90 s; the drain must not wait for them, nor the run mind."""
    token = server.token(branch="main")
    workspace = Workspace(tmp_path / "one", NEWEST, tiny(30) | {"wait": WAIT})
    before, _ = server.checkpoint()
    run = paused(workspace.start(server.url, token, mark="one", parallel=3), workspace)
    wait_until(lambda: server.checkpoint()[0] >= before + 30, "the other tasks to be stored", 60)
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait(60) == 0
    server.process = None
    server.start()
    done = resume(run, workspace)
    assert done.code == 0, done
