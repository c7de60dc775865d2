"""Several workers on one study: nothing is lost, repeated or left, whoever dies."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from small_study import (
    ROWS,
    SHORT_SUPERNETS,
    SPACE,
    autoctr,
    command,
    one_thread,
    write_space,
)

from autoctr.errors import UserError
from autoctr.search.lease import began
from autoctr.search.proposal import genes
from autoctr.search.run import load_study, resume, search
from autoctr.search.study import Study
from autoctr.search.workers import crew
from search.test_resume import _DYING, MOMENTS

TRIALS = 16


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """The small space without supernets, which are not cut short in the processes of a crew, and with longer fits."""
    text = SPACE.replace("parallel, inherit, learn", "parallel, inherit, stacked").replace("batch: 512", "batch: 128")
    return write_space(tmp_path, text.replace("epochs: 3", "epochs: 20"), "quick")


def words(root: Path, space: Path, **options: object) -> list[object]:
    chosen = {
        "trials": TRIALS, "seed": 0, "rows": ROWS, "study": "s", "device": "cpu", "precision": "fp32", "root": root,
        "space": space, "dataset": "taobao-sim", "checkpoint_every": 1,
    } | options  # fmt: skip
    return ["search", *(word for key, value in chosen.items() for word in (f"--{key.replace('_', '-')}", value))]


def whole(study: Study, trials: int = TRIALS) -> None:
    """Every number is told once, none is left running, and no candidate is repeated."""
    records = study.records()
    assert [record.number for record in records] == list(range(trials))
    assert {record.state for record in records} <= {"COMPLETE", "PRUNED"}
    proposed = [genes(study.proposed(number)) for number in range(trials)]
    assert len(set(proposed)) == trials
    assert study.holders() == {}
    assert study.database.user_attrs["proof"]["best"]
    best = study.best()
    assert best is not None
    assert best.number in study.kept()


def kill_one(study: Study, patience: float = 90.0) -> int:
    """Kill a worker with a trial under way; its process."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        held = study.holders()
        for record in study.records():
            if record.state == "RUNNING" and record.rungs and record.owner in held:
                process = held[record.owner].process
                if began(process) == held[record.owner].began:
                    os.kill(process, signal.SIGKILL)
                    return process
        time.sleep(0.02)
    raise AssertionError("no worker was seen at work")


def test_two_processes_search_one_study(quick: Path, tmp_path: Path) -> None:
    done = autoctr(*words(tmp_path, quick, workers=2))
    assert done.returncode == 0, done.stderr
    assert "study s: 2 workers on this machine" in done.stdout
    assert all(f"worker {number}: trial" in done.stdout for number in (0, 1))
    whole(load_study("s", root=tmp_path))


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(quick: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*words(tmp_path, quick, workers=2)), stdout=subprocess.PIPE, text=True, env=one_thread()
    )
    while not Study("s", tmp_path, None).exists():
        time.sleep(0.1)
    study = load_study("s", root=tmp_path)
    kill_one(study)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "a worker died; all go on from what they last wrote" in output
    whole(load_study("s", root=tmp_path))


def test_workers_end_with_their_coordinator(quick: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(*words(tmp_path, quick, workers=2)), stdout=subprocess.DEVNULL, env=one_thread())
    while not Study("s", tmp_path, None).exists() or len(load_study("s", root=tmp_path).holders()) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    study = load_study("s", root=tmp_path)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while study.others_alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert study.others_alive() == []
    whole(resume("s", root=tmp_path))


@pytest.mark.parametrize("runs_out", [8.0, -1.0])
def test_trials_of_a_worker_that_died_elsewhere_are_taken_up_once_under_their_numbers(
    runs_out: float, space_file: Path, tmp_path: Path
) -> None:
    """Its lease runs out while another worker trains the rest, or had run out before."""
    dying, storage = SHORT_SUPERNETS + _DYING + MOMENTS["between rungs"], f"sqlite:///{tmp_path / 'shared.db'}"
    assert autoctr(*words(tmp_path, space_file, storage=storage), before=dying).returncode == -signal.SIGKILL
    left = load_study("s", root=tmp_path, storage=storage)
    assert [record.state for record in left.records()][3:] == ["RUNNING"]
    holder = dataclasses.replace(left.holders()[0], machine="elsewhere", until=left.now() + runs_out)
    left.set_holder(0, holder)
    study = resume("s", root=tmp_path, storage=storage)
    whole(study)
    record = study.records()[3]
    assert record.owner == (1 if runs_out > 0 else 0)
    assert record.values == left.records()[3].values


def test_what_does_not_go_together_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers is 0; legal are 1 to 1024"):
        crew(0, None, None, None, None)
    with pytest.raises(UserError, match="unknown backend 'ray'; legal are loky, dask"):
        crew(2, None, "ray", None, None)
    with pytest.raises(UserError, match="--backend dask and --scheduler tcp://HOST:PORT go together"):
        crew(2, None, "dask", None, None)
    with pytest.raises(UserError, match="--backend dask and --scheduler tcp://HOST:PORT go together"):
        crew(2, None, None, "tcp://head:8786", None)
    with pytest.raises(UserError, match="cannot open a file of this machine; add --storage postgresql://"):
        crew(2, None, "dask", "tcp://head:8786", None)
    with pytest.raises(UserError, match="--gpus are those of this machine"):
        crew(2, (0,), "dask", "tcp://127.0.0.1:8786", None)
    assert crew(1, None, None, None, None) is None
    assert crew(None, None, "dask", "tcp://127.0.0.1:8786", None) is not None
    wrong = autoctr("search", "-d", "taobao-sim", "--gpus", "0;1", "--root", tmp_path)
    assert wrong.returncode == 2
    assert "'0;1' are no numbers of GPUs; write 0 or 0,1,2" in wrong.stderr
    with pytest.raises(UserError, match=r"the study's database mysql://u:\*\*\*@host/x; legal are sqlite:///FILE and"):
        load_study("s", storage="mysql://u:secret@host/x")


def test_the_same_command_joins_a_study_in_postgresql(
    postgresql: str, space_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = words(tmp_path, space_file, storage=postgresql, study="joined")
    first, second = (
        subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=one_thread()
        )
        for _ in range(2)
    )
    outputs = [process.communicate(timeout=180)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert sum("joins study joined, which is there already; its totals and settings stay" in o for o in outputs) == 1
    study = load_study("joined", root=tmp_path, storage=postgresql)
    whole(study)
    assert {record.owner for record in study.records()} == {0, 1}
    shown = autoctr("show", "joined", "--root", tmp_path, "--storage", postgresql)
    assert shown.returncode == 0, shown.stderr
    password = re.search(":([^:@/]+)@", postgresql)
    assert password is not None
    told = "".join(outputs) + shown.stdout + json.dumps(study.database.user_attrs)
    assert password[1] not in told
    with pytest.raises(UserError, match="study joined cannot go on, because what it searches has changed: metric was"):
        search(
            "taobao-sim", storage=postgresql, study="joined", space=space_file, rows=ROWS, root=tmp_path, metric="auc"
        )


def test_a_database_that_does_not_answer_is_told_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    address = "postgresql://me:secret@127.0.0.1:1/none"
    away = autoctr("studies", "--root", tmp_path, "--storage", address)
    assert away.returncode == 2
    assert away.stderr.startswith("autoctr: cannot open the study's database postgresql://me:***@127.0.0.1:1/none (")
    assert away.stderr.endswith("); see that the server runs and lets you in, or give another address with --storage\n")
    assert away.stderr.count("\n") == 1
    assert "secret" not in away.stderr


@pytest.mark.slow
def test_eight_processes_in_postgresql_three_of_them_killed(postgresql: str, quick: Path, tmp_path: Path) -> None:
    """200 short trials: each is told once, none is left running, no candidate is repeated."""
    quick.write_text(quick.read_text(encoding="utf-8").replace("epochs: 20", "epochs: 3"), encoding="utf-8")
    arguments = words(tmp_path, quick, storage=postgresql, study="many", trials=200)
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen(command(*arguments), **output, env=one_thread()) for _ in range(8)]
    while not Study("many", tmp_path, postgresql).exists():
        time.sleep(0.2)
    study, killed = load_study("many", root=tmp_path, storage=postgresql), set()
    while len(killed) < 3:
        killed.add(kill_one(study))
        time.sleep(2.0)
    for process in processes:
        output, _ = process.communicate(timeout=1500)
        assert process.returncode == (-signal.SIGKILL if process.pid in killed else 0), output
    whole(load_study("many", root=tmp_path, storage=postgresql), 200)


@pytest.mark.slow
def test_a_dask_cluster_that_loses_a_worker_finishes_the_study(quick: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        arguments = words(tmp_path, quick, backend="dask", scheduler=cluster.scheduler_address, trials=12)
        process = subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=one_thread()
        )
        while not Study("s", tmp_path, None).exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        kill_one(load_study("s", root=tmp_path))
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    whole(load_study("s", root=tmp_path), 12)
