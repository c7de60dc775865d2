"""The data sets autoctr knows by name, and the one function that opens any data set."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoctr.errors import UserError

if TYPE_CHECKING:
    from autoctr.data.cache import Recipe
    from autoctr.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named data set: what it is, whether it needs files, and its options with their defaults."""

    summary: str
    build: Callable[..., Recipe]
    needs_files: bool = True
    options: dict[str, Any] = dataclasses.field(default_factory=lambda: {"seed": 0})


def _taobao(themes: int) -> Callable[..., Recipe]:
    def build(data: Path | None, cache: Path | None, seed: int) -> Recipe:
        from autoctr.data import taobao

        return taobao.recipe(data, themes, seed)

    return build


def _taobao_sim(data: Path | None, cache: Path | None, rows: int, seed: int, truth: str) -> Recipe:
    from autoctr.data import taobao

    return taobao.simulated(cache, rows, seed, truth)


def _movielens(variant: str) -> Callable[..., Recipe]:
    def build(data: Path | None, cache: Path | None, seed: int) -> Recipe:
        from autoctr.data import movielens

        recipe: Recipe = getattr(movielens, variant)(data, seed)
        return recipe

    return build


def _kuairand(data: Path | None, cache: Path | None) -> Recipe:
    from autoctr.data import kuairand

    return kuairand.recipe(data)


PRESETS: dict[str, Preset] = {
    "taobao-sim": Preset(
        "10 simulated themes with a known ceiling; needs no files",
        _taobao_sim,
        needs_files=False,
        options={"rows": 150_000, "seed": 0, "truth": "full"},
    ),
    "taobao": Preset("Taobao theme clicks, the first 10 themes (Tianchi 9716)", _taobao(10)),
    "taobao-10": Preset("the same as taobao", _taobao(10)),
    "taobao-20": Preset("Taobao theme clicks, the first 20 themes", _taobao(20)),
    "taobao-30": Preset("Taobao theme clicks, the first 30 themes", _taobao(30)),
    "movielens": Preset("MovieLens-1M, domain gender, rating of 4 or more", _movielens("gender")),
    "movielens-age": Preset("MovieLens-1M, domain age, rating of 4 or more", _movielens("age")),
    "movielens-mlora": Preset("MovieLens-1M, domain gender, rating of 5, as MLoRA", _movielens("mlora")),
    "kuairand": Preset("KuaiRand-Pure, five tabs, click and conversion, split by time", _kuairand, options={}),
}


def recipe_for(
    name: str | None = None,
    *,
    data: Path | None = None,
    table: Path | None = None,
    schema: Path | None = None,
    cache: Path | None = None,
    **options: Any,
) -> Recipe:
    """How to make the data set: a preset by ``name``, or the user's ``table`` with its ``schema`` file.

    ``data`` is the folder of a preset's raw files. ``options`` are the preset's own (``Preset.options``);
    None leaves the default.

    Raises:
        UserError: for an unknown name or option, or missing files.
    """
    chosen = {option: value for option, value in options.items() if value is not None}
    if table is not None:
        if name is not None:
            raise UserError(f"both --dataset {name} and --table {table} were given; give one of them")
        if schema is None:
            raise UserError(f"--table needs --schema FILE; write a first one with: autoctr data schema {table}")
        from autoctr.data.table import recipe

        _check_options("a table of your own", chosen, {"seed": 0})
        return recipe(Path(table), Path(schema), chosen.get("seed", 0))
    if name is None:
        raise UserError(f"no data set was given; name one of {', '.join(PRESETS)}, or give --table and --schema")
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown data set {name!r}; legal names are {', '.join(PRESETS)}{meant}")
    preset = PRESETS[name]
    if schema is not None:
        raise UserError(f"--schema belongs to --table; the data set {name} brings its own")
    _check_options(name, chosen, preset.options)
    return preset.build(data, cache, **{**preset.options, **chosen})


def load_dataset(
    name: str | None = None,
    *,
    data: Path | None = None,
    table: Path | None = None,
    schema: Path | None = None,
    cache: Path | None = None,
    **options: Any,
) -> Dataset:
    """Open a data set, encoding it first if the cache does not hold it; arguments as for :func:`recipe_for`.

    Raises:
        UserError: for whatever the user can mend, in one line.
    """
    from autoctr.data.cache import prepare

    recipe = recipe_for(name, data=data, table=table, schema=schema, cache=cache, **options)
    return prepare(recipe, cache)


def _check_options(name: str, given: dict[str, Any], legal: dict[str, Any]) -> None:
    for option, value in given.items():
        if option not in legal:
            shown = ", ".join(legal) or "none"
            raise UserError(f"{name} has no option {option!r}; its options are: {shown}")
        if not isinstance(value, type(legal[option])):
            raise UserError(f"option {option} is {value!r}, expected {type(legal[option]).__name__}")
