"""The same from Python, and what is imported when."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_study import ROWS, SHORT_SUPERNETS, one_thread

import autoctr


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=one_thread(), timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys, json
sys.argv = ["autoctr", "--help"]
from autoctr.cli import main
try: main()
except SystemExit: pass
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    loaded = set(json.loads(run(code).splitlines()[-1]))
    assert not loaded & {"torch", "optuna", "polars", "pandas", "numpy", "pyarrow", "sqlalchemy", "rich", "yaml"}


def test_training_from_an_encoded_dataset_needs_no_table_engine(shared: Path, root: Path, tmp_path: Path) -> None:
    code = f"""{SHORT_SUPERNETS}
import sys, json, autoctr
for name in ("polars", "pandas"): sys.modules[name] = None
space, root = {str(shared / "small.yaml")!r}, {str(tmp_path)!r}
study = autoctr.search("taobao-sim", rows={ROWS}, space=space, trials=2, root=root)
print(json.dumps([record.value is not None for record in study.records()]))
"""
    assert json.loads(run(code).splitlines()[-1]) == [True, True]


def test_names_are_callable_in_any_order_of_imports() -> None:
    code = """
import {first}
import autoctr
import autoctr.search, autoctr.export, autoctr.search.run, autoctr.export.folder
from autoctr import search, export, load_study, resume, UserError
assert all(map(callable, (search, export, load_study, resume, autoctr.search, autoctr.export)))
for call in (lambda: autoctr.search("nothing"), lambda: autoctr.load_study("x", root="nowhere"),
             lambda: autoctr.export("x", "out", root="nowhere"), lambda: autoctr.resume("x", root="nowhere")):
    try: call()
    except UserError: pass
    else: raise SystemExit("no error")
"""
    for first in ("autoctr.export.folder", "autoctr.search.study"):
        run(code.format(first=first))


def test_from_python(shared: Path, root: Path, tmp_path: Path) -> None:
    space = shared / "small.yaml"
    study = autoctr.search("taobao-sim", rows=ROWS, space=space, trials=1, study="p", root=tmp_path)
    assert autoctr.load_study("p", root=str(tmp_path)).records() == study.records()
    assert len(autoctr.resume("p", root=tmp_path, trials=2).records()) == 2
    folder, difference = autoctr.export("p", tmp_path / "model", root=tmp_path)
    assert difference < 1e-5
    assert (folder / "model.py").exists()
    with pytest.raises(autoctr.UserError, match="no option 'colour'"):
        autoctr.search("taobao-sim", colour=3)


def test_the_name_of_a_study_is_made_from_whatever_the_table_is_called(shared: Path, tmp_path: Path) -> None:
    table = tmp_path / "my events (new).csv"
    table.write_text((shared / "events.csv").read_text())
    schema = shared / "schema.yaml"
    names = [
        autoctr.search(table=table, schema=schema, space=shared / "small.yaml", trials=1, root=tmp_path).name
        for _ in range(2)
    ]
    assert names == ["my-events-new-small", "my-events-new-small-2"]
