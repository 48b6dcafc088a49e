"""sigstore-js verifies our envelopes, and refuses forged ones."""

import json
import subprocess
from pathlib import Path

import pytest
from fakes.statements import ENTRY, done, ed25519_signer, es256_signer
from world.npm import install, node

from secure_cache.provenance.bundle import sigstore_bundle
from secure_cache.provenance.dsse import encode_base64
from secure_cache.provenance.event import Event, LogOpened
from secure_cache.provenance.event_statement import sign_event
from secure_cache.provenance.statement import build_statement, sign_entry

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent / "node"
SIGNERS = {"ed25519": ed25519_signer(), "es256": es256_signer()}


@pytest.fixture(scope="module")
def verify():
    install(HERE)

    def run(bundle, signer):
        asked = {"bundle": bundle, "key": signer.public_pem, "keyid": signer.keyid}
        answered = subprocess.run(
            [node(), "verify-dsse.mjs"],
            cwd=HERE,
            input=json.dumps(asked),
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return json.loads(answered.stdout)

    return run


@pytest.mark.parametrize("name", SIGNERS)
def test_sigstore_js_verifies_an_entry(verify, name):
    signer = SIGNERS[name]
    bundle = sigstore_bundle(done(sign_entry(ENTRY, signer)))
    assert verify(bundle, signer) == {"ok": True}


def test_sigstore_js_verifies_an_event(verify):
    event = Event(LogOpened("example.com/log", "vkey"), ENTRY.stored_at, "secure-cache/0.1.0")
    bundle = sigstore_bundle(done(sign_event(event, SIGNERS["ed25519"])))
    assert verify(bundle, SIGNERS["ed25519"]) == {"ok": True}


@pytest.mark.parametrize("name", SIGNERS)
def test_sigstore_js_refuses_a_changed_payload(verify, name):
    signer = SIGNERS[name]
    bundle = sigstore_bundle(done(sign_entry(ENTRY, signer)))
    forged = build_statement(ENTRY).replace(b'"tier":"trusted"', b'"tier":"TRUSTED"')
    bundle["dsseEnvelope"]["payload"] = encode_base64(forged)
    answer = verify(bundle, signer)
    assert (answer["ok"], answer["code"]) == (False, "SIGNATURE_ERROR")


def test_sigstore_js_refuses_another_key_under_our_hint(verify):
    bundle = sigstore_bundle(done(sign_entry(ENTRY, ed25519_signer(9))))
    bundle["verificationMaterial"]["publicKey"]["hint"] = SIGNERS["ed25519"].keyid
    answer = verify(bundle, SIGNERS["ed25519"])
    assert (answer["ok"], answer["code"]) == (False, "SIGNATURE_ERROR")


def test_the_lock_names_packages_and_hashes_but_no_addresses():
    lock = json.loads((HERE / "package-lock.json").read_text())
    packages = {name: it for name, it in lock["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
