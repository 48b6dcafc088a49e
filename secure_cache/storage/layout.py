"""Every object's name, in one place.

Six stores, which may be six containers with different rights, or folders of one:

    artifacts   <yyyy-mm-dd>/<entry id>                    immutable bytes
    records     <project>/<kind>/<sha256 of id>/<sha256 of key>, small artifacts behind them
    tiles       tile/... when full, commit/<size>          C2SP tlog-tiles; written once, kept
    head        head, checkpoint, turn                     swapped, never deleted
    pending     pending/<boot>/<seq>, tile/....p/<width>   the only one that the log deletes in
    state       jti/<yyyy-mm-dd>/<sha256>, quarantine/<entry id>, policy/<n>,
                keys/<n>, log/<n>, seen/checkpoint, seen/contradiction/<sha256>,
                denials/<yyyymmddThh>/<process>.json

For the filesystem `tiles`, `head` and `pending` are one folder, so that a C2SP client can read it.
The key is hashed because file systems that fold case would let `aB` meet `Ab`.
"""

import hashlib
from datetime import UTC, datetime
from functools import lru_cache

from secure_cache.model.names import Key, Namespace

HEAD = "head"
CHECKPOINT = "checkpoint"
TURN = "turn"
PENDING_PREFIX = "pending/"
TILE_PREFIX = "tile/"
COMMIT_PREFIX = "commit/"
POLICY_PREFIX = "policy/"
KEYS_PREFIX = "keys/"
LOG_PREFIX = "log/"
SEEN_CHECKPOINT = "seen/checkpoint"
CONTRADICTION_PREFIX = "seen/contradiction/"
DENIALS_PREFIX = "denials/"
_DAY_SECONDS = 86_400
_HOUR_SECONDS = 3600


def artifact(entry_id: str, stored_at: int) -> str:
    """Unique for each upload: two writers never share bytes, and a tampered object is never
    met again by content."""
    return f"{_day(stored_at)}/{entry_id}"


def record(namespace: Namespace, key: Key) -> str:
    return f"{namespace.path}/{hashlib.sha256(key.encode()).hexdigest()}"


def pending(boot: str, sequence: int) -> str:
    return f"{PENDING_PREFIX}{boot}/{sequence:012d}"


def commit(size: int) -> str:
    return f"{COMMIT_PREFIX}{size:020d}"


def used_token(token_id: str, expires_at: int) -> str:
    """By day of expiry, so that whole days can be swept once no clock accepts them."""
    return f"jti/{_day(expires_at)}/{token_id}"


def contradiction(checkpoint_sha256: str) -> str:
    return f"{CONTRADICTION_PREFIX}{checkpoint_sha256}"


def quarantine(entry_id: str) -> str:
    return f"quarantine/{entry_id}"


def policy_version(number: int) -> str:
    return f"{POLICY_PREFIX}{number:012d}"


def key_ring_version(number: int) -> str:
    return f"{KEYS_PREFIX}{number:012d}"


def denials_of_hour(hour: int) -> str:
    """Where the counts of all processes of an hour are; `hour` in hours since 1970."""
    moment = datetime.fromtimestamp(hour * _HOUR_SECONDS, tz=UTC)
    return f"{DENIALS_PREFIX}{moment:%Y%m%dT%H}/"


def denials(hour: int, process: str) -> str:
    return f"{denials_of_hour(hour)}{process}.json"


def log_version(number: int) -> str:
    return f"{LOG_PREFIX}{number:012d}"


def _day(timestamp: int) -> str:
    return _name_of_day(timestamp // _DAY_SECONDS)


@lru_cache(maxsize=512)
def _name_of_day(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_SECONDS, tz=UTC).strftime("%Y-%m-%d")
