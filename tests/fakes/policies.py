"""Policies to test with: the committed examples, whole and mutated."""

from pathlib import Path

from fakes.presets import OPEN

from secure_cache.identity.presets import load_presets
from secure_cache.model.digest import Digest
from secure_cache.model.entry import Entry
from secure_cache.model.identity import Identity
from secure_cache.model.names import Namespace, parse_key
from secure_cache.model.tiers import Tier
from secure_cache.policy.cases import identity_of
from secure_cache.policy.parse import lint_policy, parse_policy

FOLDER = Path(__file__).resolve().parents[2] / "policies"
PRESETS = {**load_presets(), "open": OPEN}
NOW = 1_800_000_000.0
EXAMPLES = sorted(
    path.name for path in FOLDER.glob("*.yaml") if not path.name.endswith("_test.yaml")
)

GITHUB = {
    "iss": "https://token.actions.githubusercontent.com",
    "repository_owner_id": "65",
    "repository_id": "74",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "event_name": "push",
}


def text(name="monorepo.yaml"):
    return (FOLDER / name).read_text(encoding="utf-8")


def cases_of(name="monorepo.yaml"):
    return (FOLDER / name.replace(".yaml", "_test.yaml")).read_bytes()


def mutated(*changes, name="monorepo.yaml"):
    """An example with (old, new) replaced, each of which must stand in it."""
    found = text(name)
    for old, new in changes:
        assert old in found, old
        found = found.replace(old, new, 1)
    return found


def load(source=None, *, tests=None, now=NOW):
    source = text() if source is None else source
    return parse_policy(source.encode(), name="policy.yaml", presets=PRESETS, now=now, tests=tests)


def lint(source, *, tests=None, now=NOW):
    data = source if isinstance(source, bytes) else source.encode()
    return lint_policy(data, name="policy.yaml", presets=PRESETS, now=now, tests=tests)


def codes(source, **options):
    return {finding.code for finding in lint(source, **options)}


def github(policy, **claims):
    """The identity of a GitHub token: a push to main of repository 74, but for `claims`."""
    return identity_of(policy, GITHUB | claims)


def open_identity(**claims):
    """The identity of a token of the `open` preset."""
    return Identity(
        issuer="open",
        iss="https://open.example",
        subject="somebody",
        claims=tuple(sorted(claims.items())),
        token_id="ab" * 32,
        issued_at=int(NOW),
    )


def entry(writer, namespace, *, tier=Tier.TRUSTED, epoch=0, stored_at=int(NOW) - 60, **changes):
    """What the server would have signed for a write."""
    values = {
        "entry_id": "01HZZZZZZZZZZZZZZZZZZZZZZZ",
        "namespace": Namespace.parse(namespace),
        "key": parse_key("123"),
        "tier": tier,
        "digest": Digest.of(b""),
        "size": 0,
        "chunk_list_digest": None,
        "stored_at": stored_at,
        "writer": writer,
        "rule": "main",
        "policy_sha256": "cd" * 32,
        "epoch": epoch,
        "server": "test",
    }
    return Entry(**(values | changes))
