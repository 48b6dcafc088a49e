"""`secure-cache audit`."""

from secure_cache.cli.lazy import Lazy, LazyGroup


class _Audit(LazyGroup):
    lazy = {  # noqa: RUF012 - a class constant of click's making
        "query": Lazy("secure_cache.cli.audit_query", "Find entries of the log, or count them."),
        "show": Lazy("secure_cache.cli.audit_query", "Show one entry, its proof and its state."),
        "policies": Lazy(
            "secure_cache.cli.audit_policies", "Which policy was in force, and what it changed."
        ),
        "prove": Lazy("secure_cache.cli.audit_proofs", "Write the proof of one entry to files."),
        "verify-proof": Lazy("secure_cache.cli.audit_proofs", "Verify such a proof, offline."),
        "verify": Lazy(
            "secure_cache.cli.audit_proofs", "Did the cache serve this file, and whose?"
        ),
        "compare": Lazy("secure_cache.cli.audit_compare", "Does one checkpoint continue another?"),
        "impact": Lazy("secure_cache.cli.audit_impact", "What a revocation would hide."),
        "monitor": Lazy("secure_cache.cli.audit_monitor", "Tell what is unexpected in the log."),
        "mirror": Lazy("secure_cache.cli.audit_mirror", "Copy the log, and verify all of it."),
        "index": Lazy("secure_cache.cli.audit_index", "Check an audit index, or make it anew."),
    }


audit_command = _Audit(
    "audit", help="The auditor's side: who wrote what, and can it be proved.", no_args_is_help=True
)
