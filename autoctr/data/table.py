"""The user's own table with a schema file."""

from __future__ import annotations

from pathlib import Path

from autoctr.data.cache import Recipe
from autoctr.data.encoding import RawTable
from autoctr.data.schema import load_schema_and_split
from autoctr.data.source import FileSource, need
from autoctr.data.splits import RandomSplit
from autoctr.data.vectors import read_vectors
from autoctr.errors import UserError


def recipe(table: Path, schema_file: Path, seed: int) -> Recipe:
    """A parquet or csv file, or a folder of them. Without a ``split`` in the schema file: random 80/10/10."""
    schema, split = load_schema_and_split(schema_file)
    split = split or RandomSplit(seed=seed)
    source = FileSource(Path(table))
    wanted = [*schema.raw_columns, *split.columns(schema.domain_column.raw, schema.labels)]
    need(table, wanted, source.columns)
    sides = {c.name: Path(schema_file).parent / c.table for c in schema.columns if c.table is not None}
    for name, file in sides.items():
        if not file.exists():
            raise UserError(f"{schema_file}: the table {file} of column {name} does not exist")
    content = {
        "files": source.digest(),
        "tables": {name: FileSource(file).digest() for name, file in sides.items()},
    }

    def read() -> RawTable:
        return RawTable(source, {name: read_vectors(file) for name, file in sides.items()}, {"source": str(table)})

    return Recipe(Path(table).stem or "table", schema, split, {**content, "version": 1}, read)
