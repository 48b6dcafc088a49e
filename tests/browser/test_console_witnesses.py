"""What the browser itself says of cosignatures: a real witness has cosigned the log of a real
server, and then somebody between the two and the browser changes that."""

import pytest
from world.browser import run_page
from world.console import SIGN_IN
from world.server import Server, wait_until
from world.witness import WitnessProcess, ask_witnesses, vkey_of

from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.cosignature import Ed25519Cosigner, cosignature_time
from secure_cache.tlog.note import Note, Signature
from secure_cache.tlog.tlog_proof import TlogProof

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME = "witness.example.com/w1"
ENTRY = 3


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory):
    """A server that publishes nothing without its witness, and its entry's evidence."""
    folder = tmp_path_factory.mktemp("witnessed")
    server = Server(folder / "server", environment={"SECURE_CACHE_AUDIT__FOLLOW_SECONDS": "0.2"})
    witness = WitnessProcess(folder / "w1", NAME, (vkey_of(server),))
    try:
        witness.start()
        ask_witnesses(server, [witness], profile="fail-closed", quorum="all")
        server.start()
        assert server.put(server.token(), "1000", b"data").status_code == 200
        auditor = server.token(role="auditor")
        with server.client(auditor) as client:
            wait_until(
                lambda: client.get(f"/audit/v1/entries/{ENTRY}").status_code == 200, "the index"
            )
        yield server, auditor, witness.vkeys[0]
    finally:
        server.kill9()
        witness.kill9()


LOOK = """
  const looked = async (change) => {
    await page.route("**/evidence", async (route) => {
      const answer = await route.fetch();
      const evidence = { ...(await answer.json()), ...change };
      await route.fulfill({ response: answer, json: evidence });
    });
    await page.goto(`${input.url}/audit/entries/${input.entry}`);
    await page.waitForSelector("#verification[data-result]");
    await page.unroute("**/evidence");
    return [
      await page.getAttribute("#verification", "data-result"),
      await page.textContent("#verify-summary"),
      await page.locator("#verify-steps li").evaluateAll(
        (items) => items.map((item) => [item.className, item.textContent]),
      ),
    ];
  };
"""


def test_the_page_says_that_the_witness_has_cosigned(witnessed):
    server, auditor, vkey = witnessed
    visit = run_page(
        SIGN_IN
        + """
  await page.goto(`${input.url}/audit/entries/${input.entry}`);
  await page.waitForSelector("#verification[data-result]");
  return [
    await page.getAttribute("#verification", "data-result"),
    await page.textContent("#verify-summary"),
    await page.textContent("#verify-steps"),
    await page.textContent("#memory-facts"),
  ];
""",
        url=server.url,
        token=auditor,
        entry=ENTRY,
    )
    result, summary, steps, remembered = visit.value
    assert result == "ok", steps
    assert summary.startswith("Verified")
    assert f"The witness {NAME} has cosigned the checkpoint, at 20" in steps
    assert "No witness" not in steps
    assert vkey in remembered
    assert visit.complaints == []


def replaced(proof, values):
    """Evidence whose checkpoint has, in the place of the witness's signature, others with these
    bytes."""
    note = Note.parse(proof.checkpoint)
    (theirs,) = [line for line in note.unverified_signatures if line.name == NAME]
    kept = [line for line in note.unverified_signatures if line is not theirs]
    lines = [Signature(NAME, theirs.key_id, value) for value in values(theirs.value)]
    changed = Note(note.unverified_text, (*kept, *lines))
    return {"proof": bytes(TlogProof(proof.index, proof.hashes, bytes(changed))).decode()}


def test_a_cosignature_that_was_forged_or_damaged_is_red(witnessed):
    server, auditor, vkey = witnessed
    with server.client() as client:
        client.headers["Cookie"] = f"secure_cache_auditor={auditor}"
        evidence = client.get(f"/audit/entries/{ENTRY}/evidence").raise_for_status().json()
    assert evidence["witnesses"] == [vkey]
    proof = TlogProof.parse(evidence["proof"].encode())
    checkpoint = Checkpoint.parse(Note.parse(proof.checkpoint).unverified_text)
    impostor = Ed25519Cosigner(NAME, bytes(32))

    def forged(value):
        """By another key, under the id of the witness's."""
        return [impostor.cosign(checkpoint, cosignature_time(value)).value]

    def dated_back(value):
        return [(cosignature_time(value) - 3600).to_bytes(8, "big") + value[8:]]

    wrong = {
        "damaged": replaced(
            proof, lambda value: [value[:-9] + bytes([value[-9] ^ 1]) + value[-8:]]
        ),
        "forged": replaced(proof, forged),
        "dated back": replaced(proof, dated_back),
        "cut short": replaced(proof, lambda value: [value[:-1]]),
        "twice": replaced(proof, lambda value: [value, value]),
    }
    missing = {
        "taken away": replaced(proof, lambda _: []),
        "of another key": {"witnesses": [str(impostor.verifier)]},
    }
    visit = run_page(
        SIGN_IN
        + LOOK
        + """
  const found = {};
  for (const [name, change] of Object.entries(input.changes)) found[name] = await looked(change);
  return found;
""",
        url=server.url,
        token=auditor,
        entry=ENTRY,
        changes={"nothing": {}} | wrong | missing,
    )
    found = visit.value
    assert found.pop("nothing")[0] == "ok"
    for name in wrong:
        result, summary, steps = found.pop(name)
        assert result == "failed", name
        assert summary.startswith("NOT verified"), name
        assert ["failed", f"The cosignature of the witness {NAME} does not verify."] in steps, name
    # Who shows fewer cosignatures than there were proves nothing, and claims nothing.
    for name, (_, _, steps) in found.items():
        said = dict(map(reversed, steps))
        assert said["No witness whose key is known here has cosigned it."] == "unchecked", name
        assert "has cosigned the checkpoint" not in str(steps), name
    assert found.keys() == missing.keys()
