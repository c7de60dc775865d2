from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from small_study import ROWS, SEARCH_STEPS, write_events, write_space

from autoctr import cli
from autoctr.search import oneshot


class Shell:
    """Runs commands in this process as ``autoctr`` would: exit code, output and errors, never a traceback."""

    def __call__(self, *arguments: object) -> Result:
        runner = CliRunner()
        patch = pytest.MonkeyPatch()
        patch.setattr("sys.argv", ["autoctr", *map(str, arguments)])

        import click

        @click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
        @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
        def whole(rest: tuple[str, ...]) -> None:
            cli.main()

        with patch.context():
            result = runner.invoke(whole, [])
        patch.undo()
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def refused(self, *arguments: object) -> str:
        """The one line on standard error of a command that a user has to change."""
        result = self(*arguments)
        assert result.exit_code == 2, result.output
        lines = [line for line in result.stderr.splitlines() if not line.startswith("autoctr: warning:")]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("autoctr: ")
        return lines[0]


@pytest.fixture(scope="session")
def shell() -> Shell:
    return Shell()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cache, the space and a table of one's own."""
    folder = tmp_path_factory.mktemp("cli")
    write_space(folder)
    write_events(folder)
    return folder


def make_small(patch: pytest.MonkeyPatch, shared: Path) -> None:
    torch.set_num_threads(1)
    patch.setenv("AUTOCTR_CACHE", str(shared / "cache"))
    patch.setattr(oneshot, "FEWEST_STEPS", SEARCH_STEPS)


@pytest.fixture(autouse=True)
def small(shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Short supernets, one thread, the shared cache and a folder of its own."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    make_small(monkeypatch, shared)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def root(shared: Path, shell: Shell) -> Path:
    """The folder of two finished studies: ``sim`` and, with two labels, ``own``."""
    studies = shared / "studies"
    common = ["--space", shared / "small.yaml", "--root", studies, "--trials", 4, "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        sim = shell("search", "--dataset", "taobao-sim", "--rows", ROWS, "--study", "sim", *common)
        assert sim.exit_code == 0, sim.output
        table = ["--table", shared / "events.csv", "--schema", shared / "schema.yaml"]
        own = shell("search", *table, "--study", "own", *common)
        assert own.exit_code == 0, own.output
    (studies / "sim.txt").write_text(sim.stdout)
    return studies
