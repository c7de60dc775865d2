"""The whole report of a study for a terminal: what the page shows, in characters."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from autoctr.report.contents import (
    CAPTIONS,
    Contents,
    Point,
    Table,
    contents,
    interaction_words,
    shape_words,
    trial_table,
)
from autoctr.report.text import front_lines

if TYPE_CHECKING:
    from autoctr.search.study import Study

#: Columns of output that is no terminal's: as wide as the widest table.
WIDE = 160
BAR = 30
CHART = (60, 10)
_EIGHTHS = " ▏▎▍▌▋▊▉"


def print_report(study: Study) -> None:
    """Print everything that is known of a study."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    found = contents(study)
    for part in _parts(found):
        console.print(part, highlight=False)
    for part in _part("How to repeat it"):
        console.print(part)
    for line in found.commands:  # whole, to be copied
        console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)


def _parts(found: Contents) -> Iterator[RenderableType]:
    yield Text(found.title, style="bold")
    yield Text(found.setting)
    yield Text()
    yield from map(Text, found.verdict)
    if found.certificate:
        yield from _part("Certificate", *map(Text, found.certificate))
    if found.course:
        lines = map(Text, chart(found.course, *CHART))
        yield from _part("Best score over time", *lines, Text(CAPTIONS["course"], style="dim"))
    if found.costs:
        yield from _part("Cheaper and better", *map(Text, front_lines(found.facts)))
    if found.importances:
        bars = _bars(list(found.importances.items())[:12])
        yield from _part("What mattered", *bars, Text(CAPTIONS["importances"], style="dim"))
    if found.interactions is not None:
        pairs = sorted(found.interactions.shares.items(), key=lambda pair: -pair[1])[:6]
        bars = _bars([(f"{a} with {b}", share) for (a, b), share in pairs])
        yield from _part("What mattered together", *bars, Text(interaction_words(found.interactions), style="dim"))
    if found.network:
        yield from _part("The winner", *map(Text, found.network))
    if found.shape is not None and found.shape.columns:
        yield from _part("Domain by domain", _shape(found), Text(shape_words(found.shape), style="dim"))
    if found.scores is not None and found.domains is not None:
        yield from _part("Test rows", _grid(found.scores))
        words = Text(CAPTIONS["calibration"], style="dim")
        yield from _part("Test rows by domain", _grid(found.domains), words)
    if found.leads:
        yield from _part("Winner beside plain, domain by domain", _leads(found))
    if found.reliability:
        yield from _part("Calibration", *_reliability(found), Text(_RELIABILITY, style="dim"))
    if found.gaps:
        yield from _part("Discretisation gap", _gaps(found))
    yield from _part("All trials", _trials(found))


_RELIABILITY = "Test rows in 15 bins of equal mass: what the model promises, and what was clicked."


def _part(title: str, *content: RenderableType) -> Iterator[RenderableType]:
    yield Text()
    yield Text(title, style="bold")
    yield from (Padding(part, (0, 0, 0, 2), expand=False) for part in content)


def chart(course: Sequence[Point], width: int, height: int) -> list[str]:
    """The best score over the minutes as a line of characters, and a dot for each trial that is not far below."""
    best = [point.best for point in course]
    ordered = sorted(point.value for point in course)
    low, high = min(*best, ordered[len(ordered) // 2]), max(*best, ordered[len(ordered) // 2])
    end = max(point.minutes for point in course) or 1.0

    def line(value: float) -> int:
        return height - 1 if high == low else round((high - value) / (high - low) * (height - 1))

    def column(minutes: float) -> int:
        return min(int(minutes / end * width), width - 1)

    cells = [[" "] * width for _ in range(height)]
    for point in course:
        if low <= point.value <= high:
            cells[line(point.value)][column(point.minutes)] = "·"
    for point, following in zip(course, [*course[1:], None], strict=True):
        last = width if following is None else column(following.minutes)
        for place in range(column(point.minutes), max(last, column(point.minutes) + 1)):
            cells[line(point.best)][place] = "━"
    lines = [f"{'':9}┤{''.join(row)}".rstrip() for row in cells]
    lines[0] = f"{high:9.5f}{lines[0][9:]}"
    lines[-1] = f"{low:9.5f}{lines[-1][9:]}"
    return [*lines, f"{'':9}└{'─' * width}", f"{'':10}0{f'{end:.1f} minutes':>{width - 1}}"]


def bar(share: float, width: int = BAR) -> str:
    """A bar of ``width`` characters at 1, to an eighth of one."""
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _bars(values: Sequence[tuple[str, float]]) -> Iterator[Text]:
    """Named shares; the longest bar fills the width."""
    top, width = max(value for _, value in values) or 1.0, max(len(name) for name, _ in values)
    for name, value in values:
        yield Text(f"{name:{width}}  {value:6.1%} {bar(value / top)}")


def _grid(table: Table, left: Sequence[int] = (0,), bold: int | None = None) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, name in enumerate(table.head):
        fold = place == len(table.head) - 1 and place in left
        grid.add_column(name, justify="left" if place in left else "right", no_wrap=not fold)
    for place, row in enumerate(table.rows):
        grid.add_row(*map(Text, row), style="bold" if place == bold else None)
    return grid


def _shape(found: Contents) -> Grid:
    shape = found.shape
    assert shape is not None
    rows = []
    for place, (name, count) in enumerate(shape.rows.items()):
        cells = [column[place] for column in shape.columns.values()]
        rows.append((name, f"{count:,}", *("" if math.isnan(cell) else f"{cell:.0f}" for cell in cells)))
    return _grid(Table(("domain", shape.counted.lower(), *shape.columns), tuple(rows)))


def _leads(found: Contents) -> Grid:
    rows = []
    for name, (lead, low, high) in found.leads.items():
        word = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
        rows.append((name, f"{lead:+.5f}", f"{low:+.5f} to {high:+.5f}", word))
    return _grid(Table(("domain", "AUC lead", "interval", ""), tuple(rows)), left=(0, 3))


def _reliability(found: Contents) -> Iterator[Text]:
    names = list(found.reliability)
    yield Text("  ".join(f"{name:>9}: promised, clicked" for name in names))
    for bins in zip(*found.reliability.values(), strict=False):
        yield Text("  ".join(f"{'':11}{promised:8.4f} {rate:8.4f}" for promised, rate, _ in bins))


def _gaps(found: Contents) -> Grid:
    rows = [
        (str(record.number), *(f"{record.gap[name]:.5f}" for name in ("relaxed", "discrete")))
        for record in found.trials
        if record.gap
    ]
    return _grid(Table(("trial", "supernet", "discrete, the same weights"), tuple(rows)), left=())


def _trials(found: Contents) -> Grid:
    table = trial_table(found)
    numbers = [record.number for record in found.trials]
    bold = None if found.winner is None else numbers.index(found.winner)
    return _grid(table, left=(len(table.head) - 1,), bold=bold)
