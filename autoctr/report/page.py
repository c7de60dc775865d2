"""A study as one HTML file that opens anywhere: no script from elsewhere, no request."""

from __future__ import annotations

import datetime
import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import autoctr
from autoctr.report import pictures
from autoctr.report.contents import (
    CAPTIONS,
    Contents,
    Table,
    contents,
    interaction_words,
    shape_words,
    trial_table,
)

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
figure { margin: 0; } h3 { font-size: 1rem; margin: .8rem 0 .2rem; } figure svg { width: 100%; height: auto; }
figcaption { font-size: .9rem; color: var(--soft); }
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
    found = contents(study)
    parts = [f"<h1>{_text(found.title)}</h1>", f'<p class="soft">{_text(found.setting)}</p>']
    parts += [f"<p>{_text(sentence)}</p>" for sentence in found.verdict]
    parts += [_lines(found.certificate)] if found.certificate else []
    if found.winner is not None:
        parts += ['<div class="pictures">', *_pictures(found, found.winner), "</div>"]
    if found.scores is not None and found.domains is not None:
        parts += ["<h2>Test rows</h2>", _table(found.scores), "<h2>Test rows by domain</h2>", _table(found.domains)]
        parts.append(f'<p class="soft">{CAPTIONS["calibration"]}</p>')
    if found.network:
        parts += ["<h2>The winner</h2>", _lines(found.network)]
    parts += ["<h2>All trials</h2>", _trials(found), "<h2>How to repeat it</h2>", _lines(found.commands)]
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts.append(f'<p class="soft">Made by autoctr {autoctr.__version__} on {made}.</p>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(found.title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + f"\n<script>{SORT}</script></body></html>\n"
    )


def _text(words: object) -> str:
    return html.escape(str(words))


def _lines(lines: Sequence[str]) -> str:
    return f"<pre>{_text(chr(10).join(lines))}</pre>"


def _pictures(found: Contents, winner: int) -> Iterator[str]:
    def shown(picture: str, title: str, words: str) -> str:
        return f"<figure><h3>{title}</h3>{picture}<figcaption>{_text(words)}</figcaption></figure>"

    metric, direction = found.metric, found.direction
    yield shown(pictures.progress(found.course, metric, direction), "Best score over time", CAPTIONS["course"])
    yield shown(
        pictures.costs(found.costs, found.priced, metric, winner, direction), "Score against cost", CAPTIONS["costs"]
    )
    if found.importances:
        title = "What mattered"
        yield shown(pictures.bars(found.importances, "share explained", title), title, CAPTIONS["importances"])
    if found.interactions is not None:
        yield shown(pictures.pairs(found.interactions), "What mattered together", interaction_words(found.interactions))
    if found.candidate is not None and found.candidate.wiring is not None:
        yield shown(pictures.network(found.candidate.wiring), "The winner's network", CAPTIONS["network"])
    if found.leads:
        title = "Winner beside plain, domain by domain"
        yield shown(pictures.leads(found.leads, title), title, CAPTIONS["leads"])
    if found.shape is not None and found.shape.columns:
        title = "Adaptation and sparsity by domain"
        yield shown(pictures.heat(found.shape, title), title, shape_words(found.shape))
    if found.reliability:
        yield shown(pictures.reliability(found.reliability), "Calibration", CAPTIONS["reliability"])
    if found.gaps:
        yield shown(pictures.gaps(found.gaps, metric), "Discretisation gap", CAPTIONS["gaps"])


def _row(cells: Sequence[str], keys: Sequence[object] = (), words: int = -1, winner: bool = False) -> str:
    marks = ' class="winner"' if winner else ""
    found = [
        f"<td{f' data-key={chr(34)}{_text(keys[n])}{chr(34)}' if n < len(keys) else ''}"
        f"{' class=words' if n == words else ''}>{_text(cell)}</td>"
        for n, cell in enumerate(cells)
    ]
    return f"<tr{marks}>{''.join(found)}</tr>"


def _table(table: Table, rows: Sequence[str] | None = None, sortable: bool = False) -> str:
    cells = [f"<th>{_text(name)}</th>" for name in table.head]
    if sortable:
        cells = [
            f'<th class="{"words" if name == "what" else "number"}"><button>{_text(name)}</button></th>'
            for name in table.head
        ]
    body = "".join([_row(row) for row in table.rows] if rows is None else rows)
    return f'<div class="wide"><table><thead><tr>{"".join(cells)}</tr></thead><tbody>{body}</tbody></table></div>'


def _trials(found: Contents) -> str:
    table = trial_table(found)
    rows = []
    for record, cells in zip(found.trials, table.rows, strict=True):
        keys = [record.number, *(cell.replace(",", "") for cell in cells[1:6])]
        rows.append(_row(cells, keys, words=6, winner=found.winner == record.number))
    return _table(table, rows, sortable=True)
