"""MovieLens-1M: ratings with the user's gender or age as the domain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from autoctr.data.cache import Recipe
from autoctr.data.encoding import RawTable
from autoctr.data.hashing import file_digest
from autoctr.data.raw_files import find
from autoctr.data.schema import Column, Schema
from autoctr.data.source import FrameSource
from autoctr.data.splits import RandomSplit, SplitRule, StratifiedSplit
from autoctr.data.statistics import Kind
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl

_PARQUET = ("ratings.parquet", "users.parquet", "movies.parquet")
_DAT = ("ratings.dat", "users.dat", "movies.dat")
_HINT = "They come from https://grouplens.org/datasets/movielens/1m/ (ml-1m.zip)"
_YEAR = re.compile(r"\((\d{4})\)\s*$")

FIELDS = (
    Column("user_id"),
    Column("movie_id"),
    Column("gender", min_count=1),
    Column("age", min_count=1),
    Column("occupation", min_count=1),
    Column("zip_prefix"),
    Column("genres", Kind.MULTI, separator="|", max_length=6),
    Column("year"),
)


def gender(data: Path | None, seed: int) -> Recipe:
    """Domain gender, liked = rating of 4 or more, random 80/10/10."""
    return _recipe("movielens", data, "gender", 4, RandomSplit(seed=seed))


def age(data: Path | None, seed: int) -> Recipe:
    """As :func:`gender` with the seven age codes as domains."""
    return _recipe("movielens-age", data, "age", 4, RandomSplit(seed=seed))


def mlora(data: Path | None, seed: int) -> Recipe:
    """As MLoRA ran it: domain gender, liked = rating of 5, 60/20/20 stratified inside each domain."""
    return _recipe("movielens-mlora", data, "gender", 5, StratifiedSplit(seed=seed))


def _recipe(name: str, data: Path | None, domain: str, least: int, split: SplitRule) -> Recipe:
    files = find(data, "ml-1m", (_PARQUET, _DAT), _HINT)
    schema = Schema(FIELDS, ("liked",), domain, user="user_id")

    def read() -> RawTable:
        frame = read_ratings(files, least)
        return RawTable(FrameSource(frame), info={"source": str(files[0].parent), "label": f"rating >= {least}"})

    return Recipe(name, schema, split, {"files": file_digest(files), "least": least, "version": 1}, read)


def read_ratings(files: list[Path], least: int) -> pl.DataFrame:
    """All ratings with their user's and movie's columns and ``liked`` = rating of ``least`` or more."""
    import polars as pl

    if files[0].suffix == ".dat":
        ratings = _dat(files[0], ("user_id", "movie_id", "rating", "timestamp"))
        users = _dat(files[1], ("user_id", "gender", "age", "occupation", "zip"))
        movies = _dat(files[2], ("movie_id", "title", "genres"))
        year = movies["title"].str.extract(_YEAR.pattern)
        movies = movies.with_columns(year.alias("year"))
        whole = ["user_id", "movie_id", "rating"]
        ratings = ratings.with_columns(pl.col(whole).cast(pl.Int64))
        users = users.with_columns(pl.col("user_id", "age", "occupation").cast(pl.Int64))
        movies = movies.with_columns(pl.col("movie_id", "year").cast(pl.Int64))
    else:
        try:
            ratings, users, movies = (pl.read_parquet(file) for file in files)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(f"cannot read {files[0].parent}: {str(error).splitlines()[0]}") from error
    try:
        users = users.select(
            "user_id", "gender", "age", "occupation", pl.col("zip").str.slice(0, 3).alias("zip_prefix")
        )
        movies = movies.select("movie_id", "genres", pl.col("year").cast(pl.Int64))
        return (
            ratings.select("user_id", "movie_id", (pl.col("rating") >= least).cast(pl.Int8).alias("liked"))
            .join(users, on="user_id", how="left", maintain_order="left")
            .join(movies, on="movie_id", how="left", maintain_order="left")
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{files[0].parent} is not MovieLens-1M: {str(error).splitlines()[0]}") from error


def _dat(file: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """A file of ``::``-separated latin-1 lines; all columns as text."""
    import polars as pl

    try:
        lines = pl.Series("line", file.read_text(encoding="latin-1").splitlines(), dtype=pl.String)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    parts = lines.str.split("::")
    wrong = (parts.list.len() != len(columns)).arg_true()
    if len(wrong):
        raise UserError(f"{file}, line {wrong[0] + 1}: expected {'::'.join(columns)}, found {lines[wrong[0]]!r}")
    return pl.DataFrame({name: parts.list.get(place) for place, name in enumerate(columns)})
