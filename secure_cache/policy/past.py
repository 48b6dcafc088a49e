"""Policies that were in force once: read again, and compared in what they grant."""

from collections.abc import Mapping
from enum import StrEnum

from secure_cache.model.errors import InvalidPolicy
from secure_cache.policy.compile import CompiledPolicy, compile_policy
from secure_cache.policy.convert import convert
from secure_cache.policy.diff import Direction, PolicyDiff
from secure_cache.policy.finding import errors_in
from secure_cache.policy.loader import load_yaml
from secure_cache.policy.parse import lint_policy
from secure_cache.policy.preset import Preset
from secure_cache.policy.schema import PolicyDocument

_UNTESTED = "E21"


class Verdict(StrEnum):
    """What a change of the policy did, all in all.

    `loosened`: some part of it grants more than before, whatever else it takes away. `changed`:
    something that cannot be told apart; a person has to read it. `unknown`: a text is not stored,
    or is no policy to this version of the program.
    """

    LOOSENED = "loosened"
    CHANGED = "changed"
    TIGHTENED = "tightened"
    SAME = "same"
    UNKNOWN = "unknown"


def verdict_of(difference: PolicyDiff) -> Verdict:
    directions = {change.direction for change in difference.grants}
    if Direction.LOOSENED in directions:
        return Verdict.LOOSENED
    if Direction.CHANGED in directions:
        return Verdict.CHANGED
    if Direction.TIGHTENED in directions:
        return Verdict.TIGHTENED
    # A decision that changed although no grant is known to have: nobody should call that the same.
    return Verdict.CHANGED if difference.decisions else Verdict.SAME


def read_past_policy(
    data: bytes, *, name: str, presets: Mapping[str, Preset], now: float
) -> CompiledPolicy:
    """A policy as it was in force; its tests, which are not kept, do not count.

    Args:
        data: its bytes.
        name: for findings.
        presets: the CI providers of today.
        now: when it took effect.

    Raises:
        InvalidPolicy: it would not load today.
    """
    findings = lint_policy(data, name=name, presets=presets, now=now)
    errors = tuple(found for found in errors_in(findings) if found.code != _UNTESTED)
    if errors:
        raise InvalidPolicy(f"{name}: {len(errors)} errors; first: {errors[0]}", errors)
    document = convert(load_yaml(data, name=name), PolicyDocument, name=name)
    return compile_policy(document, data, presets=presets)
