from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from autoctr.data.guess import guess
from autoctr.data.schema import Column, Schema, load_schema, load_schema_and_split
from autoctr.data.splits import TimeSplit
from autoctr.data.statistics import Kind
from autoctr.errors import UserError

GOOD = """\
labels: [click]
domain: market
user: uid
split: {kind: time, column: day, boundaries: [5, 7]}
columns:
  - uid
  - {name: price, kind: numeric, bins: 10}
  - {name: tags, kind: multi, separator: "|", max_length: 4}
  - {name: item_vector, kind: vector, source: item, table: items.csv}
"""


def test_yaml_is_read_and_written_back(tmp_path):
    file = tmp_path / "schema.yaml"
    file.write_text(GOOD)
    schema, split = load_schema_and_split(file)
    assert split == TimeSplit("day", (5, 7))
    assert load_schema(file) == schema
    assert schema.columns[1] == Column("price", Kind.NUMERIC, bins=10)
    assert [column.name for column in schema.inputs] == ["uid", "price", "tags", "item_vector", "market"]
    assert schema.raw_columns == ["uid", "price", "tags", "item", "market", "click"]
    assert Schema.from_dict(schema.to_dict()) == schema


def test_a_listed_domain_is_not_added_again():
    schema = Schema((Column("market", min_count=9), Column("x")), ("y",), "market")
    assert [(column.name, column.min_count) for column in schema.inputs] == [("market", 1), ("x", 2)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("user: uid", "usr: uid", r"schema.yaml, line 3: unknown field 'usr'; legal are columns, labels"),
        ("domain: market\n", "", r"schema.yaml, line 1: domain is missing"),
        (
            "kind: numeric",
            "kind: number",
            r"line 7: column price: unknown kind 'number'; legal are categorical, numeric",
        ),
        ("bins: 10", "bins: ten", r"line 7: column price: bins is 'ten', expected a whole number"),
        ("bins: 10", "bin: 10", r"line 7: column price: unknown field 'bin'"),
        ("bins: 10", "bins: 1", r"line 7: column price: bins is 1"),
        ("[click]", "[price]", r"label price is also listed as an input"),
        ("[click]", "[]", r"names no label"),
        ("[click]", "[1]", r"line 1: labels is \[1\]"),
        ("  - uid\n", "  - uid\n  - uid\n", r"lists column uid more than once"),
        (", table: items.csv", "", r"line 9: column item_vector: kind vector needs a table"),
        ("boundaries: [5, 7]", "boundaries: [7]", r"line 4: split: boundaries is \[7\]"),
        ("[click]", "[click", r"schema.yaml, line \d: not valid YAML"),
        ("domain: market", "domain: price", r"domain column price is of kind numeric"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_place(tmp_path, old, new, message):
    assert old in GOOD
    file = tmp_path / "schema.yaml"
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        load_schema_and_split(file)
    assert "\n" not in str(caught.value)


def test_a_missing_schema_file(tmp_path):
    with pytest.raises(UserError, match="cannot read the schema"):
        load_schema(tmp_path / "none.yaml")


def test_a_guessed_schema_loads_and_encodes(tmp_path: Path, events: pl.DataFrame):
    from autoctr.data.presets import load_dataset

    events.write_parquet(tmp_path / "events.parquet")
    text = guess(tmp_path / "events.parquet").text
    (tmp_path / "schema.yaml").write_text(text)
    schema, split = load_schema_and_split(tmp_path / "schema.yaml")
    assert split is not None
    assert schema.labels == ("click", "buy")
    assert (schema.domain, schema.user, schema.timestamp) == ("market", "user", "ts")
    kinds = {column.name: column.kind for column in schema.columns}
    assert kinds["price"] is Kind.NUMERIC
    assert kinds["seen"] is Kind.MULTI
    assert kinds["tags"] is Kind.MULTI
    assert kinds["item"] is Kind.CATEGORICAL
    dataset = load_dataset(table=tmp_path / "events.parquet", schema=tmp_path / "schema.yaml")
    assert len(dataset.train) == pytest.approx(2400, abs=20)


def test_no_label_or_domain_to_guess(tmp_path):
    pl.DataFrame({"x": [0.5, 1.5]}).write_csv(tmp_path / "a.csv")
    with pytest.raises(UserError, match="needs a label"):
        guess(tmp_path / "a.csv")
    pl.DataFrame({"x": [0.5] * 2, "y": [0, 1]}).write_csv(tmp_path / "a.csv")
    with pytest.raises(UserError, match="looks like a domain"):
        guess(tmp_path / "a.csv")
