"""``autoctr predict``: tables of any size, damaged rows included, scored as the exported ``predict.py`` does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_data import Columns

from autoctr.data import source
from autoctr.errors import UserError
from autoctr.export.predict_table import Predicted, predict_table
from export.conftest import ROWS
from export.test_predict import ROUNDING, write_csv


def scores(path: Path) -> np.ndarray:
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    return frame.select("p_click", "p_conversion").cast(pl.Float64).to_numpy()


@pytest.mark.parametrize(
    ("table", "out"), [("events.csv", "s.csv"), ("events.csv.gz", "s.parquet"), ("events.tsv", "s.csv")]
)
def test_text(table: str, out: str, exported: Path, columns: Columns, expected: Any, tmp_path: Path) -> None:
    write_csv(tmp_path / table, columns, "\t" if "tsv" in table else ",")
    assert predict_table(exported, tmp_path / table, tmp_path / out) == Predicted(ROWS)
    np.testing.assert_allclose(scores(tmp_path / out), expected, rtol=0, atol=ROUNDING)


def test_parquet_in_chunks_with_columns_to_keep(
    exported: Path, columns: Columns, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = {"tags": [text.split("|") if text else [] for text in columns["tags"]]}
    pq.write_table(pa.table({**columns, **lists}), tmp_path / "events.parquet", row_group_size=70)
    monkeypatch.setattr(source.FileSource.chunks, "__defaults__", (40,))
    told: list[int] = []
    done = predict_table(
        exported, tmp_path / "events.parquet", tmp_path / "s.parquet", keep=["impression", "user"], on_rows=told.append
    )
    assert done == Predicted(ROWS)
    assert told[-1] == ROWS
    assert max(np.diff([0, *told])) <= 40
    frame = pl.read_parquet(tmp_path / "s.parquet")
    assert frame.columns == ["impression", "user", "p_click", "p_conversion"]
    assert frame["impression"].to_list() == list(range(ROWS))
    np.testing.assert_allclose(scores(tmp_path / "s.parquet"), expected, rtol=0, atol=ROUNDING)


def test_damaged_rows_stop_or_are_skipped_and_told(
    exported: Path, columns: Columns, expected: Any, tmp_path: Path
) -> None:
    wrong = {7: "cheap", 9: "1,5"}
    prices = [wrong.get(row, value) for row, value in enumerate(columns["price"])]
    table = write_csv(tmp_path / "events.csv", {**columns, "price": prices})
    with pytest.raises(
        UserError, match="row 8 holds no number in price 'cheap'; mend it, or leave it out with --on-er"
    ):
        predict_table(exported, table, tmp_path / "s.csv")
    assert not (tmp_path / "s.csv").exists()
    lines: list[str] = []
    done = predict_table(exported, table, tmp_path / "s.csv", on_error="skip", on_line=lines.append)
    assert done == Predicted(ROWS, damaged=2)
    assert lines == [
        "no score for row 8, which holds no number in price 'cheap'",
        "no score for row 10, which holds no number in price '1,5'",
    ]
    found, whole = scores(tmp_path / "s.csv"), np.setdiff1d(np.arange(ROWS), list(wrong))
    assert np.isnan(found[list(wrong)]).all()
    np.testing.assert_allclose(found[whole], expected[whole], rtol=0, atol=ROUNDING)


def test_torn_lines_stop_or_are_left_out(exported: Path, columns: Columns, expected: Any, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "events.csv", columns)
    first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([first, *rest[:10], "u1,3", *rest[10:]]) + "\n")
    with pytest.raises(UserError, match=r"events\.csv: CSV parse error: .*u1,3"):
        predict_table(exported, table, tmp_path / "s.csv")
    lines: list[str] = []
    done = predict_table(exported, table, tmp_path / "s.csv", on_error="skip", on_line=lines.append)
    assert done == Predicted(ROWS, torn=1)
    assert lines == ["left out a line with another number of values than the header: u1,3"]
    np.testing.assert_allclose(scores(tmp_path / "s.csv"), expected, rtol=0, atol=ROUNDING)


def test_an_empty_table_gives_an_empty_one(exported: Path, columns: Columns, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "events.csv", {name: [] for name in columns})
    for out in ("s.csv", "s.parquet"):
        assert predict_table(exported, table, tmp_path / out, keep=["user"]) == Predicted()
        frame = pl.read_parquet(tmp_path / out) if out == "s.parquet" else pl.read_csv(tmp_path / out)
        assert frame.columns == ["user", "p_click", "p_conversion"]
        assert len(frame) == 0


def test_bad_input(exported: Path, columns: Columns, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "events.csv", columns)
    rest = {name: values for name, values in columns.items() if name != "price"}
    lacking = write_csv(tmp_path / "lacking.csv", rest)
    with pytest.raises(UserError, match=r"lacking\.csv has no column price; its columns are"):
        predict_table(exported, lacking, tmp_path / "s.csv")
    with pytest.raises(UserError, match=r"events\.csv has no column nothing"):
        predict_table(exported, table, tmp_path / "s.csv", keep=["nothing"])
    with pytest.raises(UserError, match="--on-error is 'ignore'; legal are stop, skip"):
        predict_table(exported, table, tmp_path / "s.csv", on_error="ignore")
    with pytest.raises(UserError, match=r"its name must end in .parquet or .csv"):
        predict_table(exported, table, tmp_path / "s.xlsx")
    changed = tmp_path / "changed"
    shutil.copytree(exported, changed)
    (changed / "model.py").write_text((changed / "model.py").read_text() + "# mine\n")
    with pytest.raises(UserError, match=r"model\.py is not the file that was exported"):
        predict_table(changed, table, tmp_path / "s.csv")
    card = json.loads((exported / "card.json").read_text())
    assert card["files"].keys() >= {"model.py", "weights.safetensors", "features.json"}
