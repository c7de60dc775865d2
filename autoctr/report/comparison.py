"""A comparison as a table, for terminals and for Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoctr.search.compare import Comparison
    from autoctr.training.intervals import Difference, Interval

NAMES = {
    "auc": "AUC",
    "wauc": "WAUC",
    "mean_auc": "mean AUC",
    "worst_auc": "worst AUC",
    "logloss": "log-loss",
    "calibration": "calibration",
    "ece": "ECE",
}


def comparison_text(comparison: Comparison) -> str:
    """Two aligned tables below each other: metrics, then calibration, size and differences."""
    head, rows = _cells(comparison)
    blocks = [[0, 1, *range(2, 7)], [0, *range(7, len(head))]]
    lines = [_title(comparison)]
    for block in blocks:
        cells = [[row[place] for place in block] for row in [head, *rows]]
        widths = [max(len(row[place]) for row in cells) for place in range(len(block))]
        lines.append("")
        for row in cells:
            first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join([row[0].ljust(len(first)), *others]))
    return "\n".join([*lines, "", *_notes(comparison)])


def comparison_markdown(comparison: Comparison) -> str:
    """One Markdown table with a line above and notes below."""
    head, rows = _cells(comparison)
    rule = ["---", *["--:"] * (len(head) - 1)]
    table = ["| " + " | ".join(row) + " |" for row in [head, rule, *rows]]
    return "\n".join([_title(comparison), "", *table, "", *_notes(comparison)])


def _title(comparison: Comparison) -> str:
    return (
        f"{comparison.dataset}: {comparison.test_rows:,} test rows; "
        f"the best pass is chosen by validation {NAMES[comparison.metric]}"
    )


def _notes(comparison: Comparison) -> list[str]:
    lines = [
        "± is half the 95 % interval over seeds (Student's t). Calibration is predicted over observed clicks; ECE has",
        "15 bins of equal mass. Parameters and multiply-adds per row leave out the embedding table and its look-up.",
    ]
    if len(comparison.models) > 1:
        lines += [
            f"Δ is the difference to {comparison.models[0]} with the same seeds; users: 95 % interval of its mean "
            "over resamples of the test",
            "users (rows where there are none), the trained networks unchanged.",
        ]
    return [*_worth(comparison), *lines, *comparison.failures]


def _worth(comparison: Comparison) -> list[str]:
    """A line per model with a twin: what its methods add."""
    lines = []
    for model, twin in comparison.twins.items():
        if (found := comparison.difference(model, beside=twin)) is not None:
            lines.append(
                f"{model} beside itself with every method off: Δ {NAMES[comparison.metric]} "
                f"{_interval(found.seeds, '+')}, users {_users(found)}"
            )
    return [*lines, ""] if lines else []


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    head = ["model", "seeds", *NAMES.values(), "parameters", "multiply-adds", "seconds"]
    pairs = len(comparison.models) > 1
    if pairs:
        head += [f"Δ {NAMES[comparison.metric]}", "users"]
    rows = []
    for model in comparison.models:
        runs = list(comparison.of(model).values())
        row = [model, str(len(runs)), *(_interval(comparison.interval(model, column)) for column in NAMES)]
        seconds = comparison.interval(model, "seconds")
        row += [f"{runs[0].parameters:,}", f"{runs[0].multiply_adds:,}"] if runs else ["-", "-"]
        row.append("-" if seconds is None else f"{seconds.mean:.1f}")
        rows.append([*row, *(_difference(comparison, model) if pairs else [])])
    return head, rows


def _difference(comparison: Comparison, model: str) -> list[str]:
    found = comparison.difference(model) if model != comparison.models[0] else None
    if found is None:
        return ["-", "-"]
    return [_interval(found.seeds, "+"), _users(found)]


def _users(found: Difference) -> str:
    return "-" if found.users is None else f"{found.users[0]:+.4f} to {found.users[1]:+.4f}"


def _interval(interval: Interval | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    half = "" if interval.half is None else f" ± {interval.half:.4f}"
    return f"{interval.mean:{sign}.4f}{half}"
