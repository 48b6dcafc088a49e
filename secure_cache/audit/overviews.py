"""What is derived from the policy in force and the index together."""

from collections.abc import Callable

from secure_cache.audit.auditor import Auditor
from secure_cache.audit.namespaces import Namespaces, NamespacesView
from secure_cache.audit.policy_history import PolicyHistory
from secure_cache.audit.taken import ActiveRevocation, Revocations
from secure_cache.model.clock import Clock
from secure_cache.policy.compile import CompiledPolicy


class Overviews:
    """Answers. Methods raise StorageUnavailable, LogInconsistent and DamagedIndex."""

    def __init__(
        self,
        *,
        auditor: Auditor,
        history: PolicyHistory,
        policy: Callable[[], CompiledPolicy],
        clock: Clock,
    ) -> None:
        self._namespaces = Namespaces(auditor, policy)
        self._revocations = Revocations(
            auditor=auditor, history=history, policy=policy, clock=clock
        )

    async def namespaces(self, limit: int = 200) -> NamespacesView:
        """Who may read whom, and what was written; the `limit` fullest namespaces."""
        return await self._namespaces.view(limit=limit)

    async def revocations(self) -> tuple[ActiveRevocation, ...]:
        """What the policy in force takes back, since when, and what it covers."""
        return await self._revocations.active()
