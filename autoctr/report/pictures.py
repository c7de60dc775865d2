"""The pictures of a study's page, each an SVG that needs nothing else."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autoctr.errors import UserError
from autoctr.model.architecture import OPERATORS, Architecture, consumers, producers
from autoctr.report.contents import Cost, Point, Shape
from autoctr.search.importance import Interactions
from autoctr.search.record import Direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, LIGHT = "#2a6fbb", "#d9722e", "#666666", "#d5d5d5"
SIZE = (5.2, 3.2)  # inches; wide enough that its letters stay legible on a telephone


def figure(height: float = SIZE[1]) -> tuple[Figure, Axes]:
    """An empty picture.

    Raises:
        UserError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a page needs matplotlib; install it with: pip install 'autoctr[report]'") from None
    made = Figure(figsize=(SIZE[0], height), layout="constrained")
    axes = made.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return made, axes


def svg(made: Figure, title: str) -> str:
    """The picture as an SVG element, with a title for those who do not see it."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        made.canvas = FigureCanvasSVG(made)
        made.savefig(out, format="svg", metadata={"Date": None, "Title": title})
    text = out.getvalue()
    return text[text.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def progress(course: Sequence[Point], metric: str, direction: Direction) -> str:
    """The best validation score over the minutes of search, and every finished trial."""
    made, axes = figure()
    times, values, best = ([getattr(point, name) for point in course] for name in ("minutes", "value", "best"))
    axes.plot(times, values, "o", color=LIGHT, markersize=4, label="a trial")
    axes.step(times, best, where="post", color=BLUE, label="the best so far")
    if course:
        axes.set_ylim(*around(values, best))
    axes.set(xlabel="minutes of search", ylabel=f"validation {metric}")
    axes.legend(frameon=False, loc="lower right" if direction == "maximize" else "upper right")
    return svg(made, "Best score over time")


def around(values: Sequence[float], best: Sequence[float]) -> tuple[float, float]:
    """Limits that show the better half of all trials and the whole course of the best one."""
    ordered = sorted(values)
    shown = [*best, ordered[len(ordered) // 2]]
    room = 0.1 * (max(shown) - min(shown)) or 1e-4
    return min(shown) - room, max(shown) + room


def costs(points: Sequence[Cost], priced: str, metric: str, winner: int, direction: Direction) -> str:
    """Score against what a network costs, ``priced`` in words, with the trials that no other beats in both."""
    made, axes = figure()
    ahead = [point for point in points if point.ahead]
    axes.plot([p.price for p in points], [p.value for p in points], "o", color=LIGHT, markersize=4, label="a trial")
    axes.step(
        [p.price for p in ahead], [p.value for p in ahead], "o-", where="post", color=BLUE, markersize=4,
        label="front",
    )  # fmt: skip
    for number, name, colour in ((0, "trial 0", GREY), (winner, "winner", ORANGE)):
        for point in points:
            if point.number == number:
                axes.annotate(
                    name, (point.price, point.value), xytext=(4, 4), textcoords="offset points", color=colour,
                    fontsize=9,
                )  # fmt: skip
    axes.set_xscale("log")
    axes.set(xlabel=priced, ylabel=f"validation {metric}")
    if points:
        shown = [point.value for point in points if point.ahead or point.number in (0, winner)]
        axes.set_ylim(*around([point.value for point in points], shown))
    axes.legend(frameon=False, loc="lower right" if direction == "maximize" else "upper right")
    return svg(made, "Score against cost")


def bars(values: Mapping[str, float], label: str, title: str) -> str:
    """Named bars, the longest on top."""
    names = sorted(values, key=lambda name: values[name])[-12:]
    made, axes = figure(0.8 + 0.24 * max(len(names), 4))
    axes.barh(names, [values[name] for name in names], color=BLUE)
    axes.set(xlabel=label)
    return svg(made, title)


def leads(domains: Mapping[str, tuple[float, float, float]], title: str) -> str:
    """The winner's lead with an interval, domain by domain: (lead, low, high)."""
    names = list(domains)[::-1]
    made, axes = figure(0.9 + 0.24 * max(len(names), 4))
    axes.axvline(0, color=GREY, linewidth=0.8)
    for place, name in enumerate(names):
        lead, low, high = domains[name]
        colour = BLUE if low > 0 else ORANGE if high < 0 else GREY
        axes.plot([low, high], [place, place], color=colour)
        axes.plot([lead], [place], "o", color=colour, markersize=4)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="AUC of the winner less that of the plain network")
    return svg(made, title)


def heat(shape: Shape, title: str) -> str:
    """Rank and closed neurons by domain, as shades and written out, beside bars of the rows each domain has."""
    names, columns = list(shape.rows), list(shape.columns)
    made, axes = figure(1.0 + 0.26 * len(names))
    made.clear()
    left, axes = made.subplots(1, 2, sharey=True, width_ratios=(1, max(1.0, 0.45 * len(columns))))
    left.barh(range(len(names)), list(shape.rows.values()), color=LIGHT)
    for place, rows in enumerate(shape.rows.values()):
        left.text(0, place, f" {rows:,}", va="center", fontsize=8)
    left.set_axis_on()
    left.spines[:].set_visible(False)
    left.set_xticks([])
    left.set_xlabel(shape.counted.lower())
    left.set_yticks(range(len(names)), names)
    values = list(zip(*shape.columns.values(), strict=True))
    tops = dict.fromkeys(columns, 0.0)
    for name, column in shape.columns.items():  # per cents share one scale
        alike = [other for other in columns if other.endswith("%")] if name.endswith("%") else [name]
        for other in alike:
            tops[other] = max([tops[other], *(value for value in column if not math.isnan(value))])
    shades = [[value / (top or 1.0) for value, top in zip(row, tops.values(), strict=True)] for row in values]
    _shades(axes, shades)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.spines[:].set_visible(False)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            axes.text(x, y, "" if math.isnan(value) else f"{value:.0f}", ha="center", va="center", fontsize=8)
    for side in (left, axes):
        side.tick_params(length=0)
    return svg(made, title)


def _shades(axes: Axes, values: Sequence[Sequence[float]]) -> None:
    """Cells around whole coordinates, rows downwards, the darker the nearer to 1; NaN stays white."""
    across, down = ([n - 0.5 for n in range(count + 1)] for count in (len(values[0]), len(values)))
    axes.pcolormesh(across, down, values, cmap="Blues", vmin=0, vmax=1.8, edgecolors="white", linewidth=1)
    axes.set_ylim(len(values) - 0.5, -0.5)


def pairs(found: Interactions) -> str:
    """How much each pair of fields explains beyond the fields alone; what exceeds chance is framed."""
    from matplotlib.patches import Rectangle

    names = found.fields
    made, axes = figure(1.4 + 0.34 * len(names))
    grid = [[math.nan] * (len(names) - 1) for _ in names[1:]]
    for (a, b), share in found.shares.items():
        x, y = names.index(a), names.index(b) - 1
        grid[y][x] = 100 * share
        axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=8)
        if share > found.chance:
            axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=ORANGE, linewidth=1.5))
    top = 100 * max(*found.shares.values(), 2 * found.chance, 0.01)  # what chance reaches stays pale
    _shades(axes, [[value / top for value in row] for row in grid])
    axes.set_xticks(range(len(names) - 1), names[:-1], rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(names) - 1), names[1:], fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return svg(made, "What mattered together")


def reliability(networks: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """The rate of clicks against the mean probability, bin by bin."""
    made, axes = figure()
    for (name, bins), colour in zip(networks.items(), (BLUE, GREY), strict=False):
        axes.plot(
            [b[0] for b in bins], [b[1] for b in bins], "o-", color=colour, markersize=3.5, linewidth=1, label=name
        )
    ends = [value for bins in networks.values() for b in bins for value in b[:2]]
    low, high = min(ends), max(ends)
    axes.plot([low, high], [low, high], color=LIGHT, linewidth=0.8, zorder=0)
    axes.set(xlabel="mean predicted probability", ylabel="rate of clicks")
    axes.legend(frameon=False, loc="upper left")
    return svg(made, "Calibration")


def gaps(found: Sequence[tuple[float, float]], metric: str) -> str:
    """What each supernet scored, and the network that was read from it with the same weights."""
    made, axes = figure()
    axes.plot(*zip(*found, strict=True), "o", color=BLUE, markersize=4)
    ends = [min(map(min, found)), max(map(max, found))]
    axes.plot(ends, ends, color=GREY, linewidth=0.8)
    axes.locator_params(nbins=4)
    axes.set(xlabel=f"supernet, validation {metric}", ylabel="discrete, the same weights")
    return svg(made, "Discretisation gap")


def network(wiring: Architecture) -> str:
    """The network: components block by block, open connections, and the operator at each node."""
    from matplotlib.patches import FancyArrowPatch

    made, axes = figure(2.6)
    axes.set_axis_off()
    blocks, live = wiring.blocks, wiring.live()
    names, places = producers(blocks), {"E": (0.0, 0.0), "C0": (1.0, 1.0), "O": (blocks + 2.0, 0.0)}
    for block in range(1, blocks + 1):
        places[f"C{block}"], places[f"D{block}"] = (block + 1.0, 1.0), (block + 1.0, -1.0)
    arrows = [("E", "C0")] if 1 in live else []
    shown = {names[u] for u in live} | {"E", "O"}
    operators: dict[str, str] = {}
    for name, node in zip(consumers(blocks), wiring.nodes, strict=True):
        if name not in shown:
            continue
        arrows += [(names[u], name) for u, is_open in enumerate(node.open) if is_open]
        used = [f"{op} {w:.0%}" if w < 1 else op for op, w in zip(OPERATORS, node.operators, strict=True) if w > 0]
        operators[name] = "\n".join(used) if sum(node.open) > 1 or used != ["add"] else ""
    for start, end in arrows:
        (x, y), (to, up) = places[start], places[end]
        bend = 0.25 if y == up and to - x > 1 else 0.0
        style = f"arc3,rad={-bend if y >= 0 else bend}"
        axes.add_patch(
            FancyArrowPatch(
                (x, y), (to, up), arrowstyle="-|>", mutation_scale=9, shrinkA=11, shrinkB=11, color=GREY,
                linewidth=0.9, connectionstyle=style,
            )
        )  # fmt: skip
    for name in shown:
        x, y = places[name]
        colour = BLUE if name.startswith("C") else ORANGE if name.startswith("D") else GREY
        axes.plot([x], [y], "o", markersize=20, color=colour)
        axes.text(x, y, name, ha="center", va="center", color="white", fontsize=8)
        if operators.get(name):
            axes.text(x, y - 0.42, operators[name], ha="center", va="top", fontsize=7.5, color="black")
    bottom = min(places[name][1] for name in shown) - 1.0
    axes.set(xlim=(-0.5, blocks + 2.5), ylim=(bottom, 1.7))
    return svg(made, "The winner's network")
