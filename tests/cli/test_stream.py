"""``autoctr stream`` as a user runs it: on a table of one's own with time stamps."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from cli.conftest import Shell

HOUR = 3600
SCHEMA = """\
labels: [click]
domain: market
user: user
timestamp: ts
split: {kind: time, column: ts, fractions: [0.7, 0.1, 0.2]}
columns:
  - {name: user, kind: categorical}
  - {name: item, kind: categorical}
  - {name: market, kind: categorical}
"""
FAST = ["--batch", 64, "--device", "cpu", "--day-length", 24 * HOUR, "--epochs", 1]


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of three markets in seconds since 1970, and its schema."""
    folder = tmp_path_factory.mktemp("stream")
    draw = random.Random(5)
    lines = ["user,item,market,ts,click"]
    for n in range(900):
        item, market = draw.randrange(20), draw.choices(["de", "fr", "it"], [6, 3, 1])[0]
        click = int(draw.random() < (0.8 if item % 2 else 0.2))
        lines.append(f"u{draw.randrange(30)},i{item},{market},{1_700_000_000 + n * 24 * HOUR // 90},{click}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "schema.yaml").write_text(SCHEMA)
    return folder


def arguments(log: Path, schema: str | None = None, **changes: object) -> list[object]:
    path = log / "schema.yaml"
    if schema is not None:
        path = log / "other.yaml"
        path.write_text(schema)
    options = [part for name, value in changes.items() for part in (f"--{name.replace('_', '-')}", value)]
    return ["stream", "--table", log / "log.csv", "--schema", path, *FAST, *options]


def test_a_stream_prints_days_means_and_differences(shell: Shell, log: Path) -> None:
    result = shell(*arguments(log, seeds=2, norm="batch"))
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "log: 10 days, the first 4 are warm-up; label click" in text
    assert "source de (" in text
    assert "TPM reads user, item; the last 4 snapshots are pooled by attention" in text
    assert "AUC of each day's target rows, scored before training on them, mean of 2 seeds" in text
    days = [line.split()[0] for line in text.splitlines() if line[:4].strip().isdigit()]
    assert days == ["5", "6", "7", "8", "9", "10"]
    for name in ("E-CDCTR", "scratch", "no TPM", "no CPM"):
        assert sum(line.startswith(name) for line in text.splitlines()) == 4
    assert not Path("studies").exists()


def test_a_stream_as_json(shell: Shell, log: Path) -> None:
    options = {"source": "fr", "target": "it", "tpm_field": "item", "pooling": "mean", "seed": 3, "snapshots": 1}
    result = shell(*arguments(log, **options), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    facts = found["facts"]
    assert (facts["source"], facts["targets"], facts["tpm_fields"]) == ("fr", ["it"], ["item"])
    assert facts["schedule"]["window"] == 1
    assert sum(facts["rows"].values()) == 900
    assert [curve["seed"] for curve in found["curves"]] == [3] * 5
    assert sum(day["rows"] for day in found["curves"][0]["days"]) < facts["rows"]["it"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "mars"}, "there is no domain 'mars'; legal are de, fr, it"),
        ({"target": "mars"}, "there is no domain 'mars'; legal are de, fr, it"),
        ({"source": "de", "target": "de"}, "domain de is both the source and a target"),
        ({"warm_up": 0.95}, "leaves no day to score; lower --warm-up"),
        ({"warm_up": 1.5}, "the warm-up is 1.5 of the days"),
        ({"cpm_days": 7}, "the warm-up has 4 of 10 days, fewer than the 7 between two refreshes"),
        ({"tpm_field": "market"}, "TPM field 'market' is not a categorical field; legal are user, item"),
        ({"pooling": "sum"}, "unknown pooling 'sum'; legal are attention, mean, last"),
        ({"batch": 0}, "batch is 0; legal is 1 to "),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"dataset": "taobao-sim"}, "give one of them"),
    ],
)
def test_bad_streams(shell: Shell, log: Path, changes: dict[str, object], message: str) -> None:
    assert message in shell.refused(*arguments(log, **changes))


def test_data_that_cannot_be_replayed(shell: Shell, log: Path) -> None:
    said = shell.refused(*arguments(log, SCHEMA.replace("timestamp: ts\n", "")))
    assert "log has no time stamps" in said
    assert "timestamp: COLUMN" in said
    assert "taobao-sim has no time stamps" in shell.refused("stream", "--dataset", "taobao-sim")
    assert "no data set was given" in shell.refused("stream")
    (log / "one.csv").write_text(
        "\n".join(
            line.replace(",fr,", ",de,").replace(",it,", ",de,") for line in (log / "log.csv").read_text().splitlines()
        )
    )
    one = [log / "one.csv" if part == log / "log.csv" else part for part in arguments(log)]
    assert "one domain only (de); a stream needs a source and a target domain" in shell.refused(*one)
