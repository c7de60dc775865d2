"""A study as one HTML file that opens anywhere: no script from elsewhere, no request."""

from __future__ import annotations

import datetime
import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import autoctr
from autoctr.model.candidate import Candidate, ranks
from autoctr.progress import outline
from autoctr.report import pictures
from autoctr.report.text import certificate_lines, lead_lines, network_lines, protection_lines, sizes
from autoctr.search.protect import ALL
from autoctr.search.record import Record

if TYPE_CHECKING:
    from autoctr.search.study import Study

STYLE = """
:root { color-scheme: light; --line: #d5d5d5; --soft: #666; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; color: #1b1b1b;
  background: #fff; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { max-width: 60rem; margin: .4rem 0; } .soft { color: var(--soft); font-size: .9rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; } figcaption { font-size: .9rem; color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td:last-child.words, th:last-child.words { text-align: left; }
th button { font: inherit; font-weight: 600; border: 0; background: none; padding: 0; cursor: pointer; }
pre { background: #f5f5f5; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
tr.winner td { font-weight: 600; }
"""

SORT = """
document.querySelectorAll('th button').forEach(button => button.addEventListener('click', () => {
  const head = button.closest('th'), body = head.closest('table').tBodies[0], place = head.cellIndex;
  const up = head.getAttribute('aria-sort') !== 'ascending';
  head.parentElement.querySelectorAll('th').forEach(other => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const key = row => row.cells[place].dataset.key ?? row.cells[place].textContent;
  const number = text => text === '' ? -Infinity : Number(text);
  const rows = [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b), both = !isNaN(number(x)) && !isNaN(number(y));
    return (both ? number(x) - number(y) : x.localeCompare(y)) * (up ? 1 : -1);
  });
  body.append(...rows);
}));
"""


def study_page(study: Study) -> str:
    """The whole page.

    Raises:
        UserError: without matplotlib.
    """
    from autoctr.search.summary import summary

    records, facts = study.records(), summary(study)
    title = f"{study.name}: {facts['dataset']}"
    parts = [f"<h1>{_text(title)}</h1>", *_verdict(study, records, facts)]
    if facts["best"] is not None:
        parts += _pictures(study, records, facts)
        parts += _domains(facts["best"])
        parts += ["<h2>The winner</h2>", _lines(network_lines(Candidate.from_dict(facts["best"]["candidate"])))]
    parts += ["<h2>All trials</h2>", _trials(records, facts)]
    parts += ["<h2>How to repeat it</h2>", _lines(_commands(study))]
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts.append(f'<p class="soft">Made by autoctr {autoctr.__version__} on {made}.</p>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + f"\n<script>{SORT}</script></body></html>\n"
    )


def _text(words: object) -> str:
    return html.escape(str(words))


def _lines(lines: Sequence[str]) -> str:
    return f"<pre>{_text(chr(10).join(lines))}</pre>"


def _verdict(study: Study, records: Sequence[Record], facts: dict[str, Any]) -> list[str]:
    """What was found, in words."""
    ended, running = study.ended, sum(record.state in ("RUNNING", "WAITING") for record in records)
    minutes = study.database.user_attrs["spent"] / 60
    state = f"{ended} trials in {minutes:.1f} minutes" + (f", {running} under way" if running else "")
    lines = [f'<p class="soft">Space {_text(study.settings.space)}, {state}, on {_text(study.settings.device)}.</p>']
    best = facts["best"]
    if best is None:
        return [*lines, "<p>No trial has ended yet.</p>"]
    words = [f"Trial {best['number']} wins with a validation {facts['metric']} of {best['value']:.5f}."]
    words += lead_lines(best, study.allowed(records), study.settings.direction) + protection_lines(facts)
    lines += [f"<p>{_text(line[0].upper() + line[1:])}</p>" for line in words]
    if study.certificate is not None:
        lines.append(_lines(certificate_lines(study.certificate, ended)))
    else:
        lines.append(
            f"<p>Each network was trained once; <code>autoctr confirm {_text(study.name)}</code> repeats it.</p>"
        )
    return [*lines, *(f"<p>{_text(line[0].upper() + line[1:])}.</p>" for line in sizes(best, records))]


def _pictures(study: Study, records: Sequence[Record], facts: dict[str, Any]) -> list[str]:
    from autoctr.search.importance import importances

    direction, metric, best = study.settings.direction, facts["metric"], facts["best"]
    found = [
        (pictures.progress(records, study.minutes(), metric, direction), "Every finished trial, and the best so far."),
        (
            pictures.costs(records, metric, best["number"], direction),
            "Trials on the line have no other that is both cheaper and better.",
        ),
    ]
    weights = importances(study)
    if weights:
        caption = "How much of the difference between the best tenth and all trials each field explains (PED-ANOVA)."
        found.append((pictures.bars(weights, "share explained", "What mattered"), caption))
    candidate = Candidate.from_dict(best["candidate"])
    if candidate.wiring is not None:
        caption = "E: the embedded fields; C: cross, D: deep components; O: the output. Below a node, how it joins."
        found.append((pictures.network(candidate.wiring), caption))
    leads = _leads(study, best)
    if leads:
        caption = "Test rows; blue: better, orange: worse, grey: not distinguishable."
        found.append((pictures.leads(leads, "Winner beside plain, domain by domain"), caption))
    shades = _heat(candidate, next(record for record in records if record.number == best["number"]), best)
    if shades is not None:
        found.append((shades, "Rank of each domain's adapter, and per cent of each layer's neurons that it closes."))
    if any(record.gap for record in records):
        caption = "Below the line, reading a discrete network off the supernet cost something."
        found.append((pictures.gaps(records, metric), caption))
    figures = [f"<figure>{picture}<figcaption>{_text(words)}</figcaption></figure>" for picture, words in found]
    return ['<div class="pictures">', *figures, "</div>"]


def _leads(study: Study, best: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """The winner's lead over a plain network by domain: from the certificate, else from the one training."""
    certificate = study.certificate
    if certificate is not None:
        found = {}
        for name, domain in certificate.domains.items():
            if domain.lead is not None:
                mean, half = domain.lead.seeds.mean, domain.lead.seeds.half or 0.0
                low, high = domain.lead.users or (mean, mean)
                found[name] = (mean, min(low, mean - half), max(high, mean + half))
        return found
    if not best.get("difference"):
        return {}
    found = {}
    for name, interval in best["difference"]["domains"].items():
        sides = [best[side]["domains"].get(name, {}).get("auc") for side in ("test", "plain")]
        if interval is not None and None not in sides:
            found[name] = (sides[0] - sides[1], interval[0], interval[1])
    return found


def _heat(candidate: Candidate, record: Record, best: dict[str, Any]) -> str | None:
    """Rank and closed neurons by domain."""
    domains = [name for name in best["valid"]["domains"] if name != "unknown"] if best["valid"] else []
    columns: dict[str, list[float]] = {}
    if candidate.domain_ranks is not None and len(candidate.domain_ranks) == len(domains):
        columns["rank"] = [float(rank) for rank in candidate.domain_ranks]
    elif candidate.rank or candidate.rank_divisor:
        rows = [best["valid"]["domains"][name]["rows"] for name in domains]
        columns["rank"] = [float(rank) for rank in ranks(candidate, rows)]
    for layer, shares in (record.closed or {}).items():
        if len(shares) == len(domains):
            columns[f"{layer} %"] = [0.0 if math.isnan(share) else round(100 * share) for share in shares]
    if not columns:
        return None
    values = list(zip(*columns.values(), strict=True))
    return pictures.heat(domains, list(columns), values, "Adaptation and sparsity by domain")


def _domains(best: dict[str, Any]) -> list[str]:
    """A table of the test split by domain."""
    if best["test"] is None:
        return []
    sides = [("winner", best["test"])] + ([("plain", best["plain"])] if best["plain"] else [])
    head = ["domain", "rows", "clicks"]
    head += [f"{name} {what}" for name, _ in sides for what in ("AUC", "log-loss", "calibration")]
    rows = []
    for name, own in best["test"]["domains"].items():
        cells = [name, f"{own['rows']:,}", f"{own['positives']:,}"]
        for _, side in sides:
            score = side["domains"].get(name, {})
            cells += [_number(score.get(what)) for what in ("auc", "logloss", "calibration")]
        rows.append(_row(cells))
    note = '<p class="soft">Calibration is the sum of predicted probabilities over the number of clicks.</p>'
    return ["<h2>Test rows by domain</h2>", _table(head, rows), note]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _row(cells: Sequence[str], keys: Sequence[object] = (), words: int = -1, winner: bool = False) -> str:
    marks = ' class="winner"' if winner else ""
    found = [
        f"<td{f' data-key={chr(34)}{_text(keys[n])}{chr(34)}' if n < len(keys) else ''}"
        f"{' class=words' if n == words else ''}>{_text(cell)}</td>"
        for n, cell in enumerate(cells)
    ]
    return f"<tr{marks}>{''.join(found)}</tr>"


def _table(head: Sequence[str], rows: Sequence[str], sortable: bool = False) -> str:
    cells = [f"<th>{_text(name)}</th>" for name in head]
    if sortable:
        cells = [f'<th class="{"words" if name == "what" else "number"}"><button>{name}</button></th>' for name in head]
    return (
        f'<div class="wide"><table><thead><tr>{"".join(cells)}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _trials(records: Sequence[Record], facts: dict[str, Any]) -> str:
    head = ["trial", "state", facts["metric"], "seconds", "multiply-adds", "parameters", "what"]
    best = facts["best"]
    rows = []
    for record in records:
        cost = max(record.multiply_adds["open"]) if record.multiply_adds else None
        cells = [
            str(record.number),
            record.state.lower(),
            "" if record.value is None else f"{record.value:.5f}",
            "" if record.seconds is None else f"{record.seconds:.1f}",
            "" if cost is None else f"{cost:,}",
            "" if record.parameters is None else f"{record.parameters:,}",
            outline(record.candidate),
        ]
        keys = [record.number, cells[1], cells[2], cells[3], cost or "", record.parameters or ""]
        rows.append(_row(cells, keys, words=6, winner=best is not None and best["number"] == record.number))
    return _table(head, rows, sortable=True)


def _commands(study: Study) -> list[str]:
    """What was typed, as far as it matters."""
    settings = study.settings
    source = {name: value for name, value in settings.source.items() if value is not None}
    words = {"name": "dataset", "seed": "data-seed"}
    given = [f"--{words.get(name, name)} {value}" for name, value in source.items()]
    given += [f"--space {settings.space}", f"--metric {settings.metric}", f"--seed {settings.seed}"]
    if settings.trials is not None:
        given.append(f"--trials {settings.trials}")
    if settings.time_limit is not None:
        given.append(f"--time-limit {settings.time_limit:g}")
    given += [f"--precision {settings.precision}"] if settings.precision else []
    given += [f"--objectives {','.join(settings.objectives)}"] if settings.objectives else []
    given += [f"--protect '{name if name == ALL else f'domain:{name}>=plain'}'" for name in settings.protect]
    given.append(f"--study {study.name}")
    return [f"autoctr search {' '.join(given)}", f"autoctr export {study.name} --out model/"]
