"""An export's predictions for a table of raw values beside FuxiCTR's, on the same rows of MovieLens-1M."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import torch
from fitting import PLAIN, run_peer
from ratings import write_ratings

from autoctr.data.presets import load_dataset
from autoctr.export.folder import write_folder
from autoctr.export.formats import FORMATS
from autoctr.export.predict_table import predict_table
from autoctr.search.compare import as_learned, read_winner
from autoctr.search.heldout import HeldOut
from autoctr.search.trial import Laboratory

ROWS, EPOCHS, ROUNDS = 1_000_000, 2, 2


def serving(arguments: argparse.Namespace) -> None:
    """Rows per second from a csv file to a file of probabilities: the peer's own network and winners, as exports."""
    if arguments.data is None or arguments.peer is None:
        sys.exit("serve needs --data and --peer")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ratings(arguments.data, folder)
        table = folder / "table.csv"
        pl.read_csv(folder / "all.csv", infer_schema=False).drop("split").head(ROWS).write_csv(table)
        dataset = load_dataset(table=folder / "all.csv", schema=folder / "schema.yaml", cache=folder / "cache")
        found = {"DCN-v2": PLAIN, **{name: as_learned(held) for name, held in map(read_winner, arguments.winner)}}
        for name, candidate in found.items():
            laboratory = Laboratory(
                dataset, metric="auc", seed=0, device=torch.device("cpu"), folder=folder / "laboratory"
            )
            trained = laboratory.run(candidate.replace(precision="fp32", epochs=EPOCHS))
            write_folder(trained.cohort, dataset, folder / name, {}, formats=FORMATS)
            cost, auc = trained.multiply_adds["dense"], HeldOut(trained.cohort, dataset).scores().auc
            print(f"{name}: test AUC {auc:.5f} after {EPOCHS} passes, searched with {cost:,} multiply-adds per row")
        for _ in range(ROUNDS):
            peer = run_peer(arguments, folder, EPOCHS, str(table))
            assert peer["rows"] == ROWS
            whole = peer["encode"] + peer["predict"]
            encoding, scoring, both = (ROWS / seconds for seconds in (peer["encode"], peer["predict"], whole))
            print(
                f"FuxiCTR: test AUC {peer['auc']:.5f}, encoding {encoding:,.0f} rows/s, predict {scoring:,.0f}, "
                f"both {both:,.0f}"
            )
            for name in found:
                for kind in FORMATS:
                    started = time.perf_counter()
                    done = predict_table(folder / name, table, folder / "scores.parquet", format=kind)
                    seconds = time.perf_counter() - started
                    assert done.rows == ROWS
                    print(
                        f"  autoctr predict, {name}, {kind}: {ROWS / seconds:,.0f} rows/s, decoding included: "
                        f"{peer['predict'] / seconds:.1f}x of its predict alone, {whole / seconds:.1f}x of both"
                    )
