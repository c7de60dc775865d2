"""The README's commands and snippets do what it says: each block runs, with smaller data and budgets."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import polars as pl
import pytest
import torch
from cli.conftest import Shell
from small_study import SEARCH_STEPS, write_space

import autoctr
from autoctr.cli import cli
from autoctr.search import oneshot

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
#: What makes a command small: each pattern is replaced, in this order.
SMALLER = {
    r"--recipe taobao-sim": "--recipe taobao-sim --rows 3000 --trials 2",
    r"\[--trials N\] \[--time-limit T\]": "--trials 3",
    r"\[--trial N\]": "--trial 0",
    r"[\[\]]": "",
    r"--time-limit \S+": "--trials 2",
    r"^autoctr search (?!.*(--recipe|--space))": "autoctr search --space small.yaml ",
    r"--recipe": "--space small.yaml --recipe",
    r"^(autoctr confirm .*)": r"\1 --seeds 2 --finalists 1",
    r"^(autoctr compare .*)": r"\1 --models dcn-v2 --epochs 1",
    r"--seeds 3": "--seeds 2",
    r"^(autoctr tickets .*)--rewind \S+": r"\1--rewind 0,0.1 --seeds 2 --epochs 2 --ticket-rounds 1",
    r"^(autoctr stream .*)": r"\1 --epochs 1",
    # downloaded data sets: a table takes their place
    r"--dataset movielens-age --data DIR": "--table events.parquet --schema schema.yaml",
    r"--dataset kuairand --data DIR": "--table events.parquet --schema timed.yaml",
    # words that stand for the reader's own
    r"\bNAME\b": "mine",
    r"\bNEW\b": "other",
    r"\bSPACE\b": "small.yaml",
}  # fmt: skip
#: Commands that are only parsed: they need GPUs, a server or a cluster, or go on until Ctrl-C.
PARSED = ("--gpus", "postgresql://", "torchrun", "autoctr dashboard")


def commands() -> list[str]:
    """Every ``autoctr ...`` of the README, in code blocks and in running text, once."""
    found = [line for kind, block in BLOCKS if kind == "sh" for line in _lines(block)]
    found = [
        line[line.index("autoctr ") :].partition(">")[0] for line in found if re.search(r"(^|/|-m )autoctr ", line)
    ]
    found += [text.replace("\n", " ") for text in re.findall(r"`(autoctr [^`]+)`", README)]
    return sorted({" ".join(command.split()) for command in found})


def _lines(block: str) -> list[str]:
    """The commands of a block, without comments."""
    joined = block.replace("\\\n", " ").splitlines()
    return [line for line in (text.partition("#")[0].strip() for text in joined) if line]


@pytest.mark.parametrize("command", commands())
def test_the_command_line_takes(command: str) -> None:
    words = shlex.split(re.sub(r"[\[\]]", "", command).replace("...", ""))[1:]
    values = {"N": "3", "T": "60s"}
    words = [values.get(word, word) for word in words]
    name, *arguments = words
    context = click.Context(cli, **cli.context_settings)  # a command keeps the help option of its first context
    found = cli.get_command(context, name)
    assert found is not None, f"there is no command {name}"
    while isinstance(found, click.Group) and arguments:
        name, *arguments = arguments
        found = found.get_command(context, name)
        assert found is not None, f"there is no command {name}"
    needs = [p for p in found.params if isinstance(p, click.Argument) and p.required]
    bare = needs and not arguments and len(words) <= 2  # a command's name alone, in running text
    if not bare:
        found.make_context(name, arguments, parent=context)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 20


def schema() -> str:
    """The README's schema."""
    (found,) = [block for kind, block in BLOCKS if kind == "yaml"]
    return found


def write_table(folder: Path, rows: int = 2400) -> None:
    """A table with the columns of the README's schema, ``events.parquet``, and what else its commands name."""
    draw = random.Random(1)
    users, items = ([draw.randrange(60) for _ in range(rows)], [draw.randrange(40) for _ in range(rows)])
    clicks = [draw.random() < (0.6 if (user + item) % 2 else 0.2) for user, item in zip(users, items, strict=True)]
    columns = {
        "user_id": [f"u{user}" for user in users],
        "item_id": [f"i{item}" for item in items],
        "market": [draw.choice(["de", "fr", "it"]) for _ in range(rows)],
        "tags": ["|".join(draw.sample(["red", "big", "new", "old", "soft"], 2)) for _ in range(rows)],
        "price": [round(draw.uniform(1, 90), 2) for _ in range(rows)],
        "day": [1_700_000_000 + 86_400 * (row * 20 // rows) + row for row in range(rows)],
        "click": list(map(int, clicks)),
    }
    table = pl.DataFrame(columns)
    table.write_parquet(folder / "events.parquet")
    table.tail(900).write_parquet(folder / "newer.parquet")
    table.tail(200).drop("click").write_parquet(folder / "tomorrow.parquet")
    table.tail(200).drop("click").write_csv(folder / "tomorrow.csv")
    vectors = np.random.default_rng(0).normal(size=(40, 4)).tolist()
    pl.DataFrame({"item_id": [f"i{item}" for item in range(40)], "vector": vectors}).write_parquet(
        folder / "image_vectors.parquet"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the blocks run, one after the other, as a reader would."""
    where, threads = tmp_path_factory.mktemp("readme"), torch.get_num_threads()
    write_table(where)
    write_space(where)
    with pytest.MonkeyPatch.context() as patch:
        torch.set_num_threads(1)
        patch.chdir(where)
        patch.setenv("AUTOCTR_CACHE", str(where / "cache"))
        patch.setattr(oneshot, "FEWEST_STEPS", SEARCH_STEPS)
        yield where
    torch.set_num_threads(threads)


def smaller(command: str) -> str:
    """A command with less to do."""
    for pattern, instead in SMALLER.items():
        command = re.sub(pattern, instead, command)
    return command


def run(line: str) -> None:
    """Run one line of a block."""
    line, _, target = smaller(line).partition(">")
    words = shlex.split(line)
    if words[0] == "autoctr":
        result = Shell()(*words[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        if target:
            Path(target.strip()).write_text(result.stdout, encoding="utf-8")
        return
    assert words[0] == "python", line
    done = subprocess.run([sys.executable, "-I", *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def block_with(word: str) -> list[str]:
    """The commands of the one block that has ``word``."""
    (found,) = [block for kind, block in BLOCKS if kind == "sh" and word in block]
    return _lines(found)


def run_block(word: str, after: Callable[[str], None] = lambda line: None) -> None:
    """Run the block, and tell each line when it has run."""
    for line in block_with(word):
        if not any(needs in line for needs in PARSED):
            run(line)
            after(line)


@pytest.mark.slow
def test_an_own_table_from_its_rows_to_predictions(folder: Path) -> None:
    run_block("--export model/")
    assert len(pl.read_csv("probabilities.csv")) == 200


@pytest.mark.slow
def test_the_blocks_of_an_own_table_run(folder: Path) -> None:
    def correct(line: str) -> None:
        if line.startswith("autoctr data schema"):
            Path("schema.yaml").write_text(schema(), encoding="utf-8")

    run_block("autoctr data schema", correct)
    scores = pl.read_parquet("scores.parquet")
    assert len(scores) == 200
    assert {"user_id", "item_id"} < set(scores.columns)
    assert Path("newer/model.py").exists()


@pytest.mark.slow
@pytest.mark.parametrize("word", ["--plain mine-plain", "autoctr compare", "autoctr resume", "--workers 4"])
def test_the_other_blocks_run(word: str, folder: Path) -> None:
    Path("schema.yaml").write_text(schema(), encoding="utf-8")
    Path("timed.yaml").write_text(schema() + "timestamp: day\n", encoding="utf-8")
    if not Path("studies/mine").exists():
        run("autoctr search --table events.parquet --schema schema.yaml --time-limit 1h --study mine")
    run_block(word)


@pytest.mark.slow
def test_the_main_job_runs(folder: Path) -> None:
    (line,) = block_with("--recipe taobao-sim")
    run(line.split("&& ")[-1].removeprefix(".venv/bin/"))


@pytest.mark.slow
def test_the_python_calls_run(folder: Path) -> None:
    Path("schema.yaml").write_text(schema(), encoding="utf-8")
    (told,) = re.findall(r"From Python: (.*?)\n\n", README, re.DOTALL)
    calls = [" ".join(call.split()) for call in re.findall(r"`(.*?)`", told, re.DOTALL)]
    assert len(calls) == 6
    known: dict[str, object] = {"name": "events-small", "autoctr": autoctr}
    for call in calls:
        call = call.replace("time_limit=3600", "trials=2, space='small.yaml', study='events-small', root='python'")
        call = call.replace("table=..., schema=...", "table='newer.parquet', schema='schema.yaml'")
        call = re.sub(r"\(name(.*)\)$", r"(name\1, root='python')", call)
        exec(call, known)
    assert Path("newer/card.json").exists()
