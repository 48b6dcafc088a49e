"""Searching in the console: pages forth and back, and what a look at it costs."""

import anyio
import pytest
from fakes.app_world import AppWorld
from fakes.audit_desk import FAST, stored
from fakes.console_visitor import visiting, why

from secure_cache.http.console.overview import Shared
from secure_cache.model.errors import StorageUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path):
    return AppWorld(tmp_path, **FAST)


def numbers(page):
    """Of the entries on a page, as they stand."""
    found = [link.rpartition("/")[2] for link in page.links() if "/entries/" in link]
    return [int(number) for number in found]


def leads(page, rel):
    found = page.all("a", rel=rel)
    return found[0]["href"].removeprefix("/audit/") if found else None


async def walk(visitor, path, rel):
    pages = []
    while path is not None:
        page = await visitor.page(path)
        pages.append(page)
        path = leads(page, rel)
    return pages


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_pages_lead_forth_and_back_over_the_same_entries(world, order):
    async with visiting(world) as visitor:
        await stored(world, world.main(), *map(str, range(110)))
        await visitor.indexed(110)
        forth = await walk(visitor, f"search?event=stored&order={order}", "next")
        assert [len(numbers(page)) for page in forth] == [50, 50, 10]
        assert leads(forth[0], "prev") is None
        back = await walk(visitor, leads(forth[2], "prev"), "prev")
        assert [numbers(page) for page in back] == [numbers(forth[1]), numbers(forth[0])]
        assert numbers(await visitor.page(leads(back[1], "next"))) == numbers(forth[1])
        every = [number for page in forth for number in numbers(page)]
        assert every == sorted(every, reverse=order == "newest")
        assert len(set(every)) == 110


async def test_a_wrong_question_says_which_and_shows_nothing(world):
    async with visiting(world) as visitor:
        for query, says in (
            ("subjct=x", "no parameter 'subjct'"),
            ("limit=5", "no parameter 'limit'"),
            ("order=upwards", "order: one of newest, oldest"),
            ("order=newest&order=oldest", "order: exactly one value"),
            ("group=colour", "group: one of"),
            ("after=x", "after: a whole number"),
            ("before=-1", "before: a whole number"),
            ("tier=root", "tier"),
        ):
            answer = await visitor.visit(f"search?{query}")
            assert answer.status_code == 400, query
            assert says in why(answer), (query, why(answer))
            assert 'id="found"' not in answer.text, query
        for query in ("tier=&subject=&order=newest&group=", "tier=trusted&tier=candidate"):
            assert (await visitor.visit(f"search?{query}")).status_code == 200, query


async def test_many_who_look_at_once_cost_one_look():
    looks = []

    async def look():
        looks.append(1)
        await anyio.sleep(0.01)
        return {"number": len(looks)}

    shared = Shared(seconds=3600)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(shared.get, look)
    assert await shared.get(look) == {"number": 1}
    assert len(looks) == 1

    fresh = Shared(seconds=0)
    assert [await fresh.get(look), await fresh.get(look)] == [{"number": 2}, {"number": 3}]


async def test_a_look_that_failed_is_not_kept():
    async def fail():
        raise StorageUnavailable("away")

    async def look():
        return {}

    shared = Shared(seconds=3600)
    with pytest.raises(StorageUnavailable):
        await shared.get(fail)
    assert await shared.get(look) == {}
