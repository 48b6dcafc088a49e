"""The console's scripts without a browser, in Node: what our own Python makes verifies there, and
what was bent does not, for the reason that it should."""

import base64
import hashlib
import json
import subprocess

import golden_provenance
import pytest
from fakes.statements import done
from tools import require_tool
from world import npm

from secure_cache.http.console.render import STATIC, Renderer, plainly
from secure_cache.provenance.dsse import Envelope
from secure_cache.tlog.checkpoint import Checkpoint, sign_checkpoint
from secure_cache.tlog.cosignature import Ed25519Cosigner, MldsaCosigner
from secure_cache.tlog.merkle import leaf_hash, tree_hash
from secure_cache.tlog.note import Ed25519NoteSigner, Note
from secure_cache.tlog.tlog_proof import TlogProof

ORIGIN = "cache.example.com/manifest/2026"
LOG = Ed25519NoteSigner(ORIGIN, hashlib.sha256(b"log").digest())
OTHER_LOG = Ed25519NoteSigner(ORIGIN, hashlib.sha256(b"other").digest())
W1, W2 = (Ed25519Cosigner(f"w{n}.example.com", bytes([n]) * 32) for n in (1, 2))
MLDSA = MldsaCosigner("pq.example.com", bytes(32))
NOW = 1_800_000_000
VECTORS = {
    path.name: path.read_bytes() for path in sorted(golden_provenance.FOLDER.glob("*.dsse.json"))
}
LEAVES = list(VECTORS.values())
RING = golden_provenance.RING.encode().decode()

RUN = """
import { readFileSync } from "node:fs";
import { fromBase64 } from "./bytes.js";
import { rawEcdsa } from "./envelope.js";
import { changes, follow } from "./memory.js";
import { checkConsistency, checkInclusion } from "./merkle.js";
import { says } from "./shown.js";
import { verifyEntry } from "./verify.js";

const calls = {
  verify: async ([evidence, pinned]) => {
    const steps = [];
    const found = await verifyEntry(evidence, pinned, (...step) => steps.push(step));
    return { steps, statement: found?.statement ?? null };
  },
  consistency: async ([old, oldRoot, size, root, path]) => {
    const roots = [oldRoot, root].map(fromBase64);
    await checkConsistency(BigInt(old), roots[0], BigInt(size), roots[1], path.map(fromBase64));
  },
  inclusion: async ([index, size, ...rest]) => {
    const [hash, path, root] = [fromBase64(rest[0]), rest[1].map(fromBase64), fromBase64(rest[2])];
    await checkInclusion(BigInt(index), BigInt(size), hash, path, root);
  },
  says: async ([shown, value]) => says(shown, value),
  changes: async ([seen, now]) => changes(seen, now),
  ecdsa: async ([der]) => Array.from(rawEcdsa(fromBase64(der))).length,
  base64: async ([text]) => Array.from(fromBase64(text)),
};
const told = [];
for (const [name, ...values] of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    told.push({ value: (await calls[name](values)) ?? null });
  } catch (error) {
    told.push({ error: error.message, kind: error.constructor.name });
  }
}
process.stdout.write(JSON.stringify(told));
"""


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    require_tool("node", "install Node.js 20 or newer")
    folder = tmp_path_factory.mktemp("scripts")
    pages = Renderer("/audit")
    for name in STATIC:
        if name.endswith(".js"):
            (folder / name).write_bytes(pages.static(name).content)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(RUN)

    def run(*calls):
        done = subprocess.run(
            [npm.node(), str(folder / "run.js")],
            input=json.dumps(calls),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def b64(data):
    return base64.b64encode(data).decode()


def inclusion(index, hashes):
    """RFC 9162, 2.1.3.1."""
    if len(hashes) == 1:
        return []
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if index < split:
        return [*inclusion(index, hashes[:split]), tree_hash(hashes[split:])]
    return [*inclusion(index - split, hashes[split:]), tree_hash(hashes[:split])]


def consistency(old, hashes, whole=True):
    """RFC 9162, 2.1.4.1."""
    if old == len(hashes):
        return [] if whole else [tree_hash(hashes)]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if old <= split:
        return [*consistency(old, hashes[:split], whole), tree_hash(hashes[split:])]
    return [*consistency(old - split, hashes[split:], False), tree_hash(hashes[:split])]


def evidence(index, *, leaves=None, log=LOG, witnesses=(), **changed):
    """As the server gives it."""
    leaves = LEAVES if leaves is None else leaves
    hashes = [leaf_hash(leaf) for leaf in leaves]
    checkpoint = Checkpoint(ORIGIN, len(leaves), tree_hash(hashes))
    note = Note.parse(done(sign_checkpoint(checkpoint, log)))
    signatures = (*note.unverified_signatures, *(w.cosign(checkpoint, NOW) for w in witnesses))
    proof = TlogProof(
        index, tuple(inclusion(index, hashes)), bytes(Note(note.unverified_text, signatures))
    )
    found = {
        "index": str(index),
        "leaf": b64(leaves[index]),
        "proof": bytes(proof).decode(),
        "vkeys": [str(log.verifier)],
        "keys": RING,
        "witnesses": [],
    }
    return found | changed


def test_every_kind_of_statement_that_we_sign_verifies(ask):
    told = ask(*(["verify", evidence(index), None] for index in range(len(LEAVES))))
    assert len(told) == len(VECTORS) >= 10
    for (name, leaf), found in zip(VECTORS.items(), told, strict=True):
        value = found["value"]
        assert [kind for kind, _ in value["steps"]].count("ok") == 3, (name, value["steps"])
        payload = Envelope.decode(leaf).unverified_payload
        assert value["statement"] == json.loads(payload), name


def test_each_witness_is_told_for_what_its_signature_is_worth(ask):
    keys = [str(w.verifier) for w in (W1, W2, MLDSA)]
    signed = evidence(3, witnesses=(W1, MLDSA))
    wrong = evidence(3, witnesses=(W2,))
    other = evidence(3, leaves=LEAVES[:5], witnesses=(W2,))
    # W2's signature of another checkpoint, in this one.
    line = next(text for text in other["proof"].splitlines() if text.startswith("\u2014 w2"))
    good = next(text for text in wrong["proof"].splitlines() if text.startswith("\u2014 w2"))
    wrong["proof"] = wrong["proof"].replace(good, line)
    calls = [signed | {"witnesses": keys}, signed, wrong | {"witnesses": keys}, evidence(3)]
    some, unknown, bad, none = (
        found["value"]["steps"] for found in ask(*(["verify", call, None] for call in calls))
    )
    assert some[3][0] == "ok"
    assert "w1.example.com" in some[3][1]
    assert "2027-01-15T08:00:00.000Z" in some[3][1]
    assert some[4][0] == "unchecked"
    assert "cannot check signatures like the witness pq.example.com" in some[4][1]
    assert [kind for kind, _ in unknown[3:]] == ["unchecked", "unchecked", "unchecked"]
    assert "whose key this server does not give" in unknown[3][1]
    assert bad[3][0] == "failed"
    assert "w2.example.com does not verify" in bad[3][1]
    assert none[3] == ["unchecked", "No witness whose key is known here has cosigned it."]


def ring_with(**changed):
    ring = json.loads(RING)
    for key in ring["keys"]:
        key.update(changed)
    return json.dumps(ring, sort_keys=True, separators=(",", ":"))


def without(ring, keyid):
    found = json.loads(ring)
    found["keys"] = [key for key in found["keys"] if key["keyid"] != keyid]
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def bent(leaf, old, new):
    assert old in leaf, old
    return leaf.replace(old, new)


def test_what_was_bent_does_not_verify_and_says_why(ask):
    index = list(VECTORS).index("entry.ed25519.dsse.json")
    leaf, good = LEAVES[index], evidence(index)
    keyid = Envelope.decode(leaf).unverified_keyid

    def holding(new):
        leaves = [*LEAVES[:index], new, *LEAVES[index + 1 :]]
        return evidence(index, leaves=leaves)

    twice = json.dumps(json.loads(leaf) | {"signatures": json.loads(leaf)["signatures"] * 2})
    bends = {
        "another entry": (good | {"index": "0"}, "proof is for another entry"),
        "another leaf": (good | {"leaf": b64(LEAVES[0])}, "does not lead to the root"),
        "another log's key": (evidence(index, log=OTHER_LOG), "another log key than before"),
        "no key": (good | {"vkeys": []}, "another log key than before"),
        "a blank in it": (holding(bent(leaf, b'":"', b'": "')), "one spelling"),
        "two signatures": (holding(twice.replace(" ", "").encode()), "exactly one signature"),
        "junk": (holding(b"junk"), "not JSON"),
        "a list": (holding(b"[]"), "no signed statement"),
        "a revoked key": (good | {"keys": ring_with(status="revoked")}, "revoked"),
        "an unknown status": (good | {"keys": ring_with(status="paused")}, "no known status"),
        "too early": (good | {"keys": ring_with(notBefore="2090-01-01T00:00:00Z")}, "before"),
        "too late": (good | {"keys": ring_with(notAfter="2001-01-01T00:00:00Z")}, "after"),
        "no time": (good | {"keys": ring_with(notBefore="yesterday")}, "time in it is none"),
        "no such key": (good | {"keys": without(RING, keyid)}, "has no key"),
        "a ring with a blank": (good | {"keys": f" {RING}"}, "one spelling"),
        "no ring": (good | {"keys": "[]"}, "no key ring"),
        "not base64": (good | {"leaf": "*"}, "not base64"),
        "no proof": (good | {"proof": ""}, "no tlog-proof"),
        "nothing": ({"index": "0"}, "cannot be read"),
    }
    pinned = str(LOG.verifier)
    told = ask(*(["verify", call, pinned] for call, _ in bends.values()))
    for (name, (_, says)), found in zip(bends.items(), told, strict=True):
        value = found["value"]
        assert value["statement"] is None, name
        assert value["steps"][-1][0] == "failed", name
        assert says in value["steps"][-1][1], (name, value["steps"][-1])


def test_a_signature_of_es256_has_one_spelling(ask):
    index = list(VECTORS).index("entry.es256.dsse.json")
    document = json.loads(LEAVES[index])
    der = base64.b64decode(document["signatures"][0]["sig"])
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    at = 4 + der[3]
    s = int.from_bytes(der[at + 2 :], "big")
    high = (order - s).to_bytes(33, "big")
    high = high if high[1] & 0x80 else high[1:]
    malleated = der[: at + 1] + bytes([len(high)]) + high
    malleated = bytes([0x30, len(malleated) - 2]) + malleated[2:]
    long_form = der[:1] + b"\x81" + der[1:]
    padded = der[:1] + bytes([der[1] + 1]) + der[2:3] + bytes([der[3] + 1]) + b"\0" + der[4:]
    calls = (der, malleated, long_form, padded, der + b"\0", der[:-1], b"", b"0")
    first, *others = ask(*(["ecdsa", b64(call)] for call in calls))
    assert first == {"value": 64}
    for call, found in zip(calls[1:], others, strict=True):
        assert found["kind"] == "Unproved", (call, found)


def test_proofs_agree_with_ours_for_every_size(ask):
    hashes = [leaf_hash(bytes([number])) for number in range(19)]
    roots = [None, *(tree_hash(hashes[:size]) for size in range(1, 20))]
    good, bad = [], []
    for size in range(1, 20):
        for index in range(size):
            path = [b64(item) for item in inclusion(index, hashes[:size])]
            call = ["inclusion", index, size, b64(hashes[index]), path, b64(roots[size])]
            good.append(call)
            bad.append([*call[:4], [*path, b64(bytes(32))], call[5]])
            bad.append([*call[:1], (index + 1) % (size + 1), *call[2:]])
        for old in range(1, size + 1):
            path = [b64(item) for item in consistency(old, hashes[:size])]
            call = ["consistency", old, b64(roots[old]), size, b64(roots[size]), path]
            good.append(call)
            bad.append([*call[:5], [*path, b64(bytes(32))]])
            bad.append([*call[:2], b64(bytes(32)), *call[3:]])
            if path:
                bad.append([*call[:5], path[:-1]])
    assert [found for found in ask(*good) if found != {"value": None}] == []
    passed = [call for call, found in zip(bad, ask(*bad), strict=True) if "error" not in found]
    assert passed == []


TEXTS = (
    "plain",
    "\u202egnp.exe\u2066",
    "\x1b[31m\u200b",
    "ᚠ日本語😀",
    "\U000e0101\u3164 x",
    "a\\u202e",
)


def test_what_the_page_writes_out_is_what_was_signed_and_nothing_else(ask):
    same = [["says", plainly(text, 4000), text] for text in TEXTS]
    other = [
        ["says", "plain ", "plain"],
        ["says", "plai", "plain"],
        ["says", "", "plain"],
        ["says", "plain", ""],
        ["says", "\\u202f", "\u202e"],
        ["says", "contributor", "trusted"],
        ["says", "plain…", "plain and long"],
    ]
    assert [found["value"] for found in ask(*same, *other)] == [True] * len(same) + [False] * 7


def test_keys_that_changed_are_named(ask):
    seen = {"witnesses": ["a", "b"], "keys": ["k1 active x", "k2 active x"]}
    now = {"witnesses": ["b", "c"], "keys": ["k2 retired x y", "k3 active x"]}
    (same,), told = (
        [found["value"] for found in ask(["changes", seen, seen])],
        ask(["changes", seen, now])[0]["value"],
    )
    assert same == []
    assert told == [
        "The server names a witness key that it did not name before: c.",
        "The server no longer names the witness key a.",
        "The ring says something else of the entry key k2: retired x y.",
        "The ring has an entry key that it did not have: k3.",
        "The ring has no longer the entry key k1.",
    ]
