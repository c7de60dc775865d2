"""The pictures of a study's page, each an SVG that needs nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autoctr.errors import UserError
from autoctr.model.architecture import OPERATORS, Architecture, consumers, producers
from autoctr.search.record import Direction, Record

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


def progress(records: Sequence[Record], minutes: Mapping[int, float], metric: str, direction: Direction) -> str:
    """The best validation score over the minutes of search, and every finished trial."""
    made, axes = figure()
    done = [r for r in records if r.state == "COMPLETE" and r.value is not None and r.number in minutes]
    done.sort(key=lambda record: minutes[record.number])
    choose, best, times = (max if direction == "maximize" else min), list[float](), list[float]()
    for record in done:
        assert record.value is not None
        best.append(choose([record.value, *best[-1:]]))
        times.append(minutes[record.number])
    axes.plot(times, [r.value or 0.0 for r in done], "o", color=LIGHT, markersize=4, label="a trial")
    axes.step(times, best, where="post", color=BLUE, label="the best so far")
    if done:
        axes.set_ylim(*_around([r.value or 0.0 for r in done], best))
    axes.set(xlabel="minutes of search", ylabel=f"validation {metric}")
    axes.legend(frameon=False, loc="lower right" if direction == "maximize" else "upper right")
    return svg(made, "Best score over time")


def _around(values: Sequence[float], best: Sequence[float]) -> tuple[float, float]:
    """Limits that show the better half of all trials and the whole course of the best one."""
    ordered = sorted(values)
    shown = [*best, ordered[len(ordered) // 2]]
    room = 0.1 * (max(shown) - min(shown)) or 1e-4
    return min(shown) - room, max(shown) + room


def costs(records: Sequence[Record], metric: str, winner: int, direction: Direction) -> str:
    """Score against multiply-adds, with the trials that no other beats in both."""
    made, axes = figure()
    points = [
        (max(r.multiply_adds["open"]), r.value, r.number)
        for r in records
        if r.state == "COMPLETE" and r.value is not None and r.multiply_adds
    ]
    sign = 1 if direction == "maximize" else -1
    front = pareto([(cost, sign * value) for cost, value, _ in points])
    axes.plot([p[0] for p in points], [p[1] for p in points], "o", color=LIGHT, markersize=4, label="a trial")
    ahead = sorted(points[n] for n in front)
    axes.step([p[0] for p in ahead], [p[1] for p in ahead], "o-", where="post", color=BLUE, markersize=4, label="front")
    for number, name, colour in ((0, "trial 0", GREY), (winner, "winner", ORANGE)):
        for cost, value, trial in points:
            if trial == number:
                axes.annotate(name, (cost, value), xytext=(4, 4), textcoords="offset points", color=colour, fontsize=9)
    axes.set_xscale("log")
    axes.set(xlabel="multiply-adds per row", ylabel=f"validation {metric}")
    if points:
        axes.set_ylim(*_around([p[1] for p in points], [p[1] for p in ahead]))
    axes.legend(frameon=False, loc="lower right" if direction == "maximize" else "upper right")
    return svg(made, "Score against cost")


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points, (cost, gain), of which no other has less cost and as much gain, or as much and more."""
    found, best = list[int](), -float("inf")
    for place in sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1])):
        if points[place][1] > best:
            best = points[place][1]
            found.append(place)
    return found


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


def heat(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], title: str) -> str:
    """Numbers by domain, as shades and written out."""
    made, axes = figure(1.0 + 0.26 * len(rows))
    top = max((value for row in values for value in row), default=0.0) or 1.0
    axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, vmax=1.5 * top)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            shown = f"{value:.0f}" if value == round(value) else f"{value:.2f}"
            axes.text(x, y, shown, ha="center", va="center", fontsize=8, color="black")
    axes.tick_params(length=0)
    return svg(made, title)


def gaps(records: Sequence[Record], metric: str) -> str:
    """What each supernet scored, and the network that was read from it with the same weights."""
    made, axes = figure()
    pairs = [(r.gap["relaxed"], r.gap["discrete"]) for r in records if r.gap]
    axes.plot(*zip(*pairs, strict=True), "o", color=BLUE, markersize=4)
    ends = [min(map(min, pairs)), max(map(max, pairs))]
    axes.plot(ends, ends, color=GREY, linewidth=0.8)
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
    axes.set(xlim=(-0.5, blocks + 2.5), ylim=(-2.0, 1.7))
    return svg(made, "The winner's network")
