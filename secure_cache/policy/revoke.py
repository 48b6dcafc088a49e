"""What the policy takes back: tokens that it refuses, entries that it hides.

An entry is judged by who wrote it, anew at each read: a revocation may name the writer, the
namespace's epoch may have moved on, and today's rules must still grant the writer this very
namespace at the tier that the entry was written at.

Why the tiers must be equal, both ways. *Upgrade*: a namespace that contributors wrote becomes
trusted. Its old entries were written under weaker conditions, so they stay hidden, although the
same writer would be trusted now. *Downgrade*: a namespace loses its trust. Its old entries are
hidden too, since whoever takes trust back means the past as well; if the namespace becomes trusted
again they are visible again, and what contributors wrote meanwhile is not. An epoch or a revocation
drops entries for good.
"""

from collections.abc import Mapping

from secure_cache.model.entry import Entry
from secure_cache.model.identity import ClaimValue, Identity
from secure_cache.policy.compiled import Revocation, Tables
from secure_cache.policy.conditions import FACTS, says
from secure_cache.policy.decide import Job, decide, find_job
from secure_cache.policy.decision import Decision, Hidden, Issuer

ENTRY_ONLY = frozenset({"key", "policy_sha256"})
"""A revocation that names one of these speaks of entries alone: no token has them."""


def refuses_token(tables: Tables, identity: Identity, *, now: float) -> Hidden | None:
    """The first revocation that covers this token."""
    if not tables.revocations:
        return None
    # A token without a time of issue is taken to be of now.
    moment = identity.issued_at or int(now)
    facts: dict[str, ClaimValue] | None = None
    for revocation in tables.revocations:
        if not _covers_time(revocation, moment):
            continue
        if facts is None:
            facts = _token_facts(tables, identity)
        if _covers(revocation, facts):
            return _revoked(revocation)
    return None


def hides(tables: Tables, entry: Entry, *, now: float) -> Hidden | None:
    """Why `entry` is not served today: revocation, then epoch, then today's rules."""
    # A clock that ran ahead cannot put an entry behind a revocation that is open until now.
    moment = min(entry.stored_at, int(now))
    facts: dict[str, ClaimValue] | None = None
    for revocation in tables.revocations:
        if not _covers_time(revocation, moment):
            continue
        if facts is None:
            facts = _entry_facts(tables, entry)
        if _covers(revocation, facts):
            return _revoked(revocation)
    if entry.epoch < tables.epochs.get(str(entry.namespace), 0):
        return Hidden(
            f"written in epoch {entry.epoch} of {entry.namespace}, which has ended",
            f"epoch of {entry.namespace}",
            taken_back=True,
        )
    return _judge_writer(entry, decide(tables, entry.writer))


def _judge_writer(entry: Entry, today: Decision) -> Hidden | None:
    if not today.allowed:
        return Hidden(f"today its writer is denied: {today.reason}", "default deny")
    line = f"rule {today.rule}"
    if today.write != entry.namespace:
        return Hidden("today its writer may not write this namespace", line)
    if today.tier is not entry.tier:
        return Hidden(f"written as {entry.tier}, and the namespace is {today.tier} today", line)
    return None


def _covers_time(revocation: Revocation, moment: int) -> bool:
    if revocation.since is not None and moment < revocation.since:
        return False
    return revocation.until is None or moment <= revocation.until


def _covers(revocation: Revocation, facts: Mapping[str, ClaimValue]) -> bool:
    return all(says(facts.get(key), values) for key, values in revocation.match)


def _revoked(revocation: Revocation) -> Hidden:
    why, line = f"covered by the revocation {revocation.id}", f"revocation {revocation.id}"
    return Hidden(why, line, taken_back=True)


def _token_facts(tables: Tables, identity: Identity) -> dict[str, ClaimValue]:
    facts = _writer_facts(tables, identity)
    job = find_job(tables, identity)
    if isinstance(job, Job):
        decision = decide(tables, identity)
        facts["project"] = job.project.name
        facts["rule"] = decision.rule
        facts["namespace"] = None if job.own is None else str(job.own)
    return facts


def _entry_facts(tables: Tables, entry: Entry) -> dict[str, ClaimValue]:
    return _writer_facts(tables, entry.writer) | {
        "project": entry.namespace.project,
        "rule": entry.rule,
        "namespace": str(entry.namespace),
        "key": str(entry.key),
        "policy_sha256": entry.policy_sha256,
    }


def fact_claims(issuer: Issuer) -> Mapping[str, str]:
    """Which claims of an issuer's tokens hold the facts: as the preset says, else as the admin
    has mapped them, else of the same name."""
    mapped = {what: claim for what, claim in issuer.options.claim_names if what in FACTS}
    return {fact: fact for fact in FACTS} | mapped | dict(issuer.preset.facts)


def _writer_facts(tables: Tables, identity: Identity) -> dict[str, ClaimValue]:
    """What the two have in common. The issuer answers to its name then, its name today and its
    `iss`, so that a renamed issuer does not escape."""
    claims = identity.claim_map
    issuer = tables.issuers.get(identity.iss)
    names: Mapping[str, str] = {} if issuer is None else fact_claims(issuer.issuer)
    facts: dict[str, ClaimValue] = {
        # Those of the index too: an admin who maps a name to another claim takes nothing out of
        # the reach of a revocation that copies what an auditor has found.
        fact: tuple(claims.get(name) for name in (names.get(fact, fact), *usual))
        for fact, usual in FACTS.items()
    }
    known = () if issuer is None else (issuer.issuer.name,)
    facts["issuer"] = (identity.issuer, identity.iss, *known)
    facts["subject"] = identity.subject
    facts["jti_sha256"] = identity.token_id
    facts["tid"] = identity.family
    return facts
