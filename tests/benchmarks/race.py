"""Two searches of the same data: ``python tests/benchmarks/race.py ROOT NAME NAME --out PICTURE`` (needs matplotlib).

Prints how many candidates each finished, its best validation score, and when it had reached the other's last one; draws
the best score over time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

from autoctr.search.run import load_study

matplotlib.use("svg")


NOISE = 0.001  # what a seed alone does to a score: no picture magnifies less


def course(root: Path, name: str) -> tuple[list[float], list[float], dict[str, int]]:
    """Minutes at which trials ended, the best score then, and how many trials ended in each state."""
    trials = load_study(name, root=root).database.get_trials(deepcopy=False)
    started = min(trial.datetime_start for trial in trials if trial.datetime_start)
    minutes, best, states = [], [], dict[str, int]()
    for trial in sorted(trials, key=lambda trial: trial.datetime_complete or started):
        states[trial.state.name] = states.get(trial.state.name, 0) + 1
        if trial.state.name == "COMPLETE" and trial.value is not None and trial.datetime_complete is not None:
            minutes.append((trial.datetime_complete - started).total_seconds() / 60)
            best.append(max([trial.value, *best[-1:]]))
    return minutes, best, states


def main() -> None:
    """Print the comparison and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("names", nargs=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    from matplotlib import pyplot

    courses = [course(arguments.root, name) for name in arguments.names]
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for name, (minutes, best, states), (_, others, _) in zip(arguments.names, courses, courses[::-1], strict=True):
        reached = next((f"{m:.1f} min" for m, b in zip(minutes, best, strict=True) if b >= others[-1]), "never")
        ended = ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))
        print(f"{name}: {ended}; best {best[-1]:.5f}; reached the other's best: {reached}")
        axes.step(minutes, best, where="post", marker="o", markersize=3, label=name)
    low, high = axes.get_ylim()
    wider = max(NOISE - (high - low), 0) / 2
    axes.set(xlabel="minutes", ylabel="best validation WAUC of a finished trial", ylim=(low - wider, high + wider))
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.out)


if __name__ == "__main__":
    main()
