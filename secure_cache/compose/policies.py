"""Policy files as the admin's commands read them: beside any server, before they are in force.

Unlike a server, these read files that others may write: a checkout in CI is no place of trust.
"""

from collections.abc import Mapping
from pathlib import Path

from secure_cache.identity.presets import load_presets
from secure_cache.identity.tokens import parse_token
from secure_cache.model.clock import Clock
from secure_cache.model.errors import InvalidPolicy, Malformed, Misconfigured
from secure_cache.model.identity import ClaimValue, Identity
from secure_cache.model.identity_json import check_claim_value, parse_identity
from secure_cache.model.strict_json import JsonValue, load_strict_object
from secure_cache.policy.cases import Case, identity_of, load_cases
from secure_cache.policy.compile import CompiledPolicy, compile_policy
from secure_cache.policy.convert import convert
from secure_cache.policy.finding import Finding, errors_in
from secure_cache.policy.loader import MAX_BYTES, load_yaml
from secure_cache.policy.parse import lint_policy
from secure_cache.policy.schema import PolicyDocument

_TESTS_ENDING = "_test"
_UNTESTED = "E21"
_MAX_CLAIMS_BYTES = 65_536


def read_document(path: Path) -> bytes:
    """A file's bytes, one more than the limit at most; the loader says when it is too large.

    Raises:
        Misconfigured: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}: give a policy file") from None


def is_tests(path: Path) -> bool:
    """Whether a file is called as test files are."""
    return path.stem.endswith(_TESTS_ENDING)


def tests_beside(policy: Path) -> Path | None:
    """The test file of a policy: `policy_test.yaml` beside `policy.yaml`."""
    if not policy.name:
        return None
    found = policy.with_name(f"{policy.stem}{_TESTS_ENDING}{policy.suffix}")
    return found if found.is_file() else None


def lint_file(path: Path, tests: Path | None, clock: Clock) -> tuple[Finding, ...]:
    """All findings of a policy, or of a test file.

    Raises:
        Misconfigured: a file cannot be read.
    """
    if is_tests(path):
        try:
            load_cases(read_document(path), name=str(path))
        except InvalidPolicy as error:
            return tuple(found for found in error.findings if isinstance(found, Finding))
        return ()
    return lint_policy(
        read_document(path),
        name=str(path),
        presets=load_presets(),
        now=clock(),
        tests=None if tests is None else read_document(tests),
    )


def load_policy(path: Path, clock: Clock) -> CompiledPolicy:
    """A policy that would load, but for its tests.

    Raises:
        Misconfigured: it cannot be read.
        InvalidPolicy: it has errors; carries the findings.
    """
    data, name, presets = read_document(path), str(path), load_presets()
    findings = lint_policy(data, name=name, presets=presets, now=clock())
    errors = tuple(found for found in errors_in(findings) if found.code != _UNTESTED)
    if errors:
        raise InvalidPolicy(f"{name} has {len(errors)} errors", errors)
    document = convert(load_yaml(data, name=name), PolicyDocument, name=name)
    return compile_policy(document, data, presets=presets)


def load_tests(path: Path) -> tuple[Case, ...]:
    """Raises: Misconfigured, InvalidPolicy."""
    return load_cases(read_document(path), name=str(path))


def identity_from_claims(policy: CompiledPolicy, text: bytes) -> Identity:
    """The identity that a token with these claims would prove.

    Raises:
        Malformed: not one JSON object.
    """
    try:
        claims = load_strict_object(text, max_bytes=_MAX_CLAIMS_BYTES)
    except ValueError as error:
        raise Malformed(f"the claims are not one JSON object: {error}") from None
    return identity_of(policy, _claims(claims))


def unverified_identity(policy: CompiledPolicy, token: str) -> Identity:
    """The identity that a token claims, for `explain`; its signature is not looked at.

    Raises:
        InvalidToken: not a JWT in compact form.
        Malformed: a session token whose identity cannot be read.
    """
    parsed = parse_token(token)
    claims = parsed.unverified_claims
    if parsed.jws.own and "idn" in claims:
        try:
            return parse_identity(claims["idn"])
        except ValueError as error:
            raise Malformed(f"the token's idn: {error}") from None
    return identity_of(policy, _claims(claims))


def _claims(claims: Mapping[str, JsonValue]) -> dict[str, ClaimValue]:
    """As the verifier keeps them: an object says nothing that a preset reads."""
    kept: dict[str, ClaimValue] = {}
    for name, value in claims.items():
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, dict | list) for item in items):
            continue
        try:
            kept[name] = check_claim_value(value)
        except ValueError as error:
            raise Malformed(f"the claim {name!r}: {error}") from None
    return kept
