"""Encoding a csv of a million rows and eight columns beside FuxiCTR's build of the same."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fitting import run_peer
from ratings import write_ratings

from autoctr.data.presets import load_dataset


def encoding(arguments: argparse.Namespace) -> None:
    """Seconds of both, three times each."""
    if arguments.data is None or arguments.peer is None:
        sys.exit("encoding needs --data and --peer")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ratings(arguments.data, folder)
        for number in range(3):
            started = time.perf_counter()
            load_dataset(table=folder / "all.csv", schema=folder / "schema.yaml", cache=folder / f"cache {number}")
            ours = time.perf_counter() - started
            peer = run_peer(arguments, folder, 1)["build"]
            print(f"encoding 1,000,209 rows of csv: autoctr {ours:.2f} s, FuxiCTR {peer:.1f} s: {peer / ours:.1f}x")
