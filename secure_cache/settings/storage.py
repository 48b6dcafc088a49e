"""Which storage settings go together; what cannot be meant is refused before anything is done."""

import ipaddress
import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import fields

from secure_cache.model.errors import Misconfigured
from secure_cache.settings.schema import Containers, Storage, meaning

_CONTAINER = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_OWN = fields(Containers)
_AZURE = {
    "container",
    "accountName",
    "endpoint",
    "credential",
    "ca_file",
    "allow_account_key",
    "require_worm",
    "role_wait_seconds",
    "containers",
}
_BELONGS = {
    "filesystem": {"path", "insecure_allow_network_filesystem"},
    "azure": _AZURE,
    "memory": set[str](),
}


def check_storage(storage: Storage, path: Path) -> None:
    """The fields of one kind belong to that kind: a container beside a folder is a mistake
    about where the artifacts go.

    Raises:
        Misconfigured: names `path` and the setting.
    """
    for info in fields(Storage):
        given = getattr(storage, info.name) != info.default
        if given and info.encode_name not in _BELONGS[storage.kind] | {"kind"}:
            raise Misconfigured(
                f"{path}: storage.{info.encode_name} does not belong to kind {storage.kind}:"
                " remove it, or change storage.kind"
            )
    if storage.kind == "filesystem" and storage.path is None:
        raise _missing(path, "filesystem", "path")
    if storage.kind == "azure":
        _check_names(storage, path)
        _check_containers(storage, path)
        _check_endpoint(storage.endpoint, path)


def _missing(path: Path, kind: str, name: str) -> Misconfigured:
    (info,) = [info for info in fields(Storage) if info.encode_name == name]
    return Misconfigured(
        f"{path}: storage.{name} is missing: kind {kind} needs it: {meaning(info)}"
    )


def _check_names(storage: Storage, path: Path) -> None:
    names = {f"containers.{info.name}": getattr(storage.containers, info.name) for info in _OWN}
    for setting, name in {"container": storage.container, **names}.items():
        if name is not None and _CONTAINER.fullmatch(name) is None:
            raise Misconfigured(
                f"{path}: storage.{setting} = {name[:80]!a}: a container's name has 3 to 63 small"
                " letters, digits and single hyphens"
            )
    account = storage.account_name
    if account is not None and _ACCOUNT.fullmatch(account) is None:
        raise Misconfigured(
            f"{path}: storage.accountName = {account[:80]!a}: an account's name has 3 to 24 small"
            " letters and digits; an address is storage.endpoint"
        )


def _check_containers(storage: Storage, path: Path) -> None:
    """Every store has a place, and no two the same: rights are given for a container, and a
    store in the middle of another one would be listed, locked and swept with it."""
    own = {info.name: getattr(storage.containers, info.name) for info in _OWN}
    if storage.container is None and None in own.values():
        raise _missing(path, "azure", "container")
    count = Counter([name for name in own.values() if name is not None])
    for store, name in own.items():
        if name is not None and (count[name] > 1 or name == storage.container):
            raise Misconfigured(
                f"{path}: storage.containers.{store} = {name!r} is the container of another store"
                " too: give it one of its own, or leave it away"
            )


def _check_endpoint(endpoint: str | None, path: Path) -> None:
    if endpoint is None:
        return
    where = f"{path}: storage.endpoint"
    try:
        url = urlsplit(endpoint)
        url.port  # noqa: B018 - raises on a port that is none
    except ValueError:
        raise Misconfigured(f"{where} is not a URL: write https://HOST") from None
    if url.query or url.fragment or url.username is not None or not endpoint.isprintable():
        # Not repeated here: what stands there may be a shared access signature.
        raise Misconfigured(
            f"{where} has a query, fragment or user in it: a signature belongs into"
            " AZURE_STORAGE_CONNECTION_STRING"
        )
    host = url.hostname or ""
    if not host or not (url.scheme == "https" or (url.scheme == "http" and _is_loopback(host))):
        raise Misconfigured(
            f"{where} = {endpoint[:80]!a}: write https://HOST; http is for loopback only,"
            " since tokens and bytes pass there"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
