"""The same envelope as a Sigstore bundle, for tools that read nothing else.

Specification: Sigstore bundle v0.3 (protobuf-specs `sigstore_bundle.proto`), with a public key
hint and neither certificate nor Rekor entry: whoever verifies it brings the key.
"""

from typing import Any

from secure_cache.provenance.dsse import Envelope

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def sigstore_bundle(envelope: bytes) -> dict[str, Any]:
    """A bundle around an envelope, as a JSON object. The hint is the key id.

    Raises:
        CorruptObject: not an envelope.
    """
    parsed = Envelope.decode(envelope)
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": parsed.unverified_keyid},
            "tlogEntries": [],
        },
        "dsseEnvelope": parsed.document(),
    }
