"""What is made of the rights and policies that a storage turns out to have."""

from dataclasses import replace

import pytest

from secure_cache.compose.azure import NEEDS, Place
from secure_cache.compose.posture import (
    OK,
    WEAKER,
    Posture,
    examine,
    prove,
    prove_patiently,
    role_wait_seconds,
)
from secure_cache.compose.stores import Stores
from secure_cache.model.errors import (
    Misconfigured,
    NotFound,
    StorageForbidden,
    StorageUnavailable,
)
from secure_cache.settings import Storage
from secure_cache.storage.capabilities import StoreCapabilities
from secure_cache.storage.memory import AlwaysTurn, MemoryStore

pytestmark = pytest.mark.anyio

LEAST = {
    name: StoreCapabilities(
        can_create=True,
        create_is_conditional=True,
        can_replace=need.replace or need.write,
        replace_is_conditional=True if need.replace or need.write else None,
        can_delete=need.delete,
        clock_skew_seconds=0.4,
    )
    for name, need in NEEDS.items()
}
"""What ADR 17 lists, and nothing beyond it."""

LOCKED = replace(LEAST["tiles"], overwrite_refused=True, delete_refused=True)


class Tried(MemoryStore):
    """A store that grants what it is told, and may refuse to be asked at all."""

    def __init__(self, granted, errors=()):
        super().__init__()
        self.granted = granted
        self.errors = list(errors)
        self.probed = 0

    async def head(self, name):
        if self.errors:
            raise self.errors.pop(0)
        raise NotFound(name)

    async def probe(self):
        self.probed += 1
        return self.granted


def stores_of(**changed):
    granted = {**LEAST, "tiles": LOCKED, **changed}
    tried = {
        name: item if isinstance(item, Tried) else Tried(item) for name, item in granted.items()
    }
    where = {name: Place("nx-cache", f"{name}/", "a.blob.example", "a") for name in NEEDS}
    return Stores(**tried, turn=AlwaysTurn(), where=where)


async def test_the_least_that_is_needed_and_a_lock_are_in_order():
    posture = await prove(stores_of())
    assert posture.weaknesses() == ()
    assert posture.word == OK
    posture.require_worm()


@pytest.mark.parametrize("name", sorted(set(NEEDS) - {"pending"}))
async def test_a_right_to_delete_that_nobody_needs_is_told(name):
    granted = replace(LOCKED if name == "tiles" else LEAST[name], can_delete=True)
    posture = await prove(stores_of(**{name: granted}))
    assert [line.partition(":")[0] for line in posture.weaknesses()] == [name]
    assert posture.word == WEAKER


@pytest.mark.parametrize(
    "tiles",
    [
        LEAST["tiles"],
        replace(LEAST["tiles"], overwrite_refused=True),
        replace(LEAST["tiles"], delete_refused=True),
    ],
    ids=["nothing", "overwrite alone", "delete alone"],
)
async def test_tiles_without_a_whole_lock_are_told_and_refused_where_one_is_required(tiles):
    """That our own identity may not is no lock: another identity may."""
    posture = await prove(stores_of(tiles=tiles))
    assert ["WORM" in line for line in posture.weaknesses()] == [True]
    with pytest.raises(Misconfigured, match="require_worm"):
        posture.require_worm()


async def test_a_folder_is_not_said_to_be_weak_and_cannot_be_locked():
    memory = {name: MemoryStore() for name in NEEDS}
    posture = await prove(Stores(**memory, turn=AlwaysTurn()))
    assert (posture.stores, posture.word) == ({}, OK)
    with pytest.raises(Misconfigured, match="require_worm"):
        posture.require_worm()


async def test_clocks_that_differ_are_told():
    posture = Posture({**LEAST, "tiles": replace(LOCKED, clock_skew_seconds=-95.0)})
    assert posture.weaknesses() == ("clock: this machine and the storage differ by 95 s",)


LACKS = [
    ("artifacts", {"can_replace": False, "replace_is_conditional": None}, "may not write blocks"),
    ("records", {"can_replace": False, "replace_is_conditional": None}, "may not replace"),
    ("tiles", {"can_create": False}, "may not create"),
    ("head", {"can_replace": False, "replace_is_conditional": None}, "may not replace"),
    ("pending", {"can_delete": False}, "may not delete"),
    ("state", {"can_replace": False, "replace_is_conditional": None}, "may not replace"),
]


@pytest.mark.parametrize(("name", "change", "said"), LACKS)
async def test_each_right_that_is_needed_is_asked_for(name, change, said):
    stores = stores_of(**{name: replace(LEAST[name], **change)})
    with pytest.raises(StorageForbidden, match=said) as caught:
        await prove(stores)
    assert f"store {name} (nx-cache/{name}/ at a.blob.example)" in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"create_is_conditional": False}, {"replace_is_conditional": False}]
)
@pytest.mark.parametrize("name", sorted(NEEDS))
async def test_conditions_that_are_not_honoured_refuse_a_start_wherever_they_are(name, change):
    with pytest.raises(Misconfigured, match=f"store {name}"):
        await prove(stores_of(**{name: replace(LEAST[name], **change)}))


async def test_artifacts_under_a_lock_of_their_own_are_accepted():
    granted = replace(LEAST["artifacts"], can_replace=False, overwrite_refused=True)
    assert (await prove(stores_of(artifacts=granted))).word == OK


async def test_examining_goes_on_after_the_first_thing_that_lacks():
    changed = {name: replace(LEAST[name], **change) for name, change, _ in LACKS}
    examined = await examine(stores_of(**changed), require_worm=True)
    assert [line.partition(":")[0] for line in examined.lacks[:-1]] == list(NEEDS)
    assert "require_worm" in examined.lacks[-1]
    assert set(examined.posture.stores) == set(NEEDS)


def role_error():
    return StorageForbidden("head x: 403 AuthorizationPermissionMismatch: the identity lacks")


async def waited_for(stores, seconds):
    pauses, told = [], []

    async def pause(duration):
        pauses.append(duration)

    try:
        await prove_patiently(stores, wait_seconds=seconds, tell=told.append, pause=pause)
    except StorageForbidden as error:
        return pauses, told, error
    return pauses, told, None


async def test_a_role_on_its_way_is_waited_for_and_told_once():
    stores = stores_of(head=Tried(LEAST["head"], [role_error() for _ in range(4)]))
    pauses, told, error = await waited_for(stores, 600)
    assert error is None
    assert pauses == [0.5, 1.0, 2.0, 4.0]
    assert len(told) == 1
    assert "store head" in told[0]


async def test_a_right_that_the_probe_misses_is_waited_for_too():
    stores = stores_of(pending=replace(LEAST["pending"], can_delete=False))
    pauses, told, error = await waited_for(stores, 20)
    assert "may not delete" in str(error)
    assert sum(pauses) >= 20
    assert len(told) == 1


async def test_the_wait_has_an_end():
    stores = stores_of(head=Tried(LEAST["head"], [role_error() for _ in range(1000)]))
    pauses, _, error = await waited_for(stores, 120)
    assert "store head" in str(error)
    assert 120 <= sum(pauses) <= 125


@pytest.mark.parametrize(
    "text",
    [
        "head x: 403 AuthorizationFailure: the key is wrong",
        "head x: 403 AuthenticationFailed: the key, token or signature is wrong or expired",
        "head x: no token could be got for the server's identity: AADSTS700016",
    ],
)
async def test_a_refusal_that_no_waiting_mends_is_told_at_once(text):
    stores = stores_of(head=Tried(LEAST["head"], [StorageForbidden(text)]))
    pauses, told, error = await waited_for(stores, 600)
    assert (pauses, told) == ([], [])
    assert text in str(error)


async def test_an_outage_at_the_start_is_neither_waited_for_nor_called_forbidden():
    stores = stores_of(state=Tried(LEAST["state"], [StorageUnavailable("no connection")]))
    with pytest.raises(StorageUnavailable, match=r"store state .* no connection"):
        await waited_for(stores, 600)


async def test_a_missing_container_is_told_with_both_cures():
    gone = Misconfigured("head x: 404 ContainerNotFound: the container does not exist")
    with pytest.raises(Misconfigured) as caught:
        await prove(stores_of(records=Tried(LEAST["records"], [gone])))
    text = str(caught.value)
    assert "az storage container create --name nx-cache --account-name a --auth-mode login" in text
    assert "secure-cache storage create" in text


@pytest.mark.parametrize(
    ("storage", "environ", "seconds"),
    [
        (Storage(kind="filesystem"), {}, 0.0),
        (Storage(kind="azure", credential="managed-identity"), {}, 120.0),
        (Storage(kind="azure", credential="connection-string"), {}, 0.0),
        (Storage(kind="azure"), {}, 0.0),
    ],
)
def test_only_roles_are_waited_for(storage, environ, seconds):
    environ = {**environ, "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a"}
    assert role_wait_seconds(storage, environ) == seconds
