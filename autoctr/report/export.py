"""What an export holds and costs, in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoctr.export.card import CARD


def export_lines(folder: Path) -> list[str]:
    """Lines on domains, sizes and rounding, by the folder's ``card.json``."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    lines, unknown = [], card["domains"]["as_unknown"]
    if unknown:
        names = ", ".join(card["domains"]["exported"])
        others = "other domain" if len(unknown) == 1 else f"{len(unknown)} other domains"
        lines.append(f"holds {names}; rows of the {others} are scored as of an unknown domain")
    if absent := card["embeddings"]["fields_left_out"]:
        lines.append(f"fields that every domain closes are left out: {', '.join(absent)}")
    lines.append(_footprint_line(card["footprint"]))
    if "rounding" in card:
        lines.append(_rounding_line(card))
    return lines


def _footprint_line(footprint: dict[str, Any]) -> str:
    """The searched network beside the export: what a row costs and reads, over the domains, and the whole."""
    domains, held = footprint["domains"], footprint["bytes"]
    texts = [
        f"{what} {_span([own['before'][name] for own in domains])} -> {_span([own['after'][name] for own in domains])}"
        for name, what in (("multiply_adds", "multiply-adds"), ("parameters", "dense parameters"))
    ]
    whole = f"weights in all {_size(held['before'])} -> {_size(held['after'])}"
    return f"a row's {', '.join(texts)}; {whole} (searched -> exported)"


def _rounding_line(card: dict[str, Any]) -> str:
    tables, stored = card["footprint"]["tables"], card["embeddings"]["stored"]
    parts = []
    for metric, found in card["rounding"].items():
        if found["difference"] is not None:
            parts.append(f"{metric} {found['before']:.5f} -> {found['after']:.5f} ({found['difference']:+.6f})")
    sizes = f"{_size(tables['before'])} -> {_size(tables['after'])}"
    return f"embeddings in {stored}: {sizes}; validation {', '.join(parts)}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
