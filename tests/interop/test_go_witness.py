"""Go's own transparency log code on the other side: against our witness, and as our witness."""

import contextlib
import hashlib
import subprocess

import anyio
import pytest
from fakes.logs import ORIGIN, SIGNER, grow, grown_log, open_log, until
from interop.go_tool import go_tool, run_tool
from world.witness import WitnessProcess

from secure_cache.core.contradictions import Contradictions
from secure_cache.core.key_manifest import format_log_key
from secure_cache.core.witness_http import HttpWitnesses
from secure_cache.core.witnesses import Profile, Witnesses, WitnessOptions
from secure_cache.model.clock import system_clock
from secure_cache.model.errors import LogInconsistent, NoQuorum
from secure_cache.storage.filesystem import FilesystemStore
from secure_cache.storage.memory import MemoryStore
from secure_cache.tlog.note import Ed25519NoteSigner
from secure_cache.tlog.witness_policy import WitnessPolicy

pytestmark = pytest.mark.interop

STRANGER_SEED = hashlib.sha256(b"stranger").digest()


@pytest.fixture
def our_witness(tmp_path):
    witness = WitnessProcess(tmp_path / "w", "witness.example.com/w1", (str(SIGNER.verifier),))
    yield witness.start()
    witness.kill9()


def check_witness(witness, *, seed=None):
    log = format_log_key(ORIGIN, SIGNER._key.private_bytes_raw() if seed is None else seed)
    return run_tool(
        go_tool("witnesscheck"),
        *("-witness", witness.vkeys[0]),
        *("-log", log.decode().strip()),
        *("-logvkey", SIGNER.verifier),
        *("-stranger", format_log_key("stranger.example.com", STRANGER_SEED).decode().strip()),
        witness.url,
    )


def test_go_finds_our_witness_honest_strict_and_by_the_book(our_witness):
    done = check_witness(our_witness)
    assert done.returncode == 0, done.stderr
    assert "ok: 20 answers of witness.example.com/w1" in done.stdout
    # Forks of one size are kept, as proof against the log.
    assert len(list(our_witness.folder.glob("state/*/evidence-fork-*"))) == 1
    assert "witness.contradicted" in our_witness.logs()
    assert "witness.broken" not in our_witness.logs()


def test_go_is_told_again_after_the_witness_was_killed(our_witness):
    assert check_witness(our_witness).returncode == 0
    before = our_witness.cosigned()
    our_witness.kill9()
    our_witness.start()
    done = check_witness(our_witness)
    assert done.returncode == 1
    assert "first contact: 409" in done.stderr
    assert our_witness.cosigned() == before


@contextlib.contextmanager
def go_witness(name):
    """A witness by Go: its vkey and its URL."""
    seed = hashlib.sha256(name.encode()).hexdigest()
    with subprocess.Popen(
        [go_tool("tlogwitness"), "-log", str(SIGNER.verifier), "-name", name, "-seed", seed],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip(), process.stdout.readline().strip(), process
        finally:
            process.kill()


def witnessed_log(store, state, policy, network, profile):
    reader = open_log(store)
    witnesses = Witnesses(
        policy=policy,
        ask=network,
        head=store,
        log=reader,
        verifier=SIGNER.verifier,
        contradictions=Contradictions(
            state=state, head=store, log=reader, verifier=SIGNER.verifier, origin=ORIGIN
        ),
        options=WitnessOptions(profile=profile, timeout_seconds=5.0),
        clock=system_clock,
    )
    return open_log(store, witnesses=witnesses), witnesses


def test_our_server_collects_the_cosignatures_of_go_and_go_verifies_the_proofs(tmp_path):
    with go_witness("go.example.com/a") as one, go_witness("go.example.com/b") as two:
        anyio.run(collect, tmp_path, one, two)
        check = go_tool("tlogcheck")
        witnesses = [word for vkey, *_ in (one, two) for word in ("-cosigner", vkey)]
        for arguments in (
            (tmp_path / "log",),
            ("-proof", tmp_path / "proof", "-leaf", tmp_path / "leaf"),
        ):
            done = run_tool(check, "-vkey", SIGNER.verifier, *witnesses, *arguments)
            assert done.returncode == 0, done.stderr
            assert "2 witnesses" in done.stdout
        other = "go.example.com/a+" + one[0].split("+", 1)[1][:8]
        assert run_tool(check, "-vkey", SIGNER.verifier, "-cosigner", other).returncode != 0
        without = tmp_path / "without"
        text = (tmp_path / "proof").read_text()
        without.write_text("".join(text.splitlines(keepends=True)[:-1]))
        arguments = ("-proof", without, "-leaf", tmp_path / "leaf")
        done = run_tool(check, "-vkey", SIGNER.verifier, *witnesses, *arguments)
        assert done.returncode == 1
        assert "not signed by go.example.com/" in done.stderr


async def collect(root, one, two):
    (root / "log").mkdir()
    store, state = FilesystemStore(root / "log"), MemoryStore()
    await store.check()
    policy = WitnessPolicy.parse(
        f"log {SIGNER.verifier}\n"
        f"witness a {one[0]} {one[1]}\nwitness b {two[0]} {two[1]}\n"
        "group both all a b\nquorum both\n".encode()
    )
    await grown_log(store, (3,))
    async with HttpWitnesses(timeout_seconds=5.0) as network:
        log, witnesses = witnessed_log(store, state, policy, network, Profile.FAIL_CLOSED)
        await grow(log, (5, 255, 300))
        assert not await witnesses.refresh()
        proof = await log.proof(7)
        policy.verify(proof.checkpoint)
        (root / "proof").write_bytes(bytes(proof))
        (root / "leaf").write_bytes(await log.entry(7))
        # Both are asked again by a server that knows nothing of what they have seen.
        log, _ = witnessed_log(store, state, policy, network, Profile.FAIL_CLOSED)
        await grow(log, (301,))
        two[2].kill()
        two[2].wait()
        log, _ = witnessed_log(store, state, policy, network, Profile.FAIL_CLOSED)
        async with log.running():
            await log.append(b"held back")
            with pytest.raises(NoQuorum):
                await log.flush(10)
        assert (await log.published()).size == 301
        policy.verify(await log.checkpoint_note())
        (root / "proof").write_bytes(bytes(await log.proof(7)))
    await store.close()


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("what", ["rollback", "fork"])
def test_the_witness_of_go_proves_our_rollback_and_our_fork(what, profile):
    with go_witness("go.example.com/a") as one:
        anyio.run(contradict, one, what, profile)


async def contradict(one, what, profile):
    policy = WitnessPolicy.parse(f"witness a {one[0]} {one[1]}\nquorum a\n".encode())
    async with HttpWitnesses(timeout_seconds=5.0) as network:
        store = MemoryStore()
        await grown_log(store, (3,))
        log, witnesses = witnessed_log(store, MemoryStore(), policy, network, profile)
        await grow(log, (300,))
        await witnesses.refresh()
        other, state = MemoryStore(), MemoryStore()
        word = b"forged %d" if what == "fork" else b"record %d"
        await grown_log(other, (3, 5) if what == "rollback" else (3, 300), entry=lambda i: word % i)
        log, witnesses = witnessed_log(other, state, policy, network, profile)
        with pytest.raises(LogInconsistent):
            await witnesses.refresh()
        async with log.running():
            await until(lambda: log.fault is not None)
            with pytest.raises(LogInconsistent):
                await log.append(b"refused")
        assert len([info async for info in state.list("seen/contradiction/")]) == 1


def test_a_stranger_with_another_key_for_our_origin_is_refused_by_both(our_witness):
    forger = Ed25519NoteSigner(ORIGIN, STRANGER_SEED)
    assert forger.name == SIGNER.name
    done = check_witness(our_witness, seed=STRANGER_SEED)
    assert done.returncode == 1
    assert "403" in done.stderr
    assert our_witness.cosigned() == []
