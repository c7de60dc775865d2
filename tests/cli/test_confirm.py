"""``autoctr confirm`` as a user types it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autoctr.search.trial import Laboratory
from cli.conftest import Shell


@pytest.fixture
def studies(root: Path, tmp_path: Path) -> Path:
    """A copy of the study ``sim``."""
    shutil.copytree(root / "sim", tmp_path / "studies" / "sim")
    return tmp_path / "studies"


def test_a_confirmation_stops_and_goes_on(shell: Shell, studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("confirm", "sim", "--finalists", 1, "--seeds", 2, "--root", studies)
    inner, calls = Laboratory.run, iter(range(99))

    def dying(self: Laboratory, *arguments: object, **options: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return inner(self, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Laboratory, "run", dying)
        stopped = shell(*command)
    assert stopped.exit_code == 130
    assert stopped.stderr.endswith("stopped; trained networks are stored; continue with the same command\n")
    assert "certificate" not in shell("show", "sim", "--root", studies).stdout
    result = shell(*command)
    assert result.exit_code == 0, result.output
    assert "seed 0" not in "".join(line for line in result.stdout.splitlines() if line.startswith("trial 0 seed"))
    assert "trial 0 seed 1  validation wauc 0." in result.stdout
    assert "certificate, 2 seeds each: " in result.stdout
    assert result.stdout[result.stdout.index("certificate,") :] in shell("show", "sim", "--root", studies).stdout


def test_bad_confirmations(shell: Shell, studies: Path) -> None:
    assert "seeds is 1; it must be 2 or more" in shell.refused("confirm", "sim", "--seeds", 1, "--root", studies)
    assert "there is no study absent" in shell.refused("confirm", "absent", "--root", studies)
