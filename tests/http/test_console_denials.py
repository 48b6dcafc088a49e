"""The page of what was refused: narrowed, grouped, and honest about what is not known."""

import pytest
from fakes.app_world import AppWorld
from fakes.audit_desk import FAST
from fakes.console_visitor import visiting, why

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path):
    return AppWorld(tmp_path, **FAST)


async def refusals(world):
    developer = world.own(role="developer")
    for _ in range(3):
        assert (await world.put(developer, "1", b"x")).status_code == 403
    assert (await world.put(None, "1", b"x")).status_code == 403
    assert (await world.get("not.a.token", "1")).status_code == 401


def table(answer):
    """The rows of the page, as their cells' texts."""
    body = answer.text.partition("<tbody>")[2].partition("</tbody>")[0]
    found = []
    for row in body.split("</tr>")[:-1]:
        cells = [cell.partition(">")[2].split("</td>")[0] for cell in row.split("<td")[1:]]
        found.append(tuple(_text(cell) for cell in cells[:-1]))
    return found


def _text(html):
    out, inside = [], False
    for character in html:
        inside = character == "<" or (inside and character != ">")
        if not inside and character != ">":
            out.append(character)
    return " ".join("".join(out).split())


async def test_what_was_refused_is_counted_and_narrowed(world):
    async with visiting(world) as visitor:
        await refusals(world)
        query = {"group": ["method", "code", "who", "rule"]}
        answer = await visitor.visit("denials", params=query)
        assert answer.status_code == 200
        assert table(answer) == [
            ("PUT", "denied the policy does not allow this", "known", "developer", "3"),
            ("GET", "token-invalid the token is not valid", "unproved", "not known", "1"),
            ("PUT", "denied the policy does not allow this", "anonymous", "not known", "1"),
        ]
        assert "5 refused" in answer.text
        for narrowed, counts in (
            ({"method": "GET"}, ["1"]),
            ({"who": "known", "rule": "developer"}, ["3"]),
            ({"code": "denied"}, ["3", "1"]),
            ({"rule": "nobody"}, []),
        ):
            found = table(await visitor.visit("denials", params=query | narrowed))
            assert [row[-1] for row in found if len(row) > 1] == counts, narrowed


async def test_the_form_comes_back_as_it_was_sent_and_its_empty_fields_are_none(world):
    async with visiting(world) as visitor:
        await refusals(world)
        query = {"since": "", "until": "", "method": "PUT", "who": "", "group": ["hour", "who"]}
        answer = await visitor.visit("denials", params=query)
        assert answer.status_code == 200
        page = await visitor.page("denials?method=PUT&group=hour&group=who")
        assert [option["value"] for option in page.all("option") if "selected" in option] == ["PUT"]
        checked = [box["value"] for box in page.all("input", type="checkbox") if "checked" in box]
        assert checked == ["hour", "who"]
        links = [link for link in page.links() if "who=anonymous" in link]
        assert links == ["/audit/denials?group=hour&group=who&method=PUT&who=anonymous"]


async def test_a_wrong_question_says_which_and_shows_nothing(world):
    async with visiting(world) as visitor:
        await refusals(world)
        for query, says in (
            ("colour=red", "no parameter 'colour'"),
            ("methd=PUT", "no parameter 'methd'"),
            ("group=colour", "group: one of"),
            ("method=PUT&method=GET", "method: exactly one value"),
            ("since=2020-01-01&until=2021-01-01", "since: at most 31 days"),
            ("since=2021-01-01&until=2020-01-01", "until: before since"),
            ("since=yesterday", "since"),
            ("rule=" + "a" * 301, "rule: at most 300 characters"),
        ):
            answer = await visitor.visit(f"denials?{query}")
            assert answer.status_code == 400, query
            assert says in why(answer), (query, why(answer))
            assert "refused</h2>" not in answer.text


async def test_what_a_link_asks_for_is_text(world):
    async with visiting(world) as visitor:
        for text in ("<script>alert(1)</script>", '"><img src=x>', "\u202eevil", "{{ 7 * 7 }}"):
            answer = await visitor.visit("denials", params={"rule": text})
            assert answer.status_code == 200
            assert "<script>alert" not in answer.text
            assert "<img" not in answer.text
            assert "49" not in answer.text.partition("<main")[2].partition("refused</h2>")[0]
            assert "Nothing was refused" in answer.text


async def test_days_stand_the_newest_first(world):
    async with visiting(world) as visitor:
        await world.put(None, "1", b"x")
        world.clock.advance(2 * 86_400 + 60)
        world.auditor = world.own(role="auditor")
        await visitor.sign_in()
        await world.put(None, "2", b"x")
        await world.get("not.a.token", "1")
        rows = table(await visitor.visit("denials", params={"group": ["day", "method"]}))
        days = [row[0] for row in rows]
        assert days == sorted(days, reverse=True)
        assert len(set(days)) == 2
