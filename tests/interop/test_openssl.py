"""The recipe of docs/provenance.md: openssl alone verifies an envelope."""

import base64
import json
import re
import subprocess
from pathlib import Path

import golden_provenance
import pytest
from tools import require_tool

from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES

pytestmark = pytest.mark.interop

# How openssl wants to be told that a key signs a message and not a digest.
EXTRA = {"ed25519": ["-rawin"], "es256": ["-rawin", "-digest", "sha256"]}


def verify(folder, algorithm, envelope, payload=None):
    openssl = require_tool("openssl", "apt-get install openssl")
    document = json.loads(envelope)
    payload = payload or base64.b64decode(document["payload"])
    (folder / "pae").write_bytes(
        b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    )
    (folder / "sig").write_bytes(base64.b64decode(document["signatures"][0]["sig"]))
    pem = golden_provenance.FOLDER / f"{algorithm}.pem"
    return subprocess.run(
        [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", pem, "-in", "pae", "-sigfile", "sig"]
        + EXTRA[algorithm],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("algorithm", EXTRA)
def test_openssl_verifies_an_entry(tmp_path, algorithm):
    name = f"entry.{algorithm}.dsse.json"
    envelope = (golden_provenance.FOLDER / name).read_bytes()
    done = verify(tmp_path, algorithm, envelope)
    assert done.returncode == 0, done.stderr
    assert "Verified Successfully" in done.stdout


@pytest.mark.parametrize("algorithm", EXTRA)
def test_openssl_refuses_a_changed_payload(tmp_path, algorithm):
    name = f"entry.{algorithm}.dsse.json"
    envelope = (golden_provenance.FOLDER / name).read_bytes()
    payload = base64.b64decode(json.loads(envelope)["payload"]).replace(b"trusted", b"TRUSTED")
    assert verify(tmp_path, algorithm, envelope, payload).returncode != 0


@pytest.mark.parametrize("algorithm", EXTRA)
def test_a_key_id_is_what_openssl_computes(algorithm):
    openssl = require_tool("openssl", "apt-get install openssl")
    pem = golden_provenance.FOLDER / f"{algorithm}.pem"
    der = subprocess.run(
        [openssl, "pkey", "-pubin", "-in", pem, "-outform", "DER"], check=True, capture_output=True
    ).stdout
    digest = subprocess.run(
        [openssl, "dgst", "-sha256", "-r"], input=der, check=True, capture_output=True
    ).stdout
    name = f"entry.{algorithm}.dsse.json"
    envelope = json.loads((golden_provenance.FOLDER / name).read_bytes())
    assert digest.split()[0].decode() == envelope["signatures"][0]["keyid"]


def recipes():
    text = (Path(__file__).parents[2] / "docs" / "provenance.md").read_text()
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def follow(recipe, folder):
    require_tool("openssl", "apt-get install openssl")
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", recipe],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def entry(tmp_path):
    golden = golden_provenance.FOLDER
    (tmp_path / "entry.json").write_bytes((golden / "entry.ed25519.dsse.json").read_bytes())
    (tmp_path / "entry.pem").write_bytes((golden / "ed25519.pem").read_bytes())
    (tmp_path / "artifact").write_bytes(b"artifact")
    return tmp_path


def test_the_written_recipe_verifies_an_entry(entry):
    done = follow(recipes()[0], entry)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["artifact", "entry.json", "entry.pem"])
def test_the_written_recipe_refuses_what_was_changed(entry, what):
    changed = {
        "artifact": b"poison",
        "entry.json": (golden_provenance.FOLDER / "entry.es256.dsse.json").read_bytes(),
        "entry.pem": (golden_provenance.FOLDER / "es256.pem").read_bytes(),
    }
    (entry / what).write_bytes(changed[what])
    assert follow(recipes()[0], entry).returncode != 0


def test_the_written_recipe_computes_the_digest_of_a_chunk_list(tmp_path):
    artifact = bytes(CHUNK_BYTES) + b"tail"
    (tmp_path / "artifact").write_bytes(artifact)
    chunks = b"".join(Digest.of(part).raw for part in (artifact[:CHUNK_BYTES], b"tail"))
    assert follow(recipes()[1], tmp_path).stdout.split()[0] == str(Digest.of(chunks))


def test_the_written_recipe_takes_the_entries_out_of_a_bundle(tmp_path):
    entries = [b"first", b"x" * 300, b"last"]
    bundle = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
    (tmp_path / "bundle").write_bytes(bundle)
    fetch, unpack = recipes()[3].split("\n", 1)
    assert fetch.startswith("curl ")
    done = follow(unpack, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"entry-{n}.json").read_bytes() for n in range(3)] == entries
