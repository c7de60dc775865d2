"""``autoctr export --format``, ``autoctr predict --format`` and ``autoctr bench``, as a user types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_study import ROWS

from autoctr.data.presets import recipe_for
from autoctr.data.raw_rows import raw_rows
from autoctr.export import bench
from cli.conftest import Shell


def test_export_predict_and_bench(shell: Shell, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    done = shell("export", "sim", "--root", root, "--trial", 0, "--out", model, "--format", "pt2")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].startswith(f"wrote {model}; its probabilities differ")
    assert set(json.loads((model / "card.json").read_text())["check"]) == {"python", "pt2"}
    raw_rows(recipe_for("taobao-sim", rows=ROWS), "test", 100).write_csv(tmp_path / "events.csv")
    for kind in ("python", "pt2"):
        done = shell("predict", model, tmp_path / "events.csv", tmp_path / f"{kind}.csv", "--format", kind)
        assert done.exit_code == 0, done.output
    python, pt2 = (pl.read_csv(tmp_path / f"{kind}.csv").to_numpy() for kind in ("python", "pt2"))
    np.testing.assert_allclose(pt2, python, rtol=0, atol=1e-5)
    message = shell.refused("predict", model, tmp_path / "events.csv", tmp_path / "s.csv", "--format", "onnx")
    assert "holds no model.onnx; its formats are python, pt2; export with --format onnx" in message
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "CALLS", (2, 2))
    done = shell("bench", model, "--rows", 64, "--threads", 1, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["threads"] == 1
    assert {(speed["network"], speed["format"]) for speed in found["speeds"]} == {
        (network, kind) for network in ("export", "plain") for kind in ("python", "pt2")
    }
    assert len(shell("bench", model, "--rows", 1).stdout.splitlines()) == 2 + 5


def test_bad_formats(shell: Shell, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["export", "sim", "--root", root, "--out", tmp_path / "x", "--format"]
    assert "unknown format 'tflite'; legal are python, onnx, pt2" in shell.refused(*words, "pt2,tflite")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "needs onnx, which is missing; pip install 'autoctr[onnx]'" in shell.refused(*words, "onnx")
    assert "is not a whole export" in shell.refused("bench", tmp_path)
    assert not (tmp_path / "x").exists()
