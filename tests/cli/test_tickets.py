from __future__ import annotations

from small_study import ROWS

from cli.conftest import Shell

SMALL = ("tickets", "--dataset", "taobao-sim", "--rows", ROWS, "--device", "cpu")


def test_tickets_prints_one_line_per_k(shell: Shell) -> None:
    few = ("--rewind", "0,0.5", "--ticket-rounds", 1, "--seeds", 1, "--epochs", 1, "--barrier", 0.2)
    result = shell(*SMALL, *few)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum("same masks on fresh weights" in line for line in lines) == 3
    assert "best k by validation" in lines[-1]
    assert "keep rate 0.20" in lines[-1]


def test_bad_options_are_one_line(shell: Shell) -> None:
    assert "legal are numbers of passes" in shell.refused(*SMALL, "--rewind", "a")
    assert "keep_rate is 2.0; legal is 0.01 to 1" in shell.refused(*SMALL, "--keep-rate", 2)
    assert "keep rate is 1" in shell.refused(*SMALL, "--keep-rate", 1)
    assert "need 12 passes, more than epochs 10 allows" in shell.refused(*SMALL, "--ticket-rounds", 12)
    assert "legal are wauc, auc, logloss" in shell.refused(*SMALL, "--metric", "f1")
    assert "legal is one of domain, task, network" in shell.refused(*SMALL, "--ticket-unit", "row")
