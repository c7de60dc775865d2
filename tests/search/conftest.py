from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import SEARCH_STEPS, search_small, write_events, write_space

from autoctr.data.dataset import Dataset
from autoctr.data.presets import load_dataset
from autoctr.search import oneshot
from autoctr.search.study import Study
from autoctr.search.trial import Laboratory


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cache and the space of all tests here."""
    folder = tmp_path_factory.mktemp("search")
    write_space(folder)
    return folder


@pytest.fixture(scope="session")
def space_file(shared: Path) -> Path:
    return shared / "small.yaml"


def make_small(patch: pytest.MonkeyPatch, shared: Path) -> None:
    torch.set_num_threads(1)
    patch.setenv("AUTOCTR_CACHE", str(shared / "cache"))
    patch.setattr(oneshot, "FEWEST_STEPS", SEARCH_STEPS)


@pytest.fixture(autouse=True)
def small(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short supernets, one thread, and the shared cache."""
    threads = torch.get_num_threads()
    make_small(monkeypatch, shared)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(shared: Path, space_file: Path) -> Study:
    """A finished study; look at it, but do not run it."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        return search_small(shared / "studies", space_file, trials=8)


@pytest.fixture(scope="session")
def dataset(shared: Path) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        return load_dataset("taobao-sim", rows=3000)


@pytest.fixture
def events_table(tmp_path: Path) -> tuple[Path, Path]:
    """A table of one's own with two labels and three markets, and its schema."""
    return write_events(tmp_path)


@pytest.fixture
def new(dataset: Dataset, tmp_path: Path) -> Callable[[], Laboratory]:
    """Laboratories with nothing in their caches, for the ``dataset`` of the test's module."""
    folders = iter(range(99))

    def make() -> Laboratory:
        folder = tmp_path / str(next(folders))
        return Laboratory(dataset, metric="wauc", seed=3, device=torch.device("cpu"), folder=folder)

    return make


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Address, with its password, of a database server that lives as long as the tests."""
    pytest.importorskip("psycopg")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not binaries:
        pytest.skip("PostgreSQL is not installed; apt-get install postgresql")
    binary, folder = binaries[-1].parent, Path(tempfile.mkdtemp(prefix="autoctr-postgresql-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # which the server refuses to run as
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")

    def run(name: str, *words: str) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        subprocess.run([binary / name, "-D", folder / "data", *words], check=True, **quiet, **who)

    try:
        (folder / "password").write_text("hush-hush\n", encoding="utf-8")
        (folder / "password").chmod(0o644)
        run("initdb", "--no-sync", "-U", "tester", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}")
        settings = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off -c max_connections=100"
        run("pg_ctl", "-w", "-o", settings, "-l", str(folder / "log"), "start")
        yield f"postgresql://tester:hush-hush@127.0.0.1:{port}/postgres"
        run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
