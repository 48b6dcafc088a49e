"""Entries, keys and rings to sign and verify with."""

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from secure_cache.model.digest import Digest
from secure_cache.model.entry import CHUNK_BYTES, Entry
from secure_cache.model.identity import Identity
from secure_cache.model.names import Namespace, parse_key
from secure_cache.model.tiers import Tier
from secure_cache.provenance.event import (
    EntryQuarantined,
    EntryRemoved,
    Event,
    KeysChanged,
    LogOpened,
    PolicyTookEffect,
)
from secure_cache.provenance.keys import KeyRing, KeyStatus, PublicKey
from secure_cache.provenance.signers import Ed25519Signer, Es256Signer
from secure_cache.provenance.statement import sign_payload

STORED_AT = 1_767_323_045  # 2026-01-02T03:04:05Z

WRITER = Identity(
    issuer="gha",
    iss="https://token.actions.githubusercontent.com",
    subject="repo:acme/mono:ref:refs/heads/main",
    claims=(
        ("event_name", "push"),
        ("ref", "refs/heads/main"),
        ("ref_protected", "true"),
        ("repository_id", "123456789"),
        ("run_attempt", "1"),
        ("workflow_ref", "acme/mono/.github/workflows/ci.yml@refs/heads/main"),
    ),
    token_id="5e" * 32,
    issued_at=STORED_AT - 60,
    expires_at=STORED_AT + 240,
)

ENTRY = Entry(
    entry_id="01KDYBV6D8000000000000000Z",
    namespace=Namespace("demo", "branch", "main"),
    key=parse_key("12345678901234567890"),
    tier=Tier.TRUSTED,
    digest=Digest.of(b"artifact"),
    size=8,
    chunk_list_digest=None,
    stored_at=STORED_AT,
    writer=WRITER,
    rule="main",
    policy_sha256="ab" * 32,
    epoch=0,
    server="secure-cache/0.1.0",
)

CHUNKS = b"".join(Digest.of(bytes([number])).raw for number in range(3))
LARGE_ENTRY = replace(
    ENTRY,
    entry_id="01KDYBV6D80000000000000010",
    size=2 * CHUNK_BYTES + 1,
    chunk_list_digest=Digest.of(CHUNKS),
)


def ed25519_signer(number=1):
    return Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def es256_signer(number=1):
    return Es256Signer(ec.derive_private_key(number, ec.SECP256R1()))


def public_key(signer, *, not_before=0, not_after=None, status=KeyStatus.ACTIVE):
    return PublicKey(signer.algorithm, signer.public_pem, not_before, not_after, status)


def ring_for(*signers, **window):
    return KeyRing(tuple(public_key(signer, **window) for signer in signers))


def done(coroutine):
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


def signed(payload, signer):
    """The envelope of any payload, also of one that we would never build."""
    return done(sign_payload(payload, signer))


def flipped(data, bit):
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


_times = st.integers(0, 4_102_444_800)
_hex = st.binary(min_size=32, max_size=32).map(bytes.hex)
_digests = st.binary(min_size=32, max_size=32).map(Digest)
_lines = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40)
_entry_ids = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=25, max_size=25).map(
    lambda text: "0" + text
)
_keys = st.text("abcXYZ019_-", min_size=1, max_size=128).map(parse_key)
_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
_scalars = st.one_of(
    _texts,
    st.booleans(),
    st.none(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(-1e300, 1e300).filter(lambda number: not number.is_integer()),
)

namespaces = st.builds(
    Namespace, st.sampled_from(["demo", "a", "x-1"]), st.sampled_from(["branch", "pr"]), _lines
)

identities = st.builds(
    Identity,
    issuer=_texts,
    iss=_texts,
    subject=_texts,
    claims=st.dictionaries(
        _texts, st.one_of(_scalars, st.lists(_scalars, max_size=3).map(tuple)), max_size=5
    ).map(lambda claims: tuple(sorted(claims.items(), key=lambda item: item[0]))),
    token_id=_hex,
    family=st.none() | _texts,
    issued_at=_times,
    expires_at=_times,
)


@st.composite
def entries(draw):
    size = draw(st.integers(0, 2**40))
    return Entry(
        entry_id=draw(_entry_ids),
        namespace=draw(namespaces),
        key=draw(_keys),
        tier=draw(st.sampled_from(list(Tier))),
        digest=draw(_digests),
        size=size,
        chunk_list_digest=draw(_digests) if size > CHUNK_BYTES else None,
        stored_at=draw(_times),
        writer=draw(identities),
        rule=draw(_lines),
        policy_sha256=draw(_hex),
        epoch=draw(st.integers(0, 2**53 - 1)),
        server=draw(_lines),
    )


_keyids = st.lists(_hex, unique=True, max_size=3).map(lambda keyids: tuple(sorted(keyids)))

happenings = st.one_of(
    st.builds(LogOpened, origin=_lines, vkey=_lines),
    st.builds(PolicyTookEffect, sha256=_digests, number=st.integers(2, 10**9), previous=_digests),
    st.builds(PolicyTookEffect, sha256=_digests, number=st.just(1), previous=st.none()),
    st.builds(KeysChanged, ring=_digests, added=_keyids, retired=_keyids, revoked=_keyids),
    st.builds(
        EntryQuarantined,
        entry_id=_entry_ids,
        namespace=namespaces,
        key=_keys,
        digest=_digests,
        reason=_lines,
    ),
    st.builds(
        EntryRemoved,
        entry_id=_entry_ids,
        namespace=namespaces,
        key=_keys,
        digest=_digests,
        line=_lines,
        replaced_by=st.none() | _entry_ids.map(lambda entry_id: "1" + entry_id[1:]),
    ),
)

events = st.builds(Event, what=happenings, at=_times, server=_lines)
