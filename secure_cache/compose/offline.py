"""What the operator's commands need of an installation, without a server.

They may run beside one: nothing here writes.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from secure_cache.compose.stores import Stores, open_stores, opened
from secure_cache.compose.witnessing import contradictions_of, log_reader
from secure_cache.core.keystore import Keystore, load_keystore
from secure_cache.core.log_memory import LogMemory
from secure_cache.core.policy_file import read_policy
from secure_cache.core.reconcile import unlogged_records
from secure_cache.identity.fetch import KeyFetcher
from secure_cache.identity.issue import Ed25519TokenSigner, Grant, IssuedToken, TokenIssuer
from secure_cache.identity.jwks import IssuerKeys
from secure_cache.identity.keys import ed25519_key_set
from secure_cache.identity.presets import load_presets
from secure_cache.identity.verifier import TokenVerifier
from secure_cache.model.clock import Clock
from secure_cache.model.errors import LogInconsistent, Misconfigured, Revoked
from secure_cache.model.identity import Identity
from secure_cache.policy.compile import CompiledPolicy
from secure_cache.policy.decision import Decision
from secure_cache.policy.parse import parse_policy
from secure_cache.settings import Settings
from secure_cache.storage import layout
from secure_cache.tlog.fsck import Finding, Report, fsck
from secure_cache.tlog.note import NoteSigner


@dataclass(frozen=True, slots=True)
class Judged:
    """Who a token proves to be, and what the policy decides for it today."""

    identity: Identity
    decision: Decision


@dataclass(frozen=True, slots=True)
class Offline:
    """An installation's policy and keys, as they are on disk now."""

    settings: Settings
    policy: CompiledPolicy
    keystore: Keystore
    clock: Clock

    async def issue(
        self, grant: Grant, *, ttl_seconds: int, new_id: Callable[[], str]
    ) -> tuple[IssuedToken, Judged]:
        """A token that the server would accept now.

        Raises:
            Malformed: a name or the lifetime is not legal.
            Misconfigured: the policy has no such project, no issuer with preset `self`, or no
                rule that says anything for such a token.
        """
        file = self.settings.policy
        if grant.project not in self.policy.projects:
            known = ", ".join(self.policy.projects)
            raise Misconfigured(
                f"{file} has no project {grant.project!r}: add it, or use one of: {known}"
            )
        issuer = self.policy.issuer(self.policy.audience)
        if issuer is None or not issuer.preset.self_issued:
            raise Misconfigured(
                f"{file} has no issuer for tokens of this server:"
                " add `self: {preset: self}` under issuers, and to the project's issuers"
            )
        signer = Ed25519TokenSigner(self.keystore.token_signer(self.clock()).private_key)
        maker = TokenIssuer(signer, self.policy.audience, self.clock, new_id)
        issued = maker.issue_token(grant, ttl_seconds=ttl_seconds)
        judged = await self.judge(issued.token)
        if not judged.decision.allowed:
            raise Misconfigured(
                f"{file} would refuse such a token: {judged.decision.reason}:"
                " see `secure-cache policy explain`"
            )
        return issued, judged

    async def judge(self, token: str) -> Judged:
        """Verify as the server does, also with the network where the issuer's keys are there.

        Raises:
            InvalidToken, ExpiredToken: it proves nothing, or no more.
            Revoked: the policy takes it back.
            Unavailable: the issuer's keys cannot be had.
        """
        own_keys = ed25519_key_set(self.keystore.token_public_keys(self.clock()).values())
        async with IssuerKeys(
            fetcher=KeyFetcher(),
            policy_directory=self.settings.policy.parent,
            clock=self.clock,
        ) as issuer_keys:
            verifier = TokenVerifier(
                policy=lambda: self.policy,
                issuer_keys=issuer_keys,
                own_keys=lambda: own_keys,
                clock=self.clock,
            )
            identity = await verifier.verify(token)
        hidden = self.policy.refuses_token(identity, now=self.clock())
        if hidden is not None:
            raise Revoked(f"{hidden.why}: {hidden.line} in {self.settings.policy}")
        return Judged(identity, self.policy.decide(identity))


def open_offline(settings: Settings, clock: Clock) -> Offline:
    """Read policy and keys.

    Raises:
        Misconfigured: one of them cannot be used; says which file, and what to do.
    """
    policy = parse_policy(
        read_policy(settings.policy),
        name=str(settings.policy),
        presets=load_presets(),
        now=clock(),
        tests=None if settings.policy_tests is None else read_policy(settings.policy_tests),
    )
    return Offline(settings, policy, load_keystore(settings.keys), clock)


async def check_log(settings: Settings, *, wait: Callable[[], Awaitable[None]]) -> Report:
    """Derive the whole log anew from its entries, and compare.

    Differences are looked for twice: beside a running server, one look may fall between two of
    its writes.

    Args:
        settings: of the installation.
        wait: called between the two looks.

    Raises:
        Misconfigured: the keys or the store's folder are not there.
        StorageUnavailable, StorageForbidden: the store cannot be read, so nothing is known.
    """
    signer = load_keystore(settings.keys).log
    async with opened(open_stores(settings.storage)) as stores:
        for look_again in (True, False):
            report = await _check_once(stores, signer)
            if not report.findings or not look_again:
                break
            await wait()
        return report


async def _check_once(stores: Stores, signer: NoteSigner) -> Report:
    """The log itself; then, if it is sound, what other stores say of it."""
    verifiers = [signer.verifier]
    report = await fsck(
        tiles=stores.tiles,
        head=stores.head,
        pending=stores.pending,
        verifiers=verifiers,
        origin=signer.name,
    )
    if report.findings:
        return report
    log = log_reader(stores, signer)
    memory = LogMemory(state=stores.state, log=log, verifier=signer.verifier, origin=signer.name)
    try:
        await memory.check()
        await contradictions_of(stores, signer, log).check()
    except LogInconsistent as error:
        rolled_back = Finding(layout.CHECKPOINT, str(error), "keep everything as evidence")
        return replace(report, findings=(rolled_back,))
    findings = await unlogged_records(records=stores.records, pending=stores.pending, log=log)
    return replace(report, findings=findings)
