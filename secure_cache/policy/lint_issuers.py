"""Lint of `issuers:`: who may sign, under which conditions, with keys from where."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from msgspec import UNSET

from secure_cache.policy.duration import seconds
from secure_cache.policy.finding import show
from secure_cache.policy.issuers import given, iss_of, keys_of
from secure_cache.policy.preset import Preset
from secure_cache.policy.report import Report
from secure_cache.policy.schema import IssuerDocument, PolicyDocument

MIN_LIFETIME_SECONDS = 60
MAX_LIFETIME_SECONDS = 86_400
_PRIVATE_SUFFIXES = (".local", ".internal", ".localhost", ".lan", ".home.arpa")
_NOT_FOR_SELF = ("iss", "jwks_url", "jwks_file", "trusted_events", "claims", "algorithms")


@dataclass(frozen=True, slots=True)
class _Subject:
    """The issuer that is looked at."""

    name: str
    issuer: IssuerDocument
    preset: Preset
    report: Report

    def add(self, code: str, message: str, fix: str, *path: str | int) -> None:
        self.report.add(code, message, fix, "issuers", self.name, *path)


def lint_issuers(document: PolicyDocument, presets: Mapping[str, Preset], report: Report) -> None:
    seen: dict[str, str] = {}
    for name, issuer in document.issuers.items():
        preset = presets.get(issuer.preset)
        if preset is None:
            known = ", ".join(sorted(presets))
            what = f"there is no preset {show(issuer.preset)}"
            report.add("E17", what, f"the presets are {known}", "issuers", name, "preset")
            continue
        subject = _Subject(name, issuer, preset, report)
        iss = iss_of(issuer, preset, document.audience)
        if preset.self_issued:
            _lint_self(subject)
        elif iss is None:
            subject.add("E14", "this preset has no iss of its own", "add the exact `iss`")
        else:
            _lint_keys(subject, iss)
            if iss == document.audience:
                subject.add("E18", "this iss is this server's own", "give it its own iss", "iss")
        if iss is not None:
            if iss in seen:
                what = f"the issuer {seen[iss]} has the same iss"
                subject.add("E18", what, "one issuer for one iss; delete one")
            seen.setdefault(iss, name)
        _lint_pins(subject)
        _lint_lifetimes(subject)
        _lint_events(subject)
        _lint_mapping(subject)


def _lint_self(subject: _Subject) -> None:
    for key in _NOT_FOR_SELF:
        if getattr(subject.issuer, key) is not UNSET:
            what = f"{key} means nothing for tokens of this server"
            subject.add("E15", what, "delete it", key)


def _lint_keys(subject: _Subject, iss: str) -> None:
    issuer = subject.issuer
    if issuer.jwks_url is not UNSET and issuer.jwks_file is not UNSET:
        subject.add("E15", "both jwks_url and jwks_file", "keep one", "jwks_file")
    url, file = keys_of(issuer, subject.preset, iss)
    if url is None and file is None:
        subject.add("E14", "nothing says where its keys are", "add jwks_url or jwks_file")
    if file is not None and not is_plain_name(file):
        what = "jwks_file is not the name of a file beside the policy"
        subject.add("E15", what, "write a relative path without `..`", "jwks_file")
    if file is None or "://" in iss:
        _lint_url(subject, iss, "iss")
    if url is not None and url is issuer.jwks_url:
        _lint_url(subject, url, "jwks_url")


def _lint_url(subject: _Subject, url: str, key: str) -> None:
    problem = url_problem(url, allow_private=subject.issuer.allow_private)
    if problem is not None:
        fix = "use https and a public host, or allow_private: true for your own network"
        subject.add("E12", f"{key} {problem}", fix, key)


def _lint_pins(subject: _Subject) -> None:
    pins = given(subject.issuer.pin, {})
    preset = subject.preset
    if preset.required_pins and not any(pins.keys() >= wanted for wanted in preset.required_pins):
        choices = " or ".join(" and ".join(sorted(wanted)) for wanted in preset.required_pins)
        what = "this issuer also signs for strangers, and nothing is pinned"
        subject.add("E03", what, f"add `pin:` with {choices}", "pin")
    lint_claim_names(pins, (preset,), subject.report, ("issuers", subject.name, "pin"))


def _lint_lifetimes(subject: _Subject) -> None:
    preset = subject.preset
    for key, own in (
        ("max_lifetime", preset.max_lifetime_seconds),
        ("max_age", preset.max_age_seconds),
    ):
        text = getattr(subject.issuer, key)
        most = max(MAX_LIFETIME_SECONDS, own)
        if text is not UNSET and not MIN_LIFETIME_SECONDS <= seconds(text) <= most:
            what = f"{key} is {text}"
            fix = f"between {MIN_LIFETIME_SECONDS}s and {most}s"
            subject.add("E13", what, fix, key)


def _lint_events(subject: _Subject) -> None:
    preset = subject.preset
    listed = preset.default_trusted_events | preset.dangerous_events
    events = given(subject.issuer.trusted_events, ())
    if events and not listed and not preset.mappable and not preset.self_issued:
        subject.add("E15", "this preset knows no events", "delete it", "trusted_events")
        return
    for index, event in enumerate(events):
        path = ("trusted_events", index)
        if event in preset.dangerous_events:
            what = f"whoever sends {show(event)} chooses what code runs"
            subject.add("W03", what, "trust it only if nobody untrusted can send it", *path)
        elif listed and event not in listed:
            what = f"{show(event)} does not prove that the branch's own code runs"
            subject.add("E22", what, f"the choice is {', '.join(sorted(listed))}", *path)


def _lint_mapping(subject: _Subject) -> None:
    preset = subject.preset
    mapped = given(subject.issuer.claims, {})
    if preset.mappable and ("event" in mapped) != (subject.issuer.trusted_events is not UNSET):
        what = "a mapped event and trusted_events go together"
        subject.add("E15", what, "write both, or neither", "claims", "event")
    for key in mapped:
        if key not in preset.mappable:
            known = ", ".join(sorted(preset.mappable)) or "none: its claims have fixed names"
            what = f"{show(key)} cannot be mapped to a claim"
            subject.add("E15", what, f"what can be mapped: {known}", "claims", key)


def lint_claim_names(
    claims: Iterable[str], presets: Iterable[Preset], report: Report, path: tuple[str | int, ...]
) -> None:
    """W01 and W09 for claims that something compares."""
    presets = tuple(presets)
    names = set(claims)
    for name in sorted(names):
        better = {
            preset.name_instead_of_id[name]
            for preset in presets
            if name in preset.name_instead_of_id
        }
        if better and not better & names:
            what = f"{name} can change hands: whoever takes it over matches"
            report.add("W01", what, f"compare {' or '.join(sorted(better))}", *path, name)
        if presets and not any(
            preset.mappable or name in preset.known_claims for preset in presets
        ):
            what = f"no preset here knows the claim {show(name)}, so it may never match"
            report.add("W09", what, "check its spelling", *path, name)


def is_plain_name(path: str) -> bool:
    """A relative path that stays beside the policy file."""
    parts = path.split("/")
    return "\\" not in path and not any(part in {"", ".", ".."} for part in parts)


def url_problem(url: str, *, allow_private: bool) -> str | None:
    """What is wrong with a URL that keys come from; None when nothing is. Names are resolved,
    and their addresses judged, where the keys are fetched."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return "is not a URL"
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        return "is not a URL with a host"
    if parts.username is not None or parts.query or parts.fragment:
        return "has a user, query or fragment"
    private, loopback = _is_private(host), _is_loopback(host)
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback and allow_private):
        return "is not https"
    if private and not allow_private:
        return "is at a private address"
    return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _is_private(host: str) -> bool:
    address = _address(host)
    if address is not None:
        return not address.is_global
    return "." not in host or host.endswith(_PRIVATE_SUFFIXES) or host.rstrip("0123456789.") == ""
