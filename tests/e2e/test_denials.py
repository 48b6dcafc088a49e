"""Refusals of several processes, counted across a restart, on every storage."""

import pytest


def refused(server, token, times):
    for _ in range(times):
        assert server.put(token, "1", b"x").status_code == 403


def counted(server):
    with server.client(server.token(role="auditor")) as client:
        answer = client.get("/audit/v1/denials", params={"group": ["who", "rule"]})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["unreadable"], found["cut"]) == (0, False)
    return {(row["who"], row["rule"]): row["count"] for row in found["counts"]}


@pytest.mark.slow
@pytest.mark.every_storage
def test_refusals_of_all_processes_are_counted_and_survive_a_restart(make_server):
    server = make_server(workers=2).start()
    refused(server, server.token(role="developer"), 12)
    refused(server, None, 7)
    server.restart()
    assert counted(server) == {("anonymous", ""): 7, ("known", "developer"): 12}
    assert "denials.not_kept" not in server.logs()
