"""Raw files: what can be wrong with them, and the forms of side tables."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from autoctr.data.source import FileSource
from autoctr.data.vectors import read_vectors
from autoctr.errors import UserError

MATRIX = np.asarray([[0.5, -1.0, 2e-3], [1.0, 2.0, 3.0]], np.float32)


def test_csv_columns_are_text_and_empty_is_missing(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffid,zip,text\n1,007,"a, ""b"""\n2,,""\n', encoding="utf-8")
    (chunk,) = FileSource(tmp_path / "a.csv").chunks(["zip", "text", "id"])
    assert chunk.rows() == [("007", 'a, "b"', "1"), (None, None, "2")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"x,y,x\n1,2,3\n", "more than one column named x"),
        ("a.csv", b"x,y\n1,2\n1,2,3\n", "cannot read"),
        ("a.csv", b"x,y\n1,\xff\xfe\n", "cannot read"),
        ("a.parquet", b"PAR1 but not really", "cannot read"),
        ("a.xlsx", b"", "neither parquet nor csv"),
        ("a.csv", b"x,z\n1,2\n", "has no column y; its columns are x, z"),
        (None, b"", "does not exist"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    path = tmp_path / (name or "nothing.csv")
    if name:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(FileSource(path).chunks(["x", "y"]))
    assert "\n" not in str(caught.value)


def test_a_folder_must_hold_one_kind_of_table(tmp_path):
    with pytest.raises(UserError, match="no parquet or csv"):
        FileSource(tmp_path).files  # noqa: B018 the property raises
    pl.DataFrame({"x": [1]}).write_csv(tmp_path / "a.csv")
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="both parquet and csv"):
        FileSource(tmp_path).files  # noqa: B018 the property raises


def text(separator: str, brackets: bool = False) -> list[str]:
    rows = [separator.join(repr(float(x)) for x in row) for row in MATRIX]
    return [f"[{row}]" for row in rows] if brackets else rows


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("form", ["columns", "blanks", "brackets", "semicolons"])
def test_side_tables_in_csv(tmp_path, form, header):
    if form == "columns":
        frame = pl.DataFrame({"id": [7, 9], **{f"v{i}": MATRIX[:, i].tolist() for i in range(3)}})
    else:
        emb = {"blanks": text(" "), "brackets": text(", ", True), "semicolons": text(";")}[form]
        frame = pl.DataFrame({"id": [7, 9], "emb": emb})
    frame.write_csv(tmp_path / "v.csv", include_header=header)
    table = read_vectors(tmp_path / "v.csv")
    assert table.ids == ("7", "9")
    np.testing.assert_allclose(table.matrix, MATRIX, rtol=1e-6)
    assert read_vectors(tmp_path / "v.csv", frozenset(["9"])).ids == ("9",)


@pytest.mark.parametrize("form", ["columns", "list"])
def test_side_tables_in_parquet(tmp_path, form):
    values = {f"v{i}": MATRIX[:, i] for i in range(3)} if form == "columns" else {"emb": MATRIX.tolist()}
    pl.DataFrame({"id": ["a", "b"], **values}).write_parquet(tmp_path / "v.parquet")
    table = read_vectors(tmp_path / "v.parquet")
    assert table.ids == ("a", "b")
    np.testing.assert_allclose(table.matrix, MATRIX, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,emb\n1,0.5 1.0\n2,0.5\n", r"vectors of 1 and of 2 numbers \(id 2\)"),
        ("id,a,b\n1,0.5,1.0\n2,0.5,\n", "vector of id 2 is shorter than 2 numbers"),
        ("id,a,b\n1,0.5,1.0\n2,0.5,x\n", "not a number"),
        ("id,emb\n1,0.5 one\n", "vector of id 1 holds something that is not a number"),
        ("id,a,b\n1,0.5,inf\n", "vector of id 1 holds something that is not a finite number"),
        ("id\n1\n", "has one column"),
        ("id,emb\n", "holds no vectors"),
    ],
)
def test_wrong_side_tables(tmp_path, content, message):
    (tmp_path / "v.csv").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_vectors(tmp_path / "v.csv")
    assert "\n" not in str(caught.value)
