"""CVE-2025-36852 (CREEP) with the real Nx client: promises 1 and 2.

Both machines have the same sources, so Nx computes the same hash on both; `mark` is what each of
them really builds, and is in no input.
"""

import pytest
from world.nx import VERSIONS, Workspace, tiny

pytestmark = [pytest.mark.every_storage, pytest.mark.interop, pytest.mark.timeout(300)]

PROJECTS = tiny(3)
ALL = set(PROJECTS)


@pytest.mark.every_storage(oldest_nx=True)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_poison_of_a_pull_request_never_reaches_main(make_server, tmp_path, version, workers):
    server = make_server(workers=workers).start()
    main, pull_request = server.token(branch="main"), server.token(pr=666)
    attacker = Workspace(tmp_path / "attacker", version, PROJECTS)

    first = attacker.run(server.url, pull_request, mark="POISON")
    assert first.code == 0, first
    assert first.remote == set(), first

    # The poison is really stored, under the hash that main will ask for.
    again = attacker.clone(tmp_path / "attacker-again")
    hit = again.run(server.url, pull_request, mark="unused")
    assert (hit.code, hit.remote) == (0, ALL), hit
    assert {again.read(project) for project in ALL} == {"POISON"}

    victim = attacker.clone(tmp_path / "victim")
    build = victim.run(server.url, main, mark="GENUINE")
    assert (build.code, build.remote) == (0, set()), build
    assert {victim.read(project) for project in ALL} == {"GENUINE"}

    release = attacker.clone(tmp_path / "release")
    from_main = release.run(server.url, main, mark="unused")
    assert (from_main.code, from_main.remote) == (0, ALL), from_main
    assert {release.read(project) for project in ALL} == {"GENUINE"}


@pytest.mark.parametrize("version", VERSIONS)
def test_mains_entry_serves_every_pull_request_even_one_that_has_its_own(server, tmp_path, version):
    main = server.token(branch="main")
    own, other = server.token(pr=1), server.token(pr=2)
    workspace = Workspace(tmp_path / "pr-first", version, PROJECTS)
    stored = workspace.run(server.url, own, mark="OF THE PULL REQUEST")
    assert stored.code == 0, stored
    trusted = workspace.clone(tmp_path / "main").run(server.url, main, mark="OF MAIN")
    assert (trusted.code, trusted.remote) == (0, set()), trusted

    for name, token in (("own", own), ("other", other)):
        reader = workspace.clone(tmp_path / name)
        run = reader.run(server.url, token, mark="unused")
        assert (run.code, run.remote) == (0, ALL), run
        assert {reader.read(project) for project in ALL} == {"OF MAIN"}


@pytest.mark.parametrize("version", VERSIONS)
def test_one_pull_request_never_reads_what_another_wrote(server, tmp_path, version):
    workspace = Workspace(tmp_path / "one", version, PROJECTS)
    first = workspace.run(server.url, server.token(pr=1), mark="ONE")
    assert first.code == 0, first

    other = workspace.clone(tmp_path / "two")
    run = other.run(server.url, server.token(pr=2), mark="TWO")
    assert (run.code, run.remote) == (0, set()), run
    assert {other.read(project) for project in ALL} == {"TWO"}
