"""Studies small enough for tests: a few thousand simulated rows and networks of width 8 to 16."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from autoctr.search.record import Record
from autoctr.search.study import Study

ROWS = 3000
SEARCH_STEPS = 12

SPACE = """\
description: small networks
fix: {epochs: 3, batch: 512, embedding: 4, blocks: 1, warmup: 0.1, architecture_rate: 0.1}
vary:
  architecture: {choices: [parallel, inherit, learn]}
  width: {choices: [8, 16]}
  readout: {choices: [hard, soft, drop]}
  alternating: {choices: [false, true]}
  retrain: {choices: [scratch, supernet]}
  rank: {choices: [0, 2, 4]}
  learning_rate: {low: 1e-3, high: 1e-2, log: true}
"""

EVENTS = """\
labels: [click, buy]
domain: market
user: user
split: {kind: random, fractions: [0.6, 0.2, 0.2], seed: 0}
columns:
  - {name: user, kind: categorical}
  - {name: item, kind: categorical}
  - {name: market, kind: categorical}
"""


def write_space(folder: Path, text: str = SPACE, name: str = "small") -> Path:
    """The space as a file."""
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def search_small(root: Path, space: Path, **options: Any) -> Study:
    """A study named ``s`` on simulated rows, in the precision that gives the same trials on every machine."""
    from autoctr.search.run import search

    chosen = {"trials": 4, "study": "s", "rows": ROWS, "device": "cpu", "precision": "fp32", **options}
    return search("taobao-sim", root=root, space=str(space), **chosen)


def remembered(study: Study) -> list[Record]:
    """The study's trials without what the clock says."""
    return [dataclasses.replace(record, seconds=None, speed=None) for record in study.records()]


def autoctr(*arguments: object, before: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """``autoctr ARGUMENTS`` in a process of its own, after the statements ``before``."""
    return subprocess.run(
        command(*arguments, before=before), capture_output=True, text=True, env=one_thread(), timeout=120, **options
    )


def command(*arguments: object, before: str = "") -> list[str]:
    """The command line of :func:`autoctr`."""
    code = f"import sys\n{before}\nfrom autoctr.cli import main\nsys.argv[0] = 'autoctr'\nmain()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def one_thread() -> dict[str, str]:
    """The environment, with one thread for arithmetic."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


#: Statement for ``before``: supernets of a few steps.
SHORT_SUPERNETS = f"""\
import torch; torch.set_num_threads(1)
import autoctr.search.oneshot as oneshot; oneshot.FEWEST_STEPS = {SEARCH_STEPS}"""


def write_events(folder: Path, rows: int = 1500) -> tuple[Path, Path]:
    """A table of one's own, three markets and two labels, no two rows with equal features, and its schema."""
    import random

    draw = random.Random(3)
    lines, seen = ["user,item,market,click,buy"], set()
    while len(seen) < rows:
        user, item, market = draw.randrange(40), draw.randrange(30), draw.choice(["de", "de", "fr", "it"])
        if (user, item, market) in seen:
            continue
        seen.add((user, item, market))
        click = int(draw.random() < (0.7 if (user + item) % 2 else 0.2))
        buy = int(click and draw.random() < 0.5)
        lines.append(f"u{user},i{item},{market},{click},{buy}")
    table, schema = folder / "events.csv", folder / "schema.yaml"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    schema.write_text(EVENTS, encoding="utf-8")
    return table, schema
