"""The server's settings: one TOML file, environment overrides, and nothing else.

Read once, by `compose` and `cli` only. Every field says its meaning and unit in its
description, which is also what `init` writes into the file. A name that is not known is an
error and never ignored: a limit that was mistyped is a limit that is off. Secrets are paths.

An environment variable `SECURE_CACHE_<SECTION>__<NAME>` overrides the file (two underscores),
such as `SECURE_CACHE_SERVER__PORT=9000`; `SECURE_CACHE_POLICY`, `SECURE_CACHE_POLICY_TESTS` and
`SECURE_CACHE_KEYS` override the settings outside a section. Other variables without a double
underscore belong to the client commands (`SECURE_CACHE_SERVER`, `SECURE_CACHE_TOKEN`). Relative
paths are relative to the file, also when they come from the environment.
"""

from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Annotated[
        str, Meta(description="Address to listen on; 0.0.0.0 or :: for all. Put TLS in front.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port; 0 picks a free one.")] = 8642
    workers: Annotated[int, Meta(ge=1, le=64, description="Processes; one per core is plenty.")] = 1
    root_path: Annotated[
        str,
        Meta(
            pattern=r"\A(?:/[A-Za-z0-9._~-]+)*\Z",
            description="Path prefix under which everything is also served, such as /cache.",
        ),
    ] = ""
    strict_status: Annotated[
        bool,
        Meta(description="True HTTP statuses (413, 429, 503) instead of those that keep Nx green."),
    ] = False
    drain_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds that open requests get after SIGTERM.")
    ] = 30.0
    drain_notice_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=300,
            description="Seconds with a red /readyz before the port closes; for load balancers.",
        ),
    ] = 0.0
    keep_alive_seconds: Annotated[
        int,
        Meta(
            ge=95,
            le=3600,
            description="Seconds an idle connection stays open. Nx pools for 90: never below it.",
        ),
    ] = 125
    backlog: Annotated[
        int,
        Meta(ge=128, le=65535, description="Connections the kernel queues (net.core.somaxconn)."),
    ] = 4096
    max_connections: Annotated[
        int, Meta(ge=16, le=1_000_000, description="Open connections for each worker.")
    ] = 10_000


class Containers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A store without a container of its own stands in `storage.container`, under its name."""

    artifacts: Annotated[
        str | None, Meta(description="azure: of the bytes. The server never deletes.")
    ] = None
    records: Annotated[str | None, Meta(description="azure: of the signed entries. The same.")] = (
        None
    )
    tiles: Annotated[
        str | None,
        Meta(description="azure: of the log's full tiles. Lock it (WORM): nothing changes there."),
    ] = None
    head: Annotated[str | None, Meta(description="azure: of the log's head and checkpoint.")] = None
    pending: Annotated[
        str | None,
        Meta(description="azure: of the log's scratch. The only one that the server deletes in."),
    ] = None
    state: Annotated[str | None, Meta(description="azure: of used tokens, quarantine, memory.")] = (
        None
    )


class Storage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: Annotated[
        Literal["filesystem", "azure", "memory"],
        Meta(description="filesystem, azure, or memory (forgets everything; for tests)."),
    ] = "filesystem"
    path: Annotated[
        Path | None, Meta(description="filesystem: the folder of artifacts, records, log, state.")
    ] = None
    insecure_allow_network_filesystem: Annotated[
        bool,
        Meta(description="filesystem: run on NFS or SMB, whose locks and fsync may not hold."),
    ] = False
    container: Annotated[
        str | None,
        Meta(description="azure: the container of all stores that have none of their own."),
    ] = None
    account_name: Annotated[
        str | None,
        Meta(description="azure: the storage account, as in NAME.blob.core.windows.net."),
    ] = msgspec.field(default=None, name="accountName")
    endpoint: Annotated[
        str | None,
        Meta(description="azure: the account's URL, where it is not that; https, or loopback."),
    ] = None
    credential: Annotated[
        Literal[
            "managed-identity",
            "workload-identity",
            "service-principal",
            "azure-cli",
            "connection-string",
        ]
        | None,
        Meta(
            description="azure: managed-identity, workload-identity, service-principal, azure-cli"
            " or connection-string; the last also when AZURE_STORAGE_CONNECTION_STRING is set and"
            " nothing is chosen."
        ),
    ] = None
    ca_file: Annotated[
        Path | None, Meta(description="azure: certificates (PEM) to trust, not the system's.")
    ] = None
    allow_account_key: Annotated[
        bool,
        Meta(description="azure: accept an account key, which may do everything to the account."),
    ] = False
    require_worm: Annotated[
        bool,
        Meta(description="azure: refuse to start while tiles could be replaced or deleted."),
    ] = False
    role_wait_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=900,
            description="azure: how long a start waits for roles; new ones take up to 600 s.",
        ),
    ] = 120.0
    containers: Containers = Containers()


class LocalTier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: Annotated[
        Path | None,
        Meta(description="A folder of this machine that keeps what was verified; none: off."),
    ] = None
    max_bytes: Annotated[
        int, Meta(ge=1 << 20, description="How much it may hold; the least used goes first.")
    ] = 10 << 30


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_artifact_bytes: Annotated[
        int, Meta(ge=1, le=1 << 40, description="Largest artifact, in bytes.")
    ] = 2 << 30
    max_header_bytes: Annotated[
        int, Meta(ge=16384, le=65535, description="Request line and headers together, in bytes.")
    ] = 32768
    max_headers: Annotated[int, Meta(ge=16, le=1000, description="Headers of one request.")] = 100
    header_deadline_seconds: Annotated[
        float, Meta(gt=0, le=60, description="Seconds for all headers of a request to arrive.")
    ] = 10.0
    body_deadline_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds for a whole upload.")
    ] = 600.0
    min_bytes_per_second: Annotated[
        int, Meta(ge=1, description="Slowest client, up or down, in bytes a second.")
    ] = 8192
    grace_seconds: Annotated[
        float, Meta(gt=0, le=600, description="Seconds a client may fall behind that rate.")
    ] = 10.0
    max_open_requests: Annotated[
        int, Meta(ge=1, description="Requests at once for each worker; one Nx 24 run sends 300.")
    ] = 4096
    max_open_uploads: Annotated[
        int, Meta(ge=1, description="Uploads at once for each worker; each takes about 2 MiB.")
    ] = 256
    drain_bytes: Annotated[
        int, Meta(ge=0, description="Bytes of a refused upload read and forgotten, known caller.")
    ] = 64 << 20
    drain_seconds: Annotated[float, Meta(gt=0, le=60, description="Seconds for the same.")] = 10.0
    anonymous_drain_bytes: Annotated[
        int, Meta(ge=0, description="Bytes of a refused upload read and forgotten, no valid token.")
    ] = 64 << 20
    anonymous_drain_seconds: Annotated[
        float, Meta(gt=0, le=60, description="Seconds for the same.")
    ] = 2.0
    nx_only_keys: Annotated[
        bool, Meta(description="Accept only keys as Nx writes them (1 to 20 digits).")
    ] = False
    cached_records: Annotated[
        int, Meta(ge=0, description="Verified records kept in memory by each worker.")
    ] = 50_000
    cached_record_bytes: Annotated[
        int, Meta(ge=0, description="Bytes of memory for them, in each worker.")
    ] = 128 << 20
    cached_artifact_bytes: Annotated[
        int,
        Meta(ge=0, description="Bytes of memory for hot artifacts up to 32 KiB, in each worker."),
    ] = 64 << 20


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    commit_interval_seconds: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds between commits of the transparency log."),
    ] = 1.0
    max_pending: Annotated[
        int, Meta(ge=1, description="Entries that may wait for a commit; then uploads are refused.")
    ] = 10_000


class Witnesses(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    policy: Annotated[
        Path | None,
        Meta(description="The witness policy (C2SP tlog-policy); without it nobody is asked."),
    ] = None
    profile: Annotated[
        Literal["fail-open", "fail-closed"],
        Meta(
            description="fail-open publishes at once and adds cosignatures when they come;"
            " fail-closed publishes only what a quorum has cosigned, and holds back the rest."
        ),
    ] = "fail-open"
    timeout_seconds: Annotated[
        float, Meta(gt=0, le=60, description="Seconds for all witnesses together, each time.")
    ] = 2.0
    refresh_seconds: Annotated[
        float,
        Meta(ge=10, le=86_400, description="Seconds after which a cosignature is renewed."),
    ] = 600.0


class Audit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: Annotated[bool, Meta(description="Keep an index of the log for the audit API.")] = True
    index: Annotated[
        Path | None,
        Meta(
            description="Its file, on a local disk, one for each machine; by default"
            " audit/index.sqlite in storage.path. Where there is no storage.path: none."
        ),
    ] = None
    follow_seconds: Annotated[
        float, Meta(ge=0.1, le=3600, description="Seconds between looks for new entries.")
    ] = 2.0


class Tokens(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    session_ttl_seconds: Annotated[
        int, Meta(ge=60, le=21_600, description="Life of an exchanged session token, in seconds.")
    ] = 21_600
    cached_tokens: Annotated[
        int, Meta(ge=0, description="Verified tokens kept in memory by each worker (as SHA-256).")
    ] = 10_000


class Metrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    public: Annotated[
        bool,
        Meta(description="Serve /metrics (numbers, no names) to all; else an auditor's token."),
    ] = True


class Logging(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Annotated[
        Literal["json", "console"], Meta(description="json (one object a line) or console.")
    ] = "json"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="debug, info, warning or error."),
    ] = "info"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything. All paths are absolute after `load_settings`."""

    policy: Annotated[Path, Meta(description="The policy file.")]
    policy_tests: Annotated[
        Path | None, Meta(description="Its tests; they must pass before a policy takes effect.")
    ] = None
    policy_poll_seconds: Annotated[
        float,
        Meta(gt=0, le=3600, description="Seconds between looks; an edit acts within two of them."),
    ] = 0.5
    keys: Annotated[Path, Meta(description="The folder of signing keys, mode 0700, files 0600.")]
    storage: Storage
    local_tier: LocalTier = LocalTier()
    server: Server = Server()
    limits: Limits = Limits()
    log: Log = Log()
    witnesses: Witnesses = Witnesses()
    audit: Audit = Audit()
    tokens: Tokens = Tokens()
    metrics: Metrics = Metrics()
    logging: Logging = Logging()


def meaning(info: FieldInfo) -> str:
    """The description of a setting."""
    (meta,) = [item for item in get_args(info.type)[1:] if isinstance(item, Meta)]
    return meta.description or ""
