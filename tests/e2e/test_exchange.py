"""A CI's own token, from its own issuer: accepted as it is, exchanged for one that outlives the
job, and worth what the policy says at each request."""

import contextlib
import time

import pytest
from fakes.issuer import Issuer
from world.github_ci import AUDIENCE, MAIN, PULL_REQUEST, trust_ci
from world.server import wait_until

pytestmark = pytest.mark.every_storage

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"


@pytest.fixture
def issuer():
    with Issuer() as made:
        made.claims = {"aud": AUDIENCE}
        yield made


@pytest.fixture
def server(make_server, issuer):
    made = make_server()
    trust_ci(made, issuer)
    return made.start()


def exchange(server, token):
    form = {"grant_type": GRANT, "subject_token_type": JWT, "subject_token": token}
    with server.client() as client:
        return client.post("/v1/token", data=form)


def test_a_ci_token_is_exchanged_for_a_session_that_may_do_the_same(server, issuer):
    answer = exchange(server, issuer.token(**MAIN))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    session = document["access_token"]
    assert document["token_type"] == "Bearer"
    assert document["expires_in"] > 300
    assert server.put(session, "1", b"by main").status_code == 200

    pull_request = exchange(server, issuer.token(**PULL_REQUEST)).json()["access_token"]
    assert server.get(pull_request, "1").content == b"by main"
    assert server.put(pull_request, "2", b"poison").status_code == 200
    assert server.get(session, "2").status_code == 404


def test_a_ci_token_is_also_accepted_as_it_is(server, issuer):
    token = issuer.token(**MAIN)
    assert server.put(token, "1", b"x").status_code == 200
    # Within its life as often as the job likes: only the exchange is single-use.
    assert server.get(token, "1").content == b"x"
    assert server.get(token, "1").content == b"x"


def test_a_ci_token_is_exchanged_once(server, issuer):
    token = issuer.token(**MAIN)
    assert exchange(server, token).status_code == 200
    again = exchange(server, token)
    assert again.status_code == 401
    assert "token-replayed" in str(again.headers) + again.text


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({}, "there is no token in the request"),
        ({"Authorization": "Bearer"}, "there is no token in the request"),
        ({"Authorization": "Basic x"}, "not one of the form 'Bearer TOKEN'"),
    ],
)
def test_an_exchange_without_a_token_says_so(server, header, said):
    with server.client() as client:
        answer = client.post("/v1/token", headers=header)
    assert answer.status_code == 401
    assert said in answer.json()["title"]


def test_a_used_token_stays_used_after_a_restart(server, issuer):
    token = issuer.token(**MAIN)
    assert exchange(server, token).status_code == 200
    server.kill9()
    server.start()
    assert exchange(server, token).status_code == 401


def test_a_pull_request_target_that_carries_mains_ref_is_not_main(server, issuer):
    main = issuer.token(**MAIN)
    assert server.put(main, "1", b"by main").status_code == 200
    token = issuer.token(**MAIN | {"event_name": "pull_request_target"})
    assert server.put(token, "2", b"poison").status_code == 403
    assert server.get(main, "2").status_code == 404


def test_a_token_of_another_repository_is_denied(server, issuer):
    token = issuer.token(**MAIN | {"repository_id": "75"})
    assert server.put(token, "1", b"x").status_code in {401, 403}
    assert exchange(server, token).status_code in {401, 403}


BAD = {
    "another audience": {"aud": "https://other.example"},
    "no audience": {"without": ("aud",)},
    "no expiry": {"without": ("exp",)},
    "far future": {"exp": 2**33},
    "another issuer": {"iss": "https://other.example"},
}


@pytest.mark.parametrize("name", BAD)
def test_a_token_that_was_not_made_for_us_is_loud(server, issuer, name):
    token = issuer.token(**MAIN | BAD[name])
    answer = server.get(token, "1")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain")
    assert exchange(server, token).status_code == 401


def test_a_token_for_us_and_somebody_else_is_not_for_us(server, issuer):
    token = issuer.token(**MAIN | {"aud": [AUDIENCE, "https://other.example"]})
    assert server.put(token, "1", b"x").status_code == 401


def test_an_expired_token_costs_only_the_cache(server, issuer):
    now = int(time.time())
    token = issuer.token(**MAIN, iat=now - 400, nbf=now - 400, exp=now - 100)
    look_up, store = server.get(token, "1"), server.put(token, "1", b"x")
    assert (look_up.status_code, store.status_code) == (404, 403)
    assert store.headers["X-Secure-Cache-Reason"] == "token-expired"
    assert exchange(server, token).status_code == 401


def test_a_new_key_of_the_issuer_is_found(server, issuer):
    assert server.put(issuer.token(**MAIN), "1", b"x").status_code == 200
    issuer.rotate(keep=True)
    # The key set is looked at again when an unknown key comes, but not at every such token.
    token = issuer.token(**MAIN)
    wait_until(lambda: server.get(token, "1").status_code == 200, "the new key", 60)


def test_an_issuer_that_is_down_costs_nothing_while_its_keys_are_known(server, issuer):
    assert server.put(issuer.token(**MAIN), "1", b"x").status_code == 200
    issuer.behaviour = "error"
    assert server.get(issuer.token(**MAIN), "1").content == b"x"


@pytest.mark.parametrize("behaviour", ["error", "garbage", "giant", "empty", "redirect"])
def test_an_issuer_that_never_answered_well_costs_only_the_cache(server, issuer, behaviour):
    issuer.behaviour = behaviour
    token = issuer.token(**MAIN)
    answer = server.get(token, "1")
    assert answer.status_code in {401, 404}
    assert "Traceback" not in answer.text
    own = server.token(branch="main")
    assert server.put(own, "1", b"x").status_code == 200


def test_a_session_loses_its_rights_when_the_policy_does(server, issuer):
    session = exchange(server, issuer.token(**MAIN)).json()["access_token"]
    assert server.put(session, "1", b"x").status_code == 200
    server.edit_policy(
        lambda text: text.replace('{ repository_id: "74" }', '{ repository_id: "76" }')
    )
    wait_until(lambda: server.get(session, "1").status_code == 404, "the policy to take effect")
    assert server.put(session, "2", b"x").status_code == 403


def test_a_writer_that_is_no_longer_trusted_is_no_longer_served(server, issuer):
    """Trust is judged when an entry is read, by today's policy."""
    main, pull_request = issuer.token(**MAIN), issuer.token(**PULL_REQUEST)
    assert server.put(main, "1", b"x").status_code == 200
    assert server.get(pull_request, "1").content == b"x"
    server.edit_policy(
        lambda text: text.replace("when: { branch: main }", "when: { branch: trunk }")
    )
    wait_until(
        lambda: server.get(pull_request, "1").status_code == 404, "the policy to take effect"
    )


def test_a_bad_policy_never_replaces_a_good_one(server, issuer):
    main = server.token(branch="main")
    before = server.get(main, "1").status_code
    good = server.policy.read_text()
    server.edit_policy(lambda text: text.replace("tier: trusted", "tier: all-powerful"))
    wait_until(lambda: "policy" in server.logs().lower(), "the refusal to be logged", 15)
    assert server.get(main, "1").status_code == before == 404
    assert server.put(main, "1", b"x").status_code == 200
    with contextlib.suppress(FileNotFoundError):
        server.policy.write_text(good)
    assert server.get(main, "1").content == b"x"
