"""C2SP tlog-policy: which files are policies, and which cosignatures are enough."""

import contextlib
import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_cache.model.errors import LogInconsistent, Malformed
from secure_cache.tlog.checkpoint import Checkpoint
from secure_cache.tlog.cosignature import Ed25519Cosigner, MldsaCosigner
from secure_cache.tlog.note import Ed25519NoteSigner, sign_note
from secure_cache.tlog.witness_policy import MAX_WITNESSES, WitnessPolicy
from secure_cache.tlog.witness_wire import add_signatures

LOG = Ed25519NoteSigner("log.example.com", bytes(32))
CHECKPOINT = Checkpoint("log.example.com", 3, b"\x07" * 32)


def cosigner(name):
    return Ed25519Cosigner(f"{name}.example.com", hashlib.sha256(name.encode()).digest())


def witness(name, url=""):
    return f"witness {name} {cosigner(name).verifier} {url}\n"


# the example of the specification, with keys filled in
TWO_LEVELS = (
    f"log {LOG.verifier}\n\n"
    + "".join(witness(name) for name in ("X1", "X2", "X3"))
    + "group X-witnesses 2 X1 X2 X3\n\n"
    + "".join(witness(name) for name in ("Y1", "Y2", "Y3"))
    + "group Y-witnesses any Y1 Y2 Y3\n\n"
    + "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
)


def parse(text):
    return WitnessPolicy.parse(text if isinstance(text, bytes) else text.encode())


async def cosigned(*names, signer=LOG, checkpoint=CHECKPOINT):
    note = await sign_note(str(checkpoint), signer)
    return add_signatures(
        note, [cosigner(name).cosign(checkpoint, 1_700_000_000) for name in names]
    )


def test_the_example_of_the_specification_counts_as_it_says():
    policy = parse(TWO_LEVELS)
    everybody = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    for count in range(7):
        for names in itertools.combinations(everybody, count):
            enough = sum(n[0] == "X" for n in names) >= 2 and any(n[0] == "Y" for n in names)
            assert policy.is_quorum([n.encode() for n in names]) is enough, names


@pytest.mark.parametrize(("rule", "enough"), [("any", 1), ("1", 1), ("2", 2), ("3", 3), ("all", 3)])
def test_a_group_counts_its_members(rule, enough):
    names = ["a", "b", "c"]
    policy = parse("".join(map(witness, names)) + f"group g {rule} a b c\nquorum g\n")
    for count in range(4):
        assert policy.is_quorum([n.encode() for n in names[:count]]) is (count >= enough)


def test_quorum_none_needs_nobody_and_a_single_witness_is_a_quorum():
    assert parse("quorum none\n").is_quorum([])
    policy = parse(witness("a") + witness("b") + "quorum a\n")
    assert policy.is_quorum([b"a"])
    assert not policy.is_quorum([b"b"])


def test_blanks_tabs_comments_urls_and_opaque_names_are_read():
    key = cosigner("a").verifier
    policy = parse(
        b"# \xff a comment\n \t\n\t witness  \t\xe2\x84\xaa "
        + str(key).encode()
        + b"\thttps://w.example.com/prefix \n quorum \xe2\x84\xaa\n"
    )
    (found,) = policy.witnesses
    assert found.name == b"\xe2\x84\xaa"
    assert found.url == "https://w.example.com/prefix"
    assert policy.quorum == found.name
    assert not policy.is_quorum([b"K"])


def test_an_mldsa_witness_is_a_witness():
    key = MldsaCosigner("pq.example.com", bytes(32)).verifier
    assert parse(f"witness pq {key}\nquorum pq\n").witnesses[0].verifier == key


A, B = witness("a"), witness("b")
REFUSED = {
    "empty": "",
    "no quorum": A,
    "two quorums": A + "quorum a\nquorum a\n",
    "two quorums none": "quorum none\nquorum none\n",
    "no end of the last line": A + "quorum a",
    "carriage return": A + "quorum a\r\n",
    "a control character": A + "# \x07\nquorum a\n",
    "delete": A + "# \x7f\nquorum a\n",
    "another keyword": "witnesses a\nquorum none\n",
    "a keyword in capitals": "Quorum none\n",
    "quorum of a name that is not defined": "quorum a\n",
    "quorum before its witness": "quorum a\n" + A,
    "quorum of two names": A + B + "quorum a b\n",
    "quorum without a name": "quorum\n",
    "a group of nobody": A + "group g any\nquorum g\n",
    "a group of a later name": "group g any a\n" + A + "quorum g\n",
    "a group of itself": "group g any g\nquorum g\n",
    "a group that asks for none": A + "group g 0 a\nquorum g\n",
    "a group that asks for more than it has": A + "group g 2 a\nquorum g\n",
    "a threshold with a zero before it": A + "group g 01 a\nquorum g\n",
    "a threshold with a sign": A + "group g +1 a\nquorum g\n",
    "a threshold in words": A + "group g most a\nquorum g\n",
    "a member twice in a group": A + "group g 2 a a\nquorum g\n",
    "a member of two groups": A + B + "group g any a\ngroup h all a b\nquorum h\n",
    "none as a member": A + "group g any a none\nquorum g\n",
    "a witness called none": A.replace("witness a", "witness none") + "quorum none\n",
    "a group called none": A + "group none any a\nquorum none\n",
    "a name twice": A + B.replace("witness b", "witness a") + "quorum a\n",
    "a group with a witness's name": A + B + "group a any b\nquorum a\n",
    "a key twice": A + A.replace("witness a", "witness c") + "quorum a\n",
    "a key twice by another name": A
    + f"witness c {Ed25519Cosigner('c', hashlib.sha256(b'a').digest()).verifier}\nquorum a\n",
    "a witness with the key of a log": f"witness a {LOG.verifier}\nquorum a\n",
    "a witness without a key": "witness a\nquorum none\n",
    "a witness with too much": A.replace("\n", "https://a https://b\n") + "quorum a\n",
    "a witness whose key id is wrong": A.replace("+", "+00000000+", 1) + "quorum a\n",
    "a log with the key of a witness": f"log {cosigner('a').verifier}\nquorum none\n",
    "a log without a key": "log\nquorum none\n",
    "a log twice": f"log {LOG.verifier}\nlog {LOG.verifier} https://log\nquorum none\n",
    "a log's key under two names": f"log {LOG.verifier}\n"
    f"log {Ed25519NoteSigner('other', bytes(32)).verifier}\nquorum none\n",
    "a key that is not UTF-8": b"witness a \xff\nquorum none\n",
    "too many witnesses": "".join(witness(f"w{i}") for i in range(MAX_WITNESSES + 1))
    + "quorum none\n",
    "too large": "#" + "x" * (1 << 20) + "\nquorum none\n",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_a_policy_is_refused(what):
    with pytest.raises(Malformed):
        parse(REFUSED[what])


def test_what_the_specification_wants_supported_is():
    names = [f"w{i}" for i in range(32)]
    logs = "".join(
        f"log {Ed25519NoteSigner(f'log{i}', hashlib.sha256(b'%d' % i).digest()).verifier}\n"
        for i in range(32)
    )
    groups = "".join(f"group g{i} all {name}\n" for i, name in enumerate(names[:31]))
    last = "group g31 31 " + " ".join(f"g{i}" for i in range(31)) + "\nquorum g31\n"
    policy = parse(logs + "".join(map(witness, names)) + groups + last)
    assert policy.is_quorum([name.encode() for name in names[:31]])
    assert not policy.is_quorum([name.encode() for name in names[1:]])


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_parse_or_be_refused(data):
    for text in (data, TWO_LEVELS.encode() + data, data + b"\nquorum none\n"):
        with contextlib.suppress(Malformed):
            WitnessPolicy.parse(text)


@pytest.mark.anyio
async def test_a_checkpoint_with_enough_cosignatures_verifies_and_one_less_does_not():
    policy = parse(TWO_LEVELS)
    enough = policy.verify(await cosigned("X1", "X3", "Y2", "stranger"))
    assert enough.checkpoint == CHECKPOINT
    assert set(enough.cosignatures) == {b"X1", b"X3", b"Y2"}
    for names in (("X1", "X3"), ("X1", "Y1"), ("Y1", "Y2", "Y3"), ()):
        with pytest.raises(LogInconsistent, match="not witnessed enough"):
            policy.verify(await cosigned(*names))


@pytest.mark.anyio
async def test_a_known_witness_that_signed_something_else_spoils_the_note():
    policy = parse(TWO_LEVELS)
    note = await cosigned("X1", "X2", "Y1")
    other = cosigner("Y2").cosign(Checkpoint("log.example.com", 4, b"\x08" * 32), 1_700_000_000)
    with pytest.raises(LogInconsistent, match="does not verify"):
        policy.verify(add_signatures(note, [other]))


@pytest.mark.anyio
async def test_cosignatures_do_not_replace_the_logs_own_signature():
    policy = parse(TWO_LEVELS)
    stranger = Ed25519NoteSigner("log.example.com", b"\x01" * 32)
    with pytest.raises(LogInconsistent, match="not signed by it"):
        policy.verify(await cosigned("X1", "X2", "Y1", signer=stranger))
    note = await cosigned("X1", "X2", "Y1", signer=stranger)
    assert policy.verify(note, log=stranger.verifier).checkpoint == CHECKPOINT
    with pytest.raises(LogInconsistent, match="no known key"):
        parse("quorum none\n").verify(note)


@pytest.mark.anyio
async def test_a_log_of_the_policy_does_not_speak_for_another():
    other = Ed25519NoteSigner("other.example.com", b"\x02" * 32)
    policy = parse(f"log {LOG.verifier}\nlog {other.verifier}\n{A}quorum a\n")
    with pytest.raises(LogInconsistent, match="not signed by it"):
        policy.verify(await cosigned("a", signer=other))
