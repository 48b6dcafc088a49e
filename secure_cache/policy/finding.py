"""What is wrong in a policy file, as values: where, which code, and how to mend it.

Codes E01 to E13 and W01 to W05 are those of the policy language's specification; the others are
this loader's own. `docs/policy.md` explains each; a test holds that none is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

_SHOWN = 60


class Severity(StrEnum):
    """A policy with an error does not load; one with warnings does."""

    ERROR = "error"
    WARNING = "warning"


CODES: Mapping[str, str] = MappingProxyType(
    {
        "E01": "unknown key",
        "E02": "duplicate key",
        "E03": "a shared issuer without a pin",
        "E04": "a pattern that is neither whole text nor whole segments",
        "E05": "a wildcard in a read list",
        "E06": "a read below the reader's own tier",
        "E07": "trusted without a branch",
        "E08": "a trusted pattern that anybody who may create a branch can match",
        "E09": "an id, number, date or boolean that is not in quotes",
        "E10": "no usable audience",
        "E11": "a rule that can never match",
        "E12": "an issuer over plain http, or at a private address",
        "E13": "a time or lifetime out of range",
        "E14": "a key is missing",
        "E15": "a value of the wrong type or form",
        "E16": "not one plain YAML document",
        "E17": "a name that nothing in the file has",
        "E18": "a name, or an iss, used twice",
        "E19": "an anonymous rule without its acknowledgement",
        "E20": "a tier that this kind of job cannot have",
        "E21": "required tests are missing or fail",
        "E22": "an event that can never be trusted",
        "W01": "a mutable name where the provider has an id",
        "W02": "a rule without a positive and a negative test case",
        "W03": "an event is trusted whose sender chooses what runs",
        "W04": "pull requests read a private project",
        "W05": "a revocation older than anything it can cover",
        "W06": "a quota, which this version does not enforce",
        "W07": "two projects that one token can match",
        "W08": "a job's own namespace is read before a more trusted one",
        "W09": "a claim that the provider is not known to send",
        "W10": "every token of an issuer belongs to one project",
        "W11": "a revocation of all that an issuer, a project or a rule ever writes",
        "W12": "an id or a hash in a revocation that no token can have",
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or looks wrong.

    Attributes:
        code: a key of `CODES`.
        severity: follows from the code's first letter.
        line: counted from 1.
        column: counted from 1, in characters.
        message: what is wrong here; one line, printable whatever the file holds.
        fix: what to do; one line.
        path: the file's name, as it was given to the loader.
    """

    code: str
    severity: Severity
    line: int
    column: int
    message: str
    fix: str
    path: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.code} {self.message}; fix: {self.fix}"


def make_finding(code: str, message: str, *, fix: str, at: tuple[int, int], path: str) -> Finding:
    """A finding of a known code, at (line, column)."""
    if code not in CODES:
        raise ValueError(f"{code} is not a lint code")
    severity = Severity.ERROR if code.startswith("E") else Severity.WARNING
    return Finding(code, severity, at[0], at[1], message, fix, path)


def errors_in(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if finding.severity is Severity.ERROR)


def show(value: object) -> str:
    """A value from the file for a message: quoted, printable ASCII, and short."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
