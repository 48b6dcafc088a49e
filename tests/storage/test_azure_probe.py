"""What the probe finds out about a container, and that it believes nothing else."""

import anyio
import pytest
from fakes.azure import account_of, azure_store, fresh_prefix, shared_container
from world.fault_proxy import FaultProxy
from world.wire_faults import Answer, Pass, azure_error

from secure_cache.model.errors import Misconfigured, StorageForbidden, StorageUnavailable
from secure_cache.storage.capabilities import StoreCapabilities

pytestmark = pytest.mark.anyio

IMMUTABLE = azure_error(409, "BlobImmutableDueToPolicy")
NO_ROLE = azure_error(403, "AuthorizationPermissionMismatch")


@pytest.fixture
def proxy(azurite):
    with FaultProxy(azurite.port) as proxy:
        yield proxy


@pytest.fixture
async def store(azurite, proxy):
    store = azure_store(azurite, port=proxy.port)
    yield store
    await store.close()


def overwrites(seen) -> bool:
    return seen.method == "PUT" and "if-match" in seen.headers


async def test_everything_is_allowed_to_the_owner(store):
    for _ in range(2):
        found = await store.probe()
        assert found == StoreCapabilities(
            can_create=True,
            create_is_conditional=True,
            can_replace=True,
            replace_is_conditional=True,
            can_delete=True,
            clock_skew_seconds=found.clock_skew_seconds,
        )
        assert abs(found.clock_skew_seconds) < 5
        assert not found.immutable
    assert [info async for info in store.list("")] == []


async def test_many_processes_may_probe_at_once(azurite):
    account = account_of(azurite)
    stores = [account.store(shared_container(azurite), "probed/", name="s") for _ in range(12)]
    found: list[StoreCapabilities] = []

    async def probe(store) -> None:
        found.append(await store.probe())

    async with anyio.create_task_group() as tasks:
        for store in stores:
            tasks.start_soon(probe, store)
    await account.close()
    assert {(one.can_create, one.can_replace, one.can_delete) for one in found} == {
        (True, True, True)
    }


async def test_a_locked_container_is_recognized_by_both_refusals(store, proxy):
    proxy.when(IMMUTABLE, where=overwrites)
    proxy.when(IMMUTABLE, method="DELETE")
    for _ in range(2):
        found = await store.probe()
        assert found.immutable
        assert not found.can_replace
        assert not found.can_delete
    await store.check()


@pytest.mark.parametrize("half", ["overwrite", "delete"])
async def test_half_a_lock_is_none(store, proxy, half):
    if half == "overwrite":
        proxy.when(IMMUTABLE, where=overwrites)
    else:
        proxy.when(IMMUTABLE, method="DELETE")
    found = await store.probe()
    assert (found.overwrite_refused, found.delete_refused) == (
        half == "overwrite",
        half == "delete",
    )
    assert not found.immutable


async def test_a_missing_role_is_not_taken_for_a_lock(store, proxy):
    proxy.when(NO_ROLE, where=overwrites)
    proxy.when(NO_ROLE, method="DELETE")
    found = await store.probe()
    assert not found.can_replace
    assert not found.can_delete
    assert not found.overwrite_refused
    assert not found.delete_refused


async def test_a_role_that_only_creates_is_told_apart_where_that_is_possible(store, proxy):
    assert (await store.probe()).can_create is True
    proxy.when(NO_ROLE, method="PUT")
    assert (await store.probe()).can_create is None


@pytest.mark.parametrize("what", ["replace", "delete"])
async def test_check_demands_what_the_store_must_do(azurite, proxy, what):
    account = account_of(azurite, port=proxy.port)
    store = account.store(
        shared_container(azurite),
        fresh_prefix(),
        name="head",
        must_replace=what == "replace",
        must_delete=what == "delete",
    )
    await store.check()
    if what == "replace":
        proxy.when(NO_ROLE, where=overwrites)
    else:
        proxy.when(NO_ROLE, method="DELETE")
    with pytest.raises(StorageForbidden, match=f"head: .*{what}"):
        await store.check()
    await account.close()


CREATED = Answer(
    201,
    {
        "ETag": '"0x1"',
        "Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT",
        "x-ms-version": "2026-06-06",
    },
)


async def test_a_storage_that_overwrites_on_create_is_refused(store, proxy):
    await store.probe()
    proxy.when(CREATED, where=lambda seen: seen.headers.get("if-none-match") == "*")
    with pytest.raises(Misconfigured, match="overwrites"):
        await store.check()


async def test_a_storage_that_replaces_in_spite_of_another_version_is_refused(store, proxy):
    await store.probe()
    proxy.when(CREATED, where=overwrites)
    with pytest.raises(Misconfigured, match="another version"):
        await store.check()


async def test_a_probe_object_with_other_bytes_is_refused(store):
    container = store._container
    await container.client().upload_blob(f"{container.prefix}.probe/kept", b"something else")
    with pytest.raises(Misconfigured, match="other bytes"):
        await store.check()


async def test_an_account_that_lists_folders_is_refused(store):
    container = store._container
    await container.client().upload_blob(f"{container.prefix}.probe", b"")
    with pytest.raises(Misconfigured, match="hierarchical"):
        await store.check()


async def test_an_outage_is_no_answer(store, proxy):
    proxy.when(Pass(), method="GET")
    proxy.when(azure_error(503, "ServerBusy"))
    with pytest.raises(StorageUnavailable):
        await store.probe()


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (StoreCapabilities(can_create=False), StorageForbidden),
        (StoreCapabilities(can_create=True, create_is_conditional=False), Misconfigured),
        (StoreCapabilities(can_create=True, replace_is_conditional=False), Misconfigured),
    ],
    ids=["no-create", "overwrites", "ignores-versions"],
)
def test_what_no_store_may_be(found, error):
    with pytest.raises(error, match="records"):
        found.require(store="records", must_replace=False, must_delete=False)
