"""What was refused: the counts of all servers, narrowed and grouped."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from anyio import to_thread
from litestar import get
from litestar.handlers import HTTPRouteHandler

from secure_cache.core.denial_reading import GROUPS, MAX_SPAN_SECONDS, DenialCell, DenialsSeen
from secure_cache.core.denials import Denial
from secure_cache.http.audit_question import Asked
from secure_cache.http.console.desk import Answer, AnyRequest, Desk, sentence
from secure_cache.model.errors import SecureCacheError, WrongFilter

_DAY_SECONDS = 86_400
_BY_DEFAULT_SECONDS = 7 * _DAY_SECONDS
_ROWS = 500
_CHOICES = 200
_LONGEST = 300
_BY: tuple[str, ...] = ("day", "method", "code", "who")
_TIMES = ("day", "hour")


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table: the values of the groups, how many, and how long its bar is."""

    values: tuple[str, ...]
    count: int
    share: float


def denial_routes(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/audit/denials", include_in_schema=False)
    async def denials(request: AnyRequest) -> Answer:
        """`since`, `until`, a value of each kind of thing that is counted, and `group`."""

        async def work(asked: Asked) -> Answer:
            return await _denials(desk, asked)

        return await desk.answer(request, work)

    return [denials]


async def _denials(desk: Desk, asked: Asked) -> Answer:
    given = asked.without_blanks()
    seen: DenialsSeen | None = None
    rows: list[_Row] = []
    wanted: dict[str, str] = {}
    choices: dict[str, list[str]] = {name: [] for name in Denial._fields}
    groups, wrong, total = _BY, None, 0
    try:
        asked.only("since", "until", "group", *Denial._fields)
        since, until = asked.span(MAX_SPAN_SECONDS, by_default=_BY_DEFAULT_SECONDS)
        groups = asked.several("group", GROUPS, _BY)
        wanted = {name: _value(asked, name) for name in Denial._fields if name in given}
        seen = await desk.services.denials.between(since, until)
        # Tens of thousands of counts, at most: not where builds wait for each other.
        rows, total, choices = await to_thread.run_sync(_told, seen, wanted, groups)
        asked.answered = len(rows)
    except WrongFilter as error:
        wrong = sentence(error)
    return desk.pages.page(
        "denials",
        status=200 if wrong is None else 400,
        page="denials",
        seen=seen,
        rows=rows[:_ROWS],
        more=max(0, len(rows) - _ROWS),
        total=total,
        wanted=wanted,
        span={name: given[name][0] for name in ("since", "until") if name in given},
        fields=Denial._fields,
        choices=choices,
        groups=groups,
        all_groups=GROUPS,
        reasons=dict(_reasons(SecureCacheError)),
        wrong=wrong,
        longest_days=MAX_SPAN_SECONDS // _DAY_SECONDS,
    )


def _told(
    seen: DenialsSeen, wanted: dict[str, str], groups: tuple[str, ...]
) -> tuple[list[_Row], int, dict[str, list[str]]]:
    cells = [cell for cell in seen.cells if _is(cell, wanted)]
    total = sum(cell.count for cell in cells)
    return _grouped(seen, cells, groups), total, _choices(seen, wanted)


def _value(asked: Asked, name: str) -> str:
    value = asked.one(name, "")
    if len(value) > _LONGEST:
        raise WrongFilter(f"{name}: at most {_LONGEST} characters")
    return value


def _is(cell: DenialCell, wanted: dict[str, str]) -> bool:
    return all(getattr(cell.denial, name) == value for name, value in wanted.items())


def _grouped(seen: DenialsSeen, cells: list[DenialCell], groups: tuple[str, ...]) -> list[_Row]:
    """The newest first where the groups have a time, and the most first among equals."""
    part = DenialsSeen(seen.since, seen.until, tuple(cells), seen.unreadable, seen.cut)
    found = sorted(part.by(*groups), key=lambda row: -row[1])
    times = [place for place, name in enumerate(groups) if name in _TIMES]
    if times:
        found.sort(key=lambda row: tuple(row[0][place] for place in times), reverse=True)
    most = max((count for _, count in found), default=1)
    return [_Row(values, count, round(100 * count / most, 2)) for values, count in found]


def _choices(seen: DenialsSeen, wanted: dict[str, str]) -> dict[str, list[str]]:
    """For each kind what occurs, the most frequent of it, and what is asked for in any case."""
    found: dict[str, list[str]] = {}
    for place, name in enumerate(Denial._fields):
        counts: Counter[str] = Counter()
        for cell in seen.cells:
            counts[cell.denial[place]] += cell.count
        values = {value for value, _ in counts.most_common(_CHOICES)} | {wanted.get(name, "")}
        found[name] = sorted(values - {""})
    return found


def _reasons(error: type[SecureCacheError]) -> Iterator[tuple[str, str]]:
    """Codes, and what each means."""
    yield error.code, error.title.partition(":")[0]
    for other in error.__subclasses__():
        yield from _reasons(other)
