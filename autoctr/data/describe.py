"""What there is to know of an encoded dataset, as JSON-ready values and as text."""

from __future__ import annotations

from typing import Any

from autoctr.data.dataset import SPLITS, Dataset


def describe(dataset: Dataset) -> dict[str, Any]:
    """Rows per split and domain, rates of ones, fields with their sizes, and the ceiling where it is known."""
    statistics, counts = dataset.statistics, dataset.info.get("counts", {})
    domains = []
    for place, name in enumerate([*statistics.domains, "(unknown)"]):
        rows = {split: counts[split]["rows"][place] for split in counts}
        if place == len(statistics.domains) and not sum(rows.values()):
            continue
        rates = {
            task: {s: _ratio(counts[s]["positives"][task][place], rows[s]) for s in counts} for task in statistics.tasks
        }
        domains.append({"name": name, "rows": rows, "rates": rates})
    return {
        "name": dataset.name,
        "key": dataset.key,
        "folder": None if dataset.folder is None else str(dataset.folder),
        "source": dataset.info.get("source"),
        "rows": {split: len(getattr(dataset, split)) for split in SPLITS},
        "dropped_rows": dataset.info.get("dropped_rows", 0),
        "tasks": dict(zip(statistics.tasks, statistics.rates, strict=True)),
        "domain_field": statistics.domain_field,
        "domains": domains,
        "fields": [
            {"name": f.name, "kind": str(f.kind), "size": f.size, "slots": f.slots, "width": f.width}
            for f in statistics.fields
        ],
        "vocabulary": statistics.vocabulary,
        "single_class": dataset.info.get("single_class", {}),
        "ceiling": dataset.info.get("ceiling"),
    }


def describe_text(dataset: Dataset) -> str:
    """:func:`describe` for people, as aligned plain text."""
    facts = describe(dataset)
    rows = ", ".join(f"{split} {count:,}" for split, count in facts["rows"].items())
    lines = [f"{facts['name']}: {rows} rows", f"source: {facts['source']}", f"encoded in: {facts['folder']}"]
    if facts["dropped_rows"]:
        lines.append(f"left out by the split: {facts['dropped_rows']:,} rows")
    lines += ["", *_domain_table(facts), "", *_field_table(facts)]
    for task, by_split in facts["single_class"].items():
        for split, names in by_split.items():
            lines += ["", f"only one class of {task} in {split} (no AUC there): {', '.join(names)}"]
    if facts["ceiling"]:
        lines += ["", *_ceiling_table(facts["ceiling"])]
    return "\n".join(lines)


def _domain_table(facts: dict[str, Any]) -> list[str]:
    head = [f"domain ({facts['domain_field']})", *SPLITS]
    head += [f"{task} {split} %" for task in facts["tasks"] for split in ("train", "test")]
    body = []
    for domain in facts["domains"]:
        rates = [domain["rates"][task].get(s) for task in facts["tasks"] for s in ("train", "test")]
        counts = [f"{domain['rows'].get(split, 0):,}" for split in SPLITS]
        body.append([domain["name"], *counts, *("-" if rate is None else f"{100 * rate:.2f}" for rate in rates)])
    return _table(head, body)


def _field_table(facts: dict[str, Any]) -> list[str]:
    body = [
        [
            f["name"],
            f["kind"],
            *(f"{f[number]:,}" if f[number] else "-" for number in ("size", "slots", "width")),
        ]
        for f in facts["fields"]
    ]
    title = f"{len(body)} fields, {facts['vocabulary']:,} rows in the embedding table"
    return [title, *_table(["field", "kind", "size", "slots", "width"], body)]


def _ceiling_table(ceiling: dict[str, Any]) -> list[str]:
    splits = [split for split in ("valid", "test") if split in ceiling]
    head = ["AUC no ranker can beat", *(f"{split} (95 % interval)" for split in splits)]
    names = list(dict.fromkeys(name for split in splits for name in ceiling[split]["themes"]))
    body = [[f"theme {name}", *(_auc(ceiling[s]["themes"].get(name, {}), "auc") for s in splits)] for name in names]
    body.append(["WAUC", *(_auc(ceiling[split], "wauc") for split in splits)])
    return _table(head, body)


def _auc(entry: dict[str, Any], name: str) -> str:
    if entry.get(name) is None:
        return "-"
    low, high = entry["interval"]
    return f"{entry[name]:.4f} ({low:.4f} to {high:.4f})"


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in [head, *body]) for place in range(len(head))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in [head, *body]
    ]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
