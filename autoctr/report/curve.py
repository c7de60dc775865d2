"""A replay of days as plain text: scores per day, their means, and what is forgotten."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from autoctr.training.stream import BASE, FULL, VARIANTS, Curve, Replay

METRICS = {"auc": "AUC", "wauc": "WAUC", "logloss": "log-loss", "forgetting": "forgetting"}
_MEANINGS = {
    FULL: "TPM, CPM and daily fine-tuning",
    BASE: "fine-tuned daily on target rows alone",
    "scratch": "trained anew each time on all target rows so far",
    "no TPM": "E-CDCTR without snapshots",
    "no CPM": "E-CDCTR without the start from the source domain",
}
_BARS = "▁▂▃▄▅▆▇█"


def replay_text(found: Replay) -> str:
    """Data and schedule, the AUC of every day, means over the days, and paired differences to daily fine-tuning."""
    names = [variant.name for variant in VARIANTS]
    curves = {name: [curve for curve in found.curves if curve.variant == name] for name in names}
    return "\n".join([*_opening(found), "", *_days(curves), "", *_means(curves), "", *_differences(curves)])


def _opening(found: Replay) -> list[str]:
    facts = found.facts
    schedule, rows = facts["schedule"], facts["rows"]
    targets = ", ".join(f"{name} ({rows[name]:,} rows)" for name in facts["targets"])
    passes = "1 pass" if schedule["epochs"] == 1 else f"{schedule['epochs']} passes"
    return [
        f"{facts['dataset']}: {facts['days']} days, the first {facts['warm_days']} are warm-up; label {facts['task']}",
        f"source {facts['source']} ({rows[facts['source']]:,} rows), targets {targets}",
        f"refreshed every {schedule['target_days']} (target), {schedule['cpm_days']} (CPM) and {schedule['tpm_days']}"
        f" (TPM) days, {passes} each",
        f"TPM reads {', '.join(facts['tpm_fields'])}; the last {schedule['window']} snapshots are pooled by"
        f" {schedule['pooling']}",
        f"ids and scales were fitted on the training split, which reaches to day {facts['encoded_to_day']}",
        *(f"{name:9} {meaning}" for name, meaning in _MEANINGS.items()),
    ]


def _days(curves: dict[str, list[Curve]]) -> list[str]:
    """AUC per day and variant, mean over the seeds, and each variant's course as bars on one scale."""
    first = next(iter(curves.values()))
    table = {
        name: [_mean([curve.days[number].auc for curve in several]) for number in range(len(first[0].days))]
        for name, several in curves.items()
    }
    lines = [f"AUC of each day's target rows, scored before training on them{_seeds(first)}"]
    lines.append(f"{'day':>4}{'rows':>9}" + "".join(f"{name:>10}" for name in table))
    for number, day in enumerate(first[0].days):
        lines.append(f"{day.day:4}{day.rows:9,}" + "".join(_number(values[number]) for values in table.values()))
    known = [value for values in table.values() for value in values if value is not None]
    if known:
        low, high = min(known), max(known)
        lines += [f"{name:9} {_bars(values, low, high)}" for name, values in table.items()]
        lines[-1] += f"   {_BARS[0]} {low:.4f}, {_BARS[-1]} {high:.4f}"
    return lines


def _means(curves: dict[str, list[Curve]]) -> list[str]:
    first = next(iter(curves.values()))
    lines = [f"mean over the days, weighted by rows{_seeds(first)}; forgetting in log-loss"]
    lines.append(" " * 10 + "".join(f"{title:>12}" for title in METRICS.values()))
    for name, several in curves.items():
        means = [_mean([curve.mean(metric) for curve in several]) for metric in METRICS]
        lines.append(f"{name:10}" + "".join(_number(value, 12) for value in means))
    return lines


def _differences(curves: dict[str, list[Curve]]) -> list[str]:
    """Each variant minus daily fine-tuning with the same seed: the mean, and its standard error over the seeds."""
    base = {curve.seed: curve for curve in curves[BASE]}
    error = " ± standard error over the seeds" if len(base) > 1 else "; one seed says nothing of chance"
    lines = [f"difference to {BASE}, seed by seed{error}"]
    lines.append(" " * 10 + "".join(f"{title:>22}" for title in METRICS.values()))
    for name, several in curves.items():
        if name != BASE:
            cells = [_difference(several, base, metric) for metric in METRICS]
            lines.append(f"{name:10}" + "".join(f"{cell:>22}" for cell in cells))
    return lines


def _difference(several: Sequence[Curve], base: dict[int, Curve], metric: str) -> str:
    pairs = [(curve.mean(metric), base[curve.seed].mean(metric)) for curve in several]
    gaps = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    if not gaps:
        return "-"
    mean = f"{statistics.fmean(gaps):+.5f}"
    return mean if len(gaps) < 2 else f"{mean} ± {statistics.stdev(gaps) / len(gaps) ** 0.5:.5f}"


def _seeds(several: Sequence[Curve]) -> str:
    return f", mean of {len(several)} seeds" if len(several) > 1 else ""


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _number(value: float | None, width: int = 10) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.5f}"


def _bars(values: Sequence[float | None], low: float, high: float) -> str:
    step = (high - low) / len(_BARS) or 1.0
    return "".join(" " if v is None else _BARS[min(int((v - low) / step), len(_BARS) - 1)] for v in values)
