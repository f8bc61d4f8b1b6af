"""A picture of a search as one HTML page: objective over trials, parallel coordinates, a table.

The page is drawn here, as SVG without scripts, and not with a plotting library: it is stored with
every search and shown inside other pages, a library's own script would make each copy about 5 MB
large, and a page without scripts cannot be made to run any by a hostile name.
"""

from __future__ import annotations

from collections.abc import Sequence

from kaptain_zen.model.ports import TuneStatus
from kaptain_zen.model.record import Scalar
from kaptain_zen.platform.search_charts import (
    as_text,
    html_text,
    objective_of,
    objective_over_trials,
    parallel_coordinates,
)

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 24px; }
h1 { font-size: 20px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 28px 0 6px; }
p { margin: 2px 0; color: #57606a; white-space: pre-wrap; } b { color: #1b1f24; }
.wide { overflow-x: auto; } svg { display: block; font: 11px system-ui, sans-serif; }
svg text { fill: #57606a; paint-order: stroke; stroke: #fff; stroke-width: 3px; }
.axis { stroke: #8c959f; } .rule { stroke: #eaeef2; }
.sofar { fill: none; stroke: #0969da; stroke-width: 1.5; }
.point { fill: #54aeff; } .pruned { fill: #fff; stroke: #8c959f; } .lost { stroke: #cf222e; }
.best { fill: #1a7f37; } .line { fill: none; stroke-width: 1.3; opacity: .75; }
.line.best { stroke-width: 3; opacity: 1; fill: none; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid #eaeef2;
  white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; } tr.best td { background: #dafbe1; }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def search_report(status: TuneStatus, *, objective: str, objective_type: str, title: str) -> str:
    """Draw a search.

    Args:
        status: Of the search, finished or not.
        objective: The main metric.
        objective_type: `maximize` or `minimize`.
        title: Heading of the page.

    Returns:
        A whole HTML page, which loads nothing and runs nothing.
    """
    maximize = objective_type == "maximize"
    parts = [
        _summary(status, objective, objective_type),
        f"<h2>{html_text(objective)} over trials</h2>",
        objective_over_trials(status, objective, maximize=maximize),
        "<h2>Hyperparameters</h2>",
        parallel_coordinates(status, objective, maximize=maximize),
        "<h2>Trials</h2>",
        _table(status, objective),
    ]
    return _PAGE.format(title=html_text(title), style=_STYLE, body="\n".join(parts))


def _summary(status: TuneStatus, objective: str, objective_type: str) -> str:
    counts = ", ".join(
        f"{status.count(state)} {state}" for state in ("succeeded", "failed", "killed", "pruned")
    )
    goal = ", the goal was reached" if status.goal_reached else ""
    about = (
        f"Search <b>{html_text(status.handle.name)}</b>: <b>{status.state.value}</b>{goal}; "
        f"{html_text(objective_type)} <b>{html_text(objective)}</b>."
    )
    progress = (
        f"{len(status.trials)} of {status.total} trials ended: {counts}; {status.running} "
        f"running, {status.pending} pending."
    )
    paragraphs = [about, progress]
    best = next((trial for trial in status.trials if trial.name == status.best), None)
    if best is not None:
        value = as_text(objective_of(best, objective))
        found = ", ".join(f"{name} = {as_text(v)}" for name, v in best.parameters.items())
        paragraphs.append(
            f"Best: <b>{html_text(best.name)}</b>, {html_text(objective)} "
            f"<b>{html_text(value)}</b> with {html_text(found)}."
        )
    if status.reason:
        paragraphs.append(html_text(status.reason))
    return "\n".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)


def _table(status: TuneStatus, objective: str) -> str:
    if not status.trials:
        return "<p>No trial has ended yet.</p>"
    parameters = list(dict.fromkeys(name for t in status.trials for name in t.parameters))
    reported = dict.fromkeys(name for t in status.trials for name in t.metrics)
    metrics = [objective, *(name for name in reported if name != objective)]
    # A list, because a metric may be called as a hyperparameter is.
    columns: list[tuple[str, Sequence[Scalar | None]]] = [
        ("trial", [t.number for t in status.trials]),
        ("name", [t.name for t in status.trials]),
        ("state", [t.state for t in status.trials]),
        *((name, [t.metrics.get(name) for t in status.trials]) for name in metrics),
        *((name, [t.parameters.get(name) for t in status.trials]) for name in parameters),
        ("seconds", [None if t.seconds is None else round(t.seconds, 2) for t in status.trials]),
    ]
    kinds = [' class="n"' if _numeric(column) else "" for _, column in columns]
    rows = [
        "<tr>"
        + "".join(
            f"<th{kind}>{html_text(head)}</th>"
            for (head, _), kind in zip(columns, kinds, strict=True)
        )
        + "</tr>"
    ]
    for place, trial in enumerate(status.trials):
        cells = "".join(
            f"<td{kind}>{html_text(as_text(column[place]))}</td>"
            for (_, column), kind in zip(columns, kinds, strict=True)
        )
        best = ' class="best"' if trial.name == status.best else ""
        rows.append(f"<tr{best}>{cells}</tr>")
    return '<div class="wide"><table>' + "\n".join(rows) + "</table></div>"


def _numeric(column: Sequence[Scalar | None]) -> bool:
    return all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        for value in column
    )
