"""``autoctr report`` as a user types it."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import Shell


def test_a_page_is_written(shell: Shell, root: Path, tmp_path: Path) -> None:
    result = shell("report", "sim", "--root", root)
    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote sim.html\n"
    page = (tmp_path / "sim.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<svg") >= 3
    own = shell("report", "own", "--root", root, "--out", tmp_path / "deep" / "own.html")
    assert own.exit_code == 0, own.output
    assert "buy" not in page
    assert (tmp_path / "deep" / "own.html").exists()


def test_text_is_printed(shell: Shell, root: Path, tmp_path: Path) -> None:
    result = shell("report", "own", "--text", "--root", root)
    assert result.exit_code == 0, result.output
    assert {"All trials", "Best score over time", "Test rows by domain"} <= set(result.stdout.splitlines())
    assert "buy: wauc" in result.stdout
    assert not list(tmp_path.glob("*.html"))


def test_bad_reports(shell: Shell, root: Path) -> None:
    assert "there is no study absent" in shell.refused("report", "absent", "--root", root)
    assert "give one of them" in shell.refused("report", "sim", "--root", root, "--text", "--out", "x.html")
    secret = "postgresql://me:secret@127.0.0.1:1/none"
    assert "secret" not in shell.refused("dashboard", "sim", "--storage", secret)
    assert "cannot" in shell.refused("report", "sim", "--root", root, "--out", "/proc/none/x.html")
