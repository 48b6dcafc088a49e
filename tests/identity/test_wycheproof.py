"""C2SP/wycheproof: signed objects, valid and hostile, through our layer and PyJWT."""

import json

from tools import require_vectors

from secure_cache.identity.keys import ASYMMETRIC, parse_key_set
from secure_cache.identity.tokens import check_signature, parse_jws
from secure_cache.model.errors import InvalidToken

ALGORITHMS = tuple(sorted(ASYMMETRIC))
REFUSED_THOUGH_VALID = {
    "symmetric keys are never accepted": {
        *(1, 348, 352, 357, 358, 359, 372, 373, 376, 377),
    },
    "a token without a payload claims nothing": {259, 264, 268, 272, 320, 325},
    "the header says PS384 and the vector's key is for PS256": {346, 350},
    "P-521 is not among our curves, and the key says ES521": {347, 351},
}


def accepts(group, token):
    key = group.get("public") or group["private"]
    data = json.dumps({"keys": [key]}).encode()
    try:
        jws = parse_jws(token)
        check_signature(jws, parse_key_set(data, ALGORITHMS).find(jws.kid), ALGORITHMS)
    except InvalidToken:
        return False
    return True


def test_every_vector_of_wycheproof_is_judged_right_or_listed_here():
    path = require_vectors("wycheproof-json-web-signature.json")
    document = json.loads(path.read_text())
    wrongly_accepted, wrongly_refused, judged = set(), set(), 0
    for group in document["testGroups"]:
        for case in group["tests"]:
            judged += 1
            valid = case["result"] == "valid"
            if accepts(group, case["jws"]) != valid:
                (wrongly_refused if valid else wrongly_accepted).add(case["tcId"])
    assert judged == document["numberOfTests"] == 401
    assert wrongly_accepted == set()
    assert wrongly_refused == set().union(*REFUSED_THOUGH_VALID.values())
