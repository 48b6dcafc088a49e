"""Attacks on tokens, by the number that each has in our list of them: all are refused."""

import base64
import hashlib
import hmac
import json
import math
import sys

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.issuer import b64, private_key, public_jwk, segment, sign
from fakes.policy import AUDIENCE
from fakes.verifying import World

from secure_cache.identity.keys import parse_key_set
from secure_cache.identity.tokens import MAX_TOKEN_BYTES
from secure_cache.model.errors import ExpiredToken, InvalidToken, TokenProblem

pytestmark = pytest.mark.anyio

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def world():
    return World()


async def refused(world, token, problem=None):
    with pytest.raises(InvalidToken) as caught:
        await world.verifier.verify(token)
    if problem is not None:
        assert caught.value.problem is problem, str(caught.value)
    return caught.value


def payload(world, **claims):
    token = world.issuer.token(**claims)
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def signed(world, document, **header):
    fields = {"alg": "RS256", "kid": world.issuer.kid, "typ": "JWT"} | header
    return sign(fields, document, world.issuer.key)


async def test_the_untouched_token_is_accepted(world):
    identity = await world.verifier.verify(world.issuer.token())
    assert identity.issuer == "ci"
    assert identity.claim_map["ref"] == "refs/heads/main"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "n\u043ene"])
@pytest.mark.parametrize("signature", ["", "AA"])
async def test_01_alg_none(world, name, signature):
    head = segment({"alg": name, "kid": world.issuer.kid})
    await refused(world, f"{head}.{segment(payload(world))}.{signature}")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_02_public_key_as_hmac_secret(world, algorithm):
    public = world.issuer.key.public_key()
    numbers = public.public_numbers()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = [
        pem,
        pem.strip(),
        b"".join(pem.splitlines()[1:-1]),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        numbers.n.to_bytes(256, "big"),
        world.issuer.published[0]["n"].encode(),
        json.dumps(world.issuer.published[0]).encode(),
        b"",
    ]
    head = segment({"alg": algorithm, "kid": world.issuer.kid})
    signing_input = f"{head}.{segment(payload(world))}"
    for secret in secrets:
        digest = getattr(hashlib, "sha" + algorithm[2:])
        tag = hmac.new(secret, signing_input.encode(), digest).digest()
        await refused(world, f"{signing_input}.{b64(tag)}", TokenProblem.HEADER)


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "key-0\x00",
        "key-0\n",
        "' OR 1=1 --",
        "key-0;ls",
        "https://evil.example/key",
        "k" * 257,
        "k" * 5000,
        "\u212aey-0",
        "",
        0,
        None,
        ["key-0"],
        {"kid": "key-0"},
    ],
)
async def test_03_kid_traversal_and_injection(world, kid):
    await refused(world, signed(world, payload(world), kid=kid), TokenProblem.HEADER)
    assert world.keys.asked == 0


@pytest.mark.parametrize("field", ["jku", "x5u", "jwk", "x5c"])
async def test_04_key_brought_along_in_the_header(world, field):
    attacker = private_key("RS256", 50)
    value = {
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/cert",
        "jwk": public_jwk(attacker, world.issuer.kid),
        "x5c": ["MIIB"],
    }[field]
    head = {"alg": "RS256", "kid": world.issuer.kid, field: value}
    await refused(world, sign(head, payload(world), attacker), TokenProblem.HEADER)
    await refused(world, sign(head, payload(world), world.issuer.key), TokenProblem.HEADER)


@pytest.mark.parametrize(
    "fields",
    [
        {"crit": []},
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"crit": None},
    ],
)
async def test_05_crit_and_b64(world, fields):
    await refused(world, signed(world, payload(world), **fields), TokenProblem.HEADER)


async def test_06_nested_jwt(world):
    inner = world.issuer.token()
    await refused(world, signed(world, inner, cty="JWT"), TokenProblem.HEADER)
    await refused(world, signed(world, inner), TokenProblem.NOT_A_JWT)
    await refused(world, signed(world, payload(world), cty="json"), TokenProblem.HEADER)


async def test_07_jwe_and_zip(world):
    five = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AA.AA.AA"
    await refused(world, five, TokenProblem.NOT_A_JWT)
    for field, value in (("zip", "DEF"), ("enc", "A256GCM")):
        token = signed(world, payload(world), **{field: value})
        await refused(world, token, TokenProblem.HEADER)


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "iat", "exp"])
async def test_08_missing_claim(world, name):
    await refused(world, world.issuer.token(without=[name]))
    await refused(world, world.issuer.token(**{name: None}))


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        '"1800000100"',
        '"\uff11\uff18\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10"',
        '"9_999_999_999"',
        "true",
        "false",
        "null",
        "1e308",
        "1e999",
        "NaN",
        "Infinity",
        "-1",
        "[1800000100]",
        "{}",
        "9" * 20,
        "9" * 5000,
        "253402300800",
    ],
)
async def test_09_time_that_is_no_sane_number(world, name, value):
    # As text, since json would not write some of these.
    document = payload(world)
    document[name] = "@"
    text = json.dumps(document, ensure_ascii=False).replace('"@"', value)
    await refused(world, signed(world, text))


async def test_10_lifetime_of_ten_years_and_old_iat(world):
    now = int(world.clock())
    ten_years = 10 * 365 * 86_400
    await refused(world, world.issuer.token(exp=now + ten_years), TokenProblem.TIMES)
    await refused(world, world.issuer.token(iat=now, exp=now + 3601), TokenProblem.TIMES)
    await refused(world, world.issuer.token(iat=now, exp=now), TokenProblem.TIMES)
    await refused(world, world.issuer.token(iat=now, exp=now - 5), TokenProblem.TIMES)
    assert await world.verifier.verify(world.issuer.token(iat=now, exp=now + 3600))
    old = World(entry={"max_age_seconds": 100})
    token = old.issuer.token(iat=now - 131, exp=now + 200)
    with pytest.raises(ExpiredToken):
        await old.verifier.verify(token)
    assert await old.verifier.verify(old.issuer.token(iat=now - 129, exp=now + 200))


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"iat": 31}, InvalidToken),
        ({"iat": 30}, None),
        ({"nbf": 31}, InvalidToken),
        ({"nbf": 30}, None),
        ({"iat": -300, "nbf": -300, "exp": -31}, ExpiredToken),
        ({"iat": -300, "nbf": -300, "exp": -30}, None),
    ],
)
async def test_11_skewed_clocks_get_thirty_seconds(world, claims, error):
    now = int(world.clock())
    token = world.issuer.token(**{name: now + offset for name, offset in claims.items()})
    if error is None:
        assert await world.verifier.verify(token)
    else:
        with pytest.raises(error):
            await world.verifier.verify(token)


@pytest.mark.parametrize(
    "audience",
    [
        [AUDIENCE],
        [AUDIENCE, "https://other.example"],
        [],
        AUDIENCE + "/",
        AUDIENCE[:-1],
        AUDIENCE + ".evil",
        AUDIENCE.upper(),
        "https://github.com/octo",
        "",
        True,
        {AUDIENCE: 1},
        AUDIENCE + "\n",
    ],
)
async def test_12_audience_list_prefix_and_near_miss(world, audience):
    error = await refused(world, world.issuer.token(aud=audience), TokenProblem.AUDIENCE)
    assert AUDIENCE in error.hint
    assert "github.com/octo" not in error.hint


async def test_13_token_without_audience(world):
    token = world.issuer.token(without=["aud"])
    await refused(world, token, TokenProblem.AUDIENCE)


@pytest.mark.parametrize(
    "iss",
    [
        "https://ci.example/",
        "https://CI.example",
        "HTTPS://ci.example",
        "https://ci.example\n",
        " https://ci.example",
        "https://ci.example:443",
        "https://ci.example@evil.example",
        "https://c\u0456.example",
        "",
        ["https://ci.example"],
        {"https://ci.example": 1},
        None,
        True,
    ],
)
async def test_14_issuer_with_another_spelling(world, iss):
    await refused(world, world.issuer.token(iss=iss), TokenProblem.UNKNOWN_ISSUER)
    assert world.keys.asked == 0


@pytest.mark.parametrize(
    "extra",
    [
        '"ref":"refs/heads/evil"',
        '"r\\u0065f":"refs/heads/evil"',
        '"iss":"https://evil.example"',
        '"exp":9999999999',
        '"unknown":{"a":1,"a":2}',
    ],
)
async def test_15_duplicate_json_keys_in_the_payload(world, extra):
    text = json.dumps(payload(world))
    for document in (f"{{{extra},{text[1:]}", f"{text[:-1]},{extra}}}"):
        await refused(world, signed(world, document), TokenProblem.NOT_A_JWT)


async def test_15_duplicate_json_keys_in_the_header(world):
    kid = world.issuer.kid
    for head in (
        f'{{"alg":"none","alg":"RS256","kid":"{kid}"}}',
        f'{{"alg":"RS256","kid":"evil","kid":"{kid}"}}',
        f'{{"alg":"RS256","kid":"{kid}","\\u0061lg":"RS256"}}',
    ):
        token = sign(head, payload(world), world.issuer.key)
        await refused(world, token, TokenProblem.NOT_A_JWT)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"])
async def test_16_payload_and_header_in_another_encoding(world, encoding):
    text = json.dumps(payload(world, sub="caf\u00e9"), ensure_ascii=False)
    await refused(world, signed(world, text.encode(encoding)), TokenProblem.NOT_A_JWT)
    if encoding != "latin-1":
        head = json.dumps({"alg": "RS256", "kid": world.issuer.kid}).encode(encoding)
        token = sign(head, payload(world), world.issuer.key)
        await refused(world, token, TokenProblem.NOT_A_JWT)


@pytest.mark.parametrize("name", ["ref", "sub", "jti", "iss", "aud", "unknown"])
async def test_17_lone_surrogate_in_a_claim(world, name):
    text = json.dumps(payload(world, **{name: "@"})).replace('"@"', '"\\ud800x"')
    await refused(world, signed(world, text), TokenProblem.NOT_A_JWT)


async def test_17_lone_surrogate_in_the_token_itself(world):
    await refused(world, world.issuer.token() + "\ud800", TokenProblem.NOT_A_JWT)
    await refused(world, "\ud800.\udfff.\ud800", TokenProblem.NOT_A_JWT)


@pytest.mark.parametrize(
    "ref", ["refs/heads/main\n", "refs/heads/ma\x00in", "refs/heads/\u202emain"]
)
async def test_17_control_characters_in_a_ref_name_no_branch(world, ref):
    identity = await world.verifier.verify(world.issuer.token(ref=ref))
    entry = world.policy.issuers[0]
    answer = entry.preset.classify(identity.claim_map, entry.options)
    assert type(answer).__name__ == "Unclassifiable"


async def test_18_padding_and_stray_bits(world):
    token = world.issuer.token()
    head, body, signature = token.split(".")
    for changed in (
        f"{head}=.{body}.{signature}",
        f"{head}.{body}=.{signature}",
        f"{head}.{body}.{signature}=",
        f"{head}.{body}.{signature}==",
        f"{token}\n",
        f" {token}",
        f"{head}.{body}.{signature}\t",
        token.replace("_", "/").replace("-", "+") if "_" in token or "-" in token else f"{token}+",
        f"{head}.{body}.",
        f".{body}.{signature}",
        f"{head}..{signature}",
        f"{token}.",
        f"{head}.{body}",
    ):
        await refused(world, changed, TokenProblem.NOT_A_JWT)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 256 bytes leave four bits unused in the last character.
    stray = alphabet[alphabet.index(signature[-1]) | 1]
    assert stray != signature[-1]
    await refused(world, f"{head}.{body}.{signature[:-1]}{stray}", TokenProblem.NOT_A_JWT)


@pytest.mark.parametrize("jti", [True, False])
async def test_18_the_second_form_of_an_ecdsa_signature_has_the_same_replay_key(jti):
    world = World("ES256")
    token = world.issuer.token(without=[] if jti else ["jti"])
    head, body, signature = token.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    other = r.to_bytes(32, "big") + (P256_ORDER - s).to_bytes(32, "big")
    twin = f"{head}.{body}.{b64(other)}"
    assert twin != token
    first, second = await world.verifier.verify(token), await world.verifier.verify(twin)
    assert first.token_id == second.token_id


async def test_19_psychic_and_der_signatures():
    world = World("ES256")
    head, body, signature = world.issuer.token().split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    assert decode_dss_signature(der)[0] == int.from_bytes(raw[:32], "big")
    order = P256_ORDER.to_bytes(32, "big")
    for forged in (
        bytes(64),
        order + order,
        bytes(32) + raw[32:],
        raw[:32] + bytes(32),
        der,
        b"\0",
    ):
        await refused(world, f"{head}.{body}.{b64(forged)}", TokenProblem.SIGNATURE)


async def test_20_weak_rsa_key(world):
    weak = private_key("weak")
    world.issuer.published[:] = [public_jwk(weak, world.issuer.kid)]
    await refused(world, world.issuer.token(key=weak), TokenProblem.UNKNOWN_KEY)
    keys = parse_key_set(json.dumps({"keys": world.issuer.published}).encode(), ("RS256",))
    assert keys.keys == ()
    assert "2048" in keys.skipped[0]


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"use": ""},
        {"use": None},
        {"key_ops": ["encrypt"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"key_ops": ["sign"]},
    ],
)
async def test_21_key_that_is_not_for_verifying(world, change):
    world.issuer.published[0] |= change
    await refused(world, world.issuer.token(), TokenProblem.UNKNOWN_KEY)


def test_22_duplicate_kid_refuses_the_set(world):
    twice = [*world.issuer.published, public_jwk(private_key("RS256", 51), world.issuer.kid)]
    with pytest.raises(ValueError, match="two keys of one kid"):
        parse_key_set(json.dumps({"keys": twice}).encode(), ("RS256",))


def test_22_symmetric_and_private_keys_are_skipped(world):
    private = jwt.algorithms.RSAAlgorithm.to_jwk(private_key("RS256", 51), as_dict=True)
    entries = [
        {"kty": "oct", "kid": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {**private, "kid": "private", "key_ops": ["verify"]},
        *world.issuer.published,
    ]
    keys = parse_key_set(json.dumps({"keys": entries}).encode(), ("RS256", "HS256"))
    assert [key.kid for key in keys.keys] == [world.issuer.kid]
    assert len(keys.skipped) == 2


def test_23_alg_none_entry_leaves_the_rest_of_the_set_alive(world):
    entries = [
        world.issuer.published[0] | {"kid": "none", "alg": "none"},
        world.issuer.published[0] | {"kid": "odd", "alg": ["RS256"]},
        {"kty": ["RSA"]},
        {"kty": "RSA", "kid": "short"},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        None,
        7,
        *world.issuer.published,
    ]
    keys = parse_key_set(json.dumps({"keys": entries}).encode(), ("RS256", "ES256", "EdDSA"))
    assert [key.kid for key in keys.keys] == [world.issuer.kid]
    assert len(keys.skipped) == 9


@pytest.mark.parametrize(
    "typ", ["logout+jwt", "at+jwt", "jwt", "cache+JWT", "application/jwt", "", None, ["JWT"], 1]
)
async def test_24_typ_of_other_tokens(world, typ):
    await refused(world, signed(world, payload(world), typ=typ), TokenProblem.TYPE)


async def test_24_tokens_of_a_ci_and_our_own_are_never_confused(world):
    await refused(world, signed(world, payload(world), typ="cache+jwt"))
    claims = {"iss": AUDIENCE, "aud": AUDIENCE, "prj": "mono", "branch": "main", "tid": "t"}
    # Our claims under the CI's key, under our typ and under none.
    await refused(world, signed(world, payload(world, **claims), typ="cache+jwt"))
    await refused(world, signed(world, payload(world, **claims)))
    # The CI's claims under our key and its kid.
    head = {"alg": "EdDSA", "kid": world.own_keys.keys[0].kid, "typ": "JWT"}
    await refused(world, sign(head, payload(world), world.own_key, "EdDSA"))
    # Our key and claims, but the typ that CIs use.
    await refused(world, sign(head, payload(world, **claims), world.own_key, "EdDSA"))
    head["typ"] = "cache+jwt"
    assert await world.verifier.verify(
        sign(head, own_payload(world, **claims), world.own_key, "EdDSA")
    )


def own_payload(world, **claims):
    names = {"iss", "aud", "sub", "iat", "exp", "jti"}
    return {k: v for k, v in payload(world, **claims).items() if k in names | claims.keys()}


async def test_29_huge_token_is_refused_before_it_is_decoded(world):
    token = world.issuer.token(padding="x" * MAX_TOKEN_BYTES)
    error = await refused(world, token, TokenProblem.NOT_A_JWT)
    assert "8 KiB" in str(error)
    await refused(world, "a" * 8_000_000, TokenProblem.NOT_A_JWT)
    assert world.keys.asked == 0


@pytest.mark.parametrize("depth", [9, 1000, 2500])
async def test_30_deep_nesting(world, depth):
    text = json.dumps(payload(world))[:-1] + ',"deep":' + "[" * depth + "]" * depth + "}"
    await refused(world, signed(world, text), TokenProblem.NOT_A_JWT)
    head = f'{{"alg":"RS256","kid":{"[" * depth}{"]" * depth}}}'
    await refused(world, sign(head, {}, world.issuer.key), TokenProblem.NOT_A_JWT)


async def test_31_another_algorithm_of_the_same_family(world):
    for named in ({"alg": "RS256"}, {}):
        world.issuer.published[:] = [public_jwk(world.issuer.key, world.issuer.kid, **named)]
        for other in ("RS384", "RS512", "PS256", "PS384", "PS512"):
            head = {"alg": other, "kid": world.issuer.kid}
            token = sign(head, payload(world), world.issuer.key, other)
            await refused(world, token, TokenProblem.SIGNATURE)
    assert await world.verifier.verify(world.issuer.token())


async def test_31_algorithm_that_the_issuer_may_not_use(world):
    key = private_key("PS256", 52)
    world.issuer.published[:] = [public_jwk(key, world.issuer.kid, alg="PS256")]
    head = {"alg": "PS256", "kid": world.issuer.kid}
    await refused(world, sign(head, payload(world), key, "PS256"), TokenProblem.UNKNOWN_KEY)


@pytest.mark.parametrize("algorithm", ["ES256K", "ES521", "ES512", "Ed25519", "Ed448", "EdDSA "])
async def test_32_curves_that_are_not_ours(world, algorithm):
    head = segment({"alg": algorithm, "kid": world.issuer.kid})
    await refused(world, f"{head}.{segment(payload(world))}.AAAA", TokenProblem.HEADER)


def test_33_a_key_of_the_roca_generator_is_skipped(world):
    primes = [n for n in range(2, 168) if all(n % d for d in range(2, n))]
    product = math.prod(primes)
    base = 2**2047 // product * product
    weak = next(
        n
        for exponent in range(1000)
        if (n := base + product + pow(65537, exponent, product)).bit_length() == 2048
    )
    for modulus, usable in ((weak, 0), (weak + 2 * 3 * 5, 1)):
        n = b64(modulus.to_bytes(256, "big"))
        entry = {"kty": "RSA", "kid": "roca", "n": n, "e": "AQAB"}
        keys = parse_key_set(json.dumps({"keys": [entry]}).encode(), ("RS256",))
        assert len(keys.keys) == usable
        assert len(keys.skipped) == 1 - usable


async def test_34_the_answer_tells_nothing_of_the_token(world):
    secrets = ["sEcReTvalue", "evil.example"]
    tokens = [
        world.issuer.token(sub="sEcReTvalue" * 100),
        world.issuer.token(iss="https://evil.example/sEcReTvalue"),
        world.issuer.token(aud="https://evil.example/sEcReTvalue"),
        world.issuer.token(exp="sEcReTvalue"),
        signed(world, payload(world), kid="sEcReTvalue/"),
        signed(world, payload(world), sEcReTvalue="evil.example"),
        world.issuer.token(jti="sEcReTvalue")[:-8] + "AAAAAAAA",
        "sEcReTvalue.evil.example",
    ]
    for token in tokens:
        error = await refused(world, token)
        told = f"{error} {error.hint} {error.title} {error.__cause__} {error.args}"
        assert not [secret for secret in secrets if secret in told]
        assert error.problem in TokenProblem
        assert "\n" not in error.hint


async def test_35_a_wrong_signature_stays_wrong(world):
    token = world.issuer.token()
    head, body, signature = token.split(".")
    forged = segment(payload(world, repository_id="1"))
    stranger = sign(
        {"alg": "RS256", "kid": world.issuer.kid}, payload(world), private_key("RS256", 53)
    )
    for changed in (f"{head}.{forged}.{signature}", f"{head}.{body}.{b64(bytes(256))}", stranger):
        for _ in range(2):
            await refused(world, changed, TokenProblem.SIGNATURE)
    assert await world.verifier.verify(token)


async def test_an_unknown_issuer_causes_no_input_or_output(world):
    token = world.issuer.token(iss="https://169.254.169.254/latest/meta-data")
    with watched_sockets() as seen:
        await refused(world, token, TokenProblem.UNKNOWN_ISSUER)
    assert seen == []
    assert world.keys.asked == 0


class watched_sockets:  # noqa: N801 - reads as a function
    """What this process asks of the network or of files meanwhile."""

    watching: list[list[str]] = []  # noqa: RUF012 - audit hooks can not be removed
    hooked = False

    def __enter__(self):
        if not watched_sockets.hooked:
            sys.addaudithook(_note)
            watched_sockets.hooked = True
        self.seen = []
        self.watching.append(self.seen)
        return self.seen

    def __exit__(self, *_):
        self.watching.remove(self.seen)


def _note(event, _):
    if event.startswith("socket.") or event in {"open", "urllib.Request"}:
        for seen in watched_sockets.watching:
            seen.append(event)
