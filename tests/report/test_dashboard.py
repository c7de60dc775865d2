"""``autoctr dashboard``: what it opens, that it reads only, and that it goes away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
from small_study import command, one_thread

from autoctr.errors import UserError
from autoctr.report import dashboard as module
from autoctr.report.dashboard import dashboard
from autoctr.search.study import Settings, Study

SETTINGS = Settings({"name": "taobao-sim"}, "joint", "wauc", 0, "cpu", 1, None)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create("s", SETTINGS, {}, root=tmp_path)


def fake(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [environment["PATH_INFO"].encode()]


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Another application in the place of optuna-dashboard, and the storages that it was given."""
    given: list[Any] = []
    other = types.ModuleType("optuna_dashboard")
    other.wsgi = lambda storage: given.append(storage) or fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "optuna_dashboard", other)
    return given


def test_it_gets_the_study_and_says_where_it_is(study: Study, faked: list[Any]) -> None:
    with dashboard(study, 0) as (address, _):
        assert address.startswith("http://127.0.0.1:")
        assert address.endswith(f"/dashboard/studies/{study.database._study_id}")
    assert optuna.get_all_study_names(faked[0]) == ["s"]


def test_what_changes_a_study_is_refused() -> None:
    said: list[str] = []
    read = module._reading(fake)
    environment = {"PATH_INFO": "/x"}
    assert list(read({**environment, "REQUEST_METHOD": "GET"}, lambda status, _: said.append(status))) == [b"/x"]
    for method in ("POST", "PUT", "DELETE"):
        read({**environment, "REQUEST_METHOD": method}, lambda status, _: said.append(status))
    assert said == ["200 OK", *["403 Forbidden"] * 3]


def test_bad_ports_and_a_missing_library(study: Study, faked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="choose another --port"):
        dashboard(study, taken.getsockname()[1]).__enter__()
    with pytest.raises(UserError, match="legal are 0"):
        dashboard(study, 70000).__enter__()
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(UserError, match=r"pip install 'autoctr\[dashboard\]'"):
        dashboard(study, 0).__enter__()


def test_a_real_one_answers_and_ends(study: Study) -> None:
    pytest.importorskip("optuna_dashboard")
    study.database.add_trial(optuna.trial.create_trial(value=0.5))
    arguments = command("dashboard", "s", "--port", 0, "--root", study.folder.parent)
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=one_thread()
    ) as run:
        try:
            assert run.stdout is not None
            address = run.stdout.readline().split()[0]
            assert b"<html" in urllib.request.urlopen(address, timeout=30).read()
            answer = address.replace("/dashboard/", "/api/")
            found = json.load(urllib.request.urlopen(f"{answer}?after=0", timeout=30))
            assert [trial["values"] for trial in found["trials"]] == [[0.5]]
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(urllib.request.Request(answer, method="DELETE"), timeout=30)
        finally:
            os.kill(run.pid, signal.SIGINT)
        _, errors = run.communicate(timeout=30)
    assert run.returncode == 0, errors
    assert errors == ""
    assert len(study.database.trials) == 1
