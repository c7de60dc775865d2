"""What a plain ``pip install`` brings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "autoctr", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_spaces_and_recipes_are_found_after_an_install(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "spaces")
    assert shown.returncode == 0, shown.stderr
    assert {line.split()[0] for line in shown.stdout.splitlines()} == {
        p.stem for p in ROOT.glob("search_spaces/*.yaml")
    }
    where = "import autoctr, autoctr.shipped as s; print(autoctr.__file__); print(*s.names('studies'))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    file, recipes = found.stdout.splitlines()
    assert file.startswith(str(installed))
    assert set(recipes.split()) == {p.stem for p in ROOT.glob("studies/*.yaml")}


def test_types_are_shipped(installed: Path) -> None:
    assert (installed / "autoctr" / "py.typed").exists()


def test_readme_promises_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python3 -m venv .*$", readme, re.MULTILINE)
    assert len(commands) == 2
    assert "autoctr search" in commands[0]
    assert commands[1].endswith("pytest -n 2")
    assert all("-c constraints.txt" in command for command in commands)


def test_every_dependency_is_explained_in_the_readme_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: listed for name, listed in project["optional-dependencies"].items() if name != "test"}
    every = {line for listed in [project["dependencies"], *extras.values()] for line in listed}
    dependencies = sorted({re.split(r"[\[<>=]", line)[0] for line in every})
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    assert len(dependencies) >= 8
    for name in dependencies:
        assert re.search(rf"\|[^|]*\b{name}\b[^|]*\|", readme), f"{name} has no line in the README's table"
        assert f"{name.lower()}==" in pinned
