"""Issuers that are hostile, broken, or somebody else's machine: their keys are fetched within
bounds, seldom, and only from where the policy says."""

import ipaddress
import json
import os
import socket

import anyio
import pytest
from fakes.clock import HeldClock
from fakes.issuer import Issuer, private_key, public_jwk
from fakes.policy import issuer_entry

from secure_cache.identity.fetch import KeyFetcher, check_address, check_url
from secure_cache.identity.jwks import IssuerKeys
from secure_cache.model.errors import InvalidToken, Misconfigured, Unavailable

pytestmark = pytest.mark.anyio

PATIENT_SECONDS = 20
"""Where an issuer is to answer, however busy the machine is."""


@pytest.fixture
def clock():
    return HeldClock()


@pytest.fixture
def ci(clock):
    with Issuer(clock=clock) as issuer:
        yield issuer


def entry(ci, **changes):
    return issuer_entry(ci.iss, **({"jwks_url": ci.jwks_url} | changes))


def keys_of(clock, directory, *, seen=None, fetcher=None):
    return IssuerKeys(
        fetcher=fetcher or KeyFetcher(deadline_seconds=PATIENT_SECONDS),
        policy_directory=directory,
        clock=clock,
        on_refresh=None if seen is None else seen.append,
    )


async def until(condition):
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - a real server has no event to wait for
            await anyio.sleep(0.005)


async def test_25_unknown_kid_flood_makes_one_request(ci, clock, tmp_path):
    issuer = entry(ci)
    errors = []

    async def attack(keys, number):
        try:
            await keys.find(issuer, f"unknown-{number}")
        except (InvalidToken, Unavailable) as error:
            errors.append(error)

    async with keys_of(clock, tmp_path) as keys:
        assert await keys.find(issuer, ci.kid)
        assert ci.requests == 1
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(attack, keys, number)
        assert ci.requests == 1
        assert {type(error) for error in errors} == {InvalidToken}
        clock.advance(31)
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(attack, keys, number)
        assert ci.requests == 2
        assert len(errors) == 800
        # The flood never keeps the good key away.
        assert await keys.find(issuer, ci.kid)


async def test_25_few_tokens_may_wait_for_an_unknown_key(ci, clock, tmp_path):
    errors = []

    async def attack(keys, number):
        with pytest.raises(Unavailable) as caught:
            await keys.find(entry(ci), f"unknown-{number}")
        errors.append(str(caught.value))

    impatient = KeyFetcher(deadline_seconds=3)
    async with keys_of(clock, tmp_path, fetcher=impatient) as keys:
        await keys.find(entry(ci), ci.kid)
        ci.behaviour = "silent"
        clock.advance(31)
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(attack, keys, number)
        assert ci.requests == 2
        assert sum("too many" in error for error in errors) == 100 - 64


@pytest.mark.parametrize(
    "behaviour",
    ["error", "redirect", "garbage", "giant", "compressed", "empty", "duplicate-kid", "too-many"],
)
async def test_25_a_failing_issuer_is_asked_once_in_thirty_seconds(ci, clock, tmp_path, behaviour):
    ci.behaviour = behaviour
    seen = []
    async with keys_of(clock, tmp_path, seen=seen) as keys:
        for _ in range(50):
            with pytest.raises(Unavailable):
                await keys.find(entry(ci), ci.kid)
        assert ci.requests == 1
        clock.advance(29)
        with pytest.raises(Unavailable):
            await keys.find(entry(ci), ci.kid)
        assert ci.requests == 1
        clock.advance(2)
        ci.behaviour = "ok"
        assert await keys.find(entry(ci), ci.kid)
        assert ci.requests == 2
    assert [bool(refresh.error) for refresh in seen] == [True, False]


async def test_25_three_hundred_tokens_at_a_cold_start_make_one_request(ci, clock, tmp_path):
    found = []

    async def ask(keys):
        found.append(await keys.find(entry(ci), ci.kid))

    async with keys_of(clock, tmp_path) as keys, anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(ask, keys)
    assert len(found) == 300
    assert ci.requests == 1


async def test_25_a_client_that_goes_away_does_not_end_the_fetch_of_the_others(ci, clock, tmp_path):
    async with keys_of(clock, tmp_path) as keys:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keys.find, entry(ci), ci.kid)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert await keys.find(entry(ci), ci.kid)
        assert ci.requests == 1


async def test_26_a_rotated_key_is_found_and_the_old_one_is_gone(ci, clock, tmp_path):
    async with keys_of(clock, tmp_path) as keys:
        old = ci.kid
        await keys.find(entry(ci), old)
        ci.rotate()
        with pytest.raises(InvalidToken):
            await keys.find(entry(ci), ci.kid)
        clock.advance(31)
        assert await keys.find(entry(ci), ci.kid)
        with pytest.raises(InvalidToken):
            await keys.find(entry(ci), old)
        assert ci.requests == 2


async def test_26_old_keys_are_refreshed_behind_the_request(ci, clock, tmp_path):
    async with keys_of(clock, tmp_path) as keys:
        await keys.find(entry(ci), ci.kid)
        clock.advance(299)
        await keys.find(entry(ci), ci.kid)
        assert ci.requests == 1
        clock.advance(2)
        first = ci.kid
        ci.rotate(keep=True)
        assert await keys.find(entry(ci), first)
        await until(lambda: ci.requests == 2)
        assert await keys.find(entry(ci), ci.kid)
        assert ci.requests == 2


async def test_26_the_last_good_keys_serve_through_an_outage_of_a_day(ci, clock, tmp_path):
    seen = []
    async with keys_of(clock, tmp_path, seen=seen) as keys:
        await keys.find(entry(ci), ci.kid)
        ci.behaviour = "error"
        started = clock.now
        while clock.now - started <= 86_000:
            clock.advance(600)
            assert await keys.find(entry(ci), ci.kid)
            await until(lambda: not any(s.flight for s in keys._sources.values()))
        assert keys.status()[0].error
        assert keys.status()[0].keys == 1
        with pytest.raises(Unavailable):
            await keys.find(entry(ci), "new-key")
        clock.advance(1000)
        with pytest.raises(Unavailable):
            await keys.find(entry(ci), ci.kid)


async def test_26_failures_back_off(ci, clock, tmp_path):
    async with keys_of(clock, tmp_path) as keys:
        await keys.find(entry(ci), ci.kid)
        ci.behaviour = "error"
        clock.advance(301)
        for _ in range(60):
            await keys.find(entry(ci), ci.kid)
            await until(lambda: not any(s.flight for s in keys._sources.values()))
            clock.advance(10)
        # 30, 60, 120, 240 s apart, instead of sixty times.
        assert 4 <= ci.requests <= 6


async def test_26_nothing_is_asked_at_the_start(ci, clock, tmp_path):
    async with keys_of(clock, tmp_path) as keys:
        assert keys.status() == ()
    assert ci.requests == 0


async def test_26_warming_asks_in_the_background_and_never_fails(ci, clock, tmp_path):
    ci.behaviour = "error"
    seen = []
    async with keys_of(clock, tmp_path, seen=seen) as keys:
        keys.warm((entry(ci), issuer_entry("https://cache.example", preset="self")))
        await until(lambda: seen)
    assert ci.requests == 1
    assert "500" in seen[0].error


async def test_26_a_clock_set_back_does_not_stop_the_refresh(ci, clock, tmp_path):
    async with keys_of(clock, tmp_path) as keys:
        await keys.find(entry(ci), ci.kid)
        clock.advance(-100_000)
        ci.rotate()
        assert await keys.find(entry(ci), ci.kid)
        assert ci.requests == 2


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
    ],
)
def test_27_a_name_that_leads_inside_is_refused(address):
    with pytest.raises(Misconfigured):
        check_address(ipaddress.ip_address(address), scheme="https", allow_private=False)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "224.0.0.1",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_27_metadata_and_link_local_are_refused_even_for_a_private_issuer(address):
    with pytest.raises(Misconfigured):
        check_address(ipaddress.ip_address(address), scheme="https", allow_private=True)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "fd12::1", "127.0.0.1", "::1"])
def test_27_a_private_issuer_may_be_private(address):
    check_address(ipaddress.ip_address(address), scheme="https", allow_private=True)


@pytest.mark.parametrize("address", ["140.82.112.3", "2606:50c0:8000::154", "10.0.0.1"])
def test_27_plain_http_is_for_loopback_alone(address):
    with pytest.raises(Misconfigured, match="http"):
        check_address(ipaddress.ip_address(address), scheme="http", allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://ci.example/jwks",
        "data:application/json,{}",
        "gopher://ci.example",
        "//ci.example/jwks",
        "ci.example/jwks",
        "https://",
        "https://user@ci.example/jwks",
        "https://user:secret@169.254.169.254/jwks",
        "https://ci.example/jwks#fragment",
        "https://ci.example:99999/jwks",
        "https://[::1/jwks",
        "",
    ],
)
def test_27_a_url_that_is_not_plain_https_is_refused(url):
    with pytest.raises(Misconfigured):
        check_url(url)


async def test_27_a_private_address_is_not_connected_to(ci):
    fetcher = KeyFetcher(deadline_seconds=PATIENT_SECONDS)
    with pytest.raises(Misconfigured, match="allow_private"):
        await fetcher.fetch(ci.jwks_url, allow_private=False)
    assert ci.requests == 0


async def test_27_a_redirect_is_not_followed(ci):
    ci.behaviour = "redirect"
    with pytest.raises(Unavailable, match="302"):
        await KeyFetcher(deadline_seconds=PATIENT_SECONDS).fetch(ci.jwks_url, allow_private=True)
    assert ci.requests == 1


async def test_27_proxies_of_the_environment_are_not_used(ci, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await KeyFetcher(deadline_seconds=PATIENT_SECONDS).fetch(ci.jwks_url, allow_private=True)


async def test_27_dns_rebinding_meets_the_address_that_was_checked(ci, monkeypatch):
    answers = iter(["127.0.0.1", "169.254.169.254"])
    asked = []

    async def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    url = f"http://rebind.example:{ci.port}/jwks"
    assert await KeyFetcher(deadline_seconds=PATIENT_SECONDS).fetch(url, allow_private=True)
    assert asked == ["rebind.example"]
    assert ci.hosts == [f"rebind.example:{ci.port}"]


async def test_27_one_bad_address_among_good_ones_refuses_the_host(ci, monkeypatch):
    async def resolve(_host, port, **_):
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.1", port)), (*kind, ("169.254.169.254", port))]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    with pytest.raises(Misconfigured):
        await KeyFetcher(deadline_seconds=PATIENT_SECONDS).fetch(
            f"http://ci.example:{ci.port}/", allow_private=True
        )
    assert ci.requests == 0


async def test_27_tls_proves_the_name_although_the_address_is_dialled():
    with Issuer(tls=True) as ci:
        fetcher = KeyFetcher(ci.trust(), deadline_seconds=PATIENT_SECONDS)
        assert json.loads(await fetcher.fetch(ci.jwks_url, allow_private=True))["keys"]
        assert ci.hosts == [f"localhost:{ci.port}"]
        with_address = ci.jwks_url.replace("localhost", "127.0.0.1")
        assert await fetcher.fetch(with_address, allow_private=True)
        # Trusted by nobody else: the system's anchors do not know it.
        with pytest.raises(Unavailable, match="ConnectError"):
            await KeyFetcher(deadline_seconds=PATIENT_SECONDS).fetch(
                ci.jwks_url, allow_private=True
            )


async def test_27_a_certificate_for_another_name_is_refused(monkeypatch):
    with Issuer(tls=True) as ci:

        async def resolve(_host, port, **_):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(anyio, "getaddrinfo", resolve)
        with pytest.raises(Unavailable, match="ConnectError"):
            await KeyFetcher(ci.trust(), deadline_seconds=PATIENT_SECONDS).fetch(
                f"https://other.example:{ci.port}/jwks", allow_private=True
            )
        assert ci.requests == 0


async def test_27_a_dead_address_leaves_the_next_one_its_turn(ci, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.2", 0))

        async def resolve(_host, port, **_):
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, ("127.0.0.3", port)), (*kind, ("127.0.0.1", port))]

        monkeypatch.setattr(anyio, "getaddrinfo", resolve)
        url = f"http://ci.example:{ci.port}/jwks"
        assert await KeyFetcher(deadline_seconds=PATIENT_SECONDS).fetch(url, allow_private=True)


@pytest.mark.parametrize("behaviour", ["giant", "drip", "silent", "compressed", "error"])
async def test_28_giant_dripping_and_silent_issuers_are_cut_off(ci, behaviour):
    ci.behaviour = behaviour
    with pytest.raises(Unavailable):
        await KeyFetcher(deadline_seconds=0.5).fetch(ci.jwks_url, allow_private=True)


async def test_28_nobody_listens(ci):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        with pytest.raises(Unavailable):
            await KeyFetcher(deadline_seconds=PATIENT_SECONDS).fetch(url, allow_private=True)


async def test_28_memory_for_issuers_is_bounded(ci, clock, tmp_path):
    async with keys_of(clock, tmp_path) as keys:
        for number in range(300):
            keys._source(entry(ci, jwks_url=f"{ci.jwks_url}?{number}"))
        assert len(keys._sources) == 256


async def test_23_an_entry_with_alg_none_does_not_harm_the_others(ci, clock, tmp_path):
    ci.behaviour = "alg-none-entry"
    seen = []
    async with keys_of(clock, tmp_path, seen=seen) as keys:
        assert await keys.find(entry(ci), ci.kid)
        with pytest.raises(InvalidToken):
            await keys.find(entry(ci), "none")
    assert len(seen[0].skipped) == 3


async def test_a_key_file_that_others_may_write_is_not_read(clock, tmp_path):
    """Who can write the keys of an issuer can sign as anybody, main too."""
    ci = Issuer(iss="https://ci.example", clock=clock)
    issuer = issuer_entry(ci.iss, jwks_file="ci.json")
    file = tmp_path / "ci.json"
    file.write_bytes(ci.document())
    file.chmod(0o666)
    seen = []
    async with keys_of(clock, tmp_path, seen=seen) as keys:
        with pytest.raises(Unavailable):
            await keys.find(issuer, ci.kid)
        assert "chmod go-w" in seen[-1].error
        file.chmod(0o644)
        clock.advance(3)
        assert await keys.find(issuer, ci.kid)


async def test_a_pipe_in_the_place_of_a_key_file_holds_nobody(clock, tmp_path):
    """Every token of the issuer waits for its keys: one that waits for ever is a hung build."""
    ci = Issuer(iss="https://ci.example", clock=clock)
    issuer = issuer_entry(ci.iss, jwks_file="ci.json")
    os.mkfifo(tmp_path / "ci.json")
    async with keys_of(clock, tmp_path, seen=[]) as keys:
        with anyio.fail_after(20), pytest.raises(Unavailable):
            await keys.find(issuer, ci.kid)


async def test_a_key_file_is_read_again_when_it_changes(clock, tmp_path):
    ci = Issuer(iss="https://ci.example", clock=clock)
    issuer = issuer_entry(ci.iss, jwks_file="keys/ci.json")
    file = tmp_path / "keys" / "ci.json"
    file.parent.mkdir()
    seen = []
    async with keys_of(clock, tmp_path, seen=seen) as keys:
        with pytest.raises(Unavailable):
            await keys.find(issuer, ci.kid)
        file.write_bytes(ci.document())
        clock.advance(3)
        assert await keys.find(issuer, ci.kid)
        old = ci.kid
        ci.rotate()
        file.write_bytes(ci.document())
        clock.advance(3)
        assert await keys.find(issuer, ci.kid)
        with pytest.raises(InvalidToken):
            await keys.find(issuer, old)
        # A bad file, or none, keeps the last good keys, for as long as it takes.
        for bad in (b"{", b'{"keys":[]}', b" " * 600_000):
            file.write_bytes(bad)
            clock.advance(100_000)
            assert await keys.find(issuer, ci.kid)
            assert seen[-1].error
        file.unlink()
        clock.advance(100_000)
        assert await keys.find(issuer, ci.kid)
        assert "ci.json" in seen[-1].error


async def test_a_token_without_kid_needs_a_set_of_one_key(ci, clock, tmp_path):
    async with keys_of(clock, tmp_path) as keys:
        assert await keys.find(entry(ci), None)
        ci.published.append(public_jwk(private_key("RS256", 60), "second"))
        clock.advance(301)
        await keys.find(entry(ci), None)
        await until(lambda: keys.status()[0].keys == 2)
        with pytest.raises(InvalidToken):
            await keys.find(entry(ci), None)


async def test_keys_are_not_read_outside_of_the_context(ci, clock, tmp_path):
    with pytest.raises(Unavailable):
        await keys_of(clock, tmp_path).find(entry(ci), ci.kid)
    assert ci.requests == 0
