"""The picture of a search: always a whole page, whatever the trials were called or found."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.model.ports import RunState, TuneStatus
from kaptain_zen.model.record import RunHandle, Trial
from kaptain_zen.platform.search_report import search_report

HOSTILE = "<script>alert('x')</script>\"&</title></svg>\x00\ud800"


def status(trials: list[Trial], **changes: Any) -> TuneStatus:
    handle = RunHandle(backend="local", kind="tune", namespace="/x", name="tiny-tune")
    values: dict[str, Any] = {
        "handle": handle,
        "state": RunState.SUCCEEDED,
        "trials": tuple(trials),
        "total": len(trials),
        **changes,
    }
    return TuneStatus(**values)


def trial(number: int, **changes: Any) -> Trial:
    values: dict[str, Any] = {
        "number": number,
        "name": f"tiny-tune-{number}",
        "state": "succeeded",
        "parameters": {"x": number / 10},
        "metrics": {"accuracy": number / 10},
        "seconds": 1.5,
        **changes,
    }
    return Trial(**values)


def report(found: TuneStatus, **changes: Any) -> str:
    wanted = {"objective": "accuracy", "objective_type": "maximize", "title": "Tuning"} | changes
    return search_report(found, **wanted)


class Page(HTMLParser):
    """Reads a page and fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def checked(text: str) -> Page:
    """A page that is whole, runs nothing, loads nothing, and draws inside its pictures."""
    page = Page(text)
    assert "script" not in page.tags
    assert not {"img", "link", "iframe", "object"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not any(name.startswith("on") or name in ("src", "href") for name in names)
    text.encode()
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        root = ElementTree.fromstring(picture)
        width, height = float(root.get("width", "0")), float(root.get("height", "0"))
        for shape in root.iter():
            xs = [float(v) for k in ("x1", "x2", "cx", "x") if (v := shape.get(k))]
            ys = [float(v) for k in ("y1", "y2", "cy", "y") if (v := shape.get(k))]
            for pair in (shape.get("points") or "").split():
                x, y = pair.split(",")
                xs.append(float(x))
                ys.append(float(y))
            assert all(-1 <= x <= width + 1 for x in xs)
            assert all(-1 <= y <= height + 1 for y in ys)
    return page


def test_a_search_of_twelve_trials() -> None:
    trials = [trial(n) for n in range(12)]
    trials[3] = trial(3, state="failed", metrics={})
    trials[5] = trial(5, state="pruned")
    text = report(status(trials, best="tiny-tune-11", goal_reached=True))
    page = checked(text)
    assert page.tags.count("circle") == 11
    assert page.tags.count("path") == 1
    assert page.tags.count("polyline") == 1 + 10
    assert page.tags.count("tr") == 1 + 12
    assert "12 of 12 trials ended: 10 succeeded, 1 failed, 0 killed, 1 pruned" in text
    assert "the goal was reached" in text
    assert len(text) < 50_000


@pytest.mark.parametrize("objective_type", ["maximize", "minimize"])
def test_the_line_is_the_best_so_far(objective_type: str) -> None:
    found = [0.5, 0.9, 0.1, 0.7]
    trials = [trial(n, metrics={"accuracy": v}) for n, v in enumerate(found)]
    text = report(status(trials), objective_type=objective_type)
    line = re.search(r'class="sofar" points="([^"]*)"', text)
    assert line is not None
    ys = [float(pair.split(",")[1]) for pair in line[1].split()]
    # Down on a screen is up in value.
    assert ys == sorted(ys, reverse=objective_type == "maximize")
    points = [float(y) for y in re.findall(r'<circle[^>]*cy="([^"]*)"', text)]
    assert ys[-1] == (min(points) if objective_type == "maximize" else max(points))


def test_no_trial_at_all() -> None:
    text = report(status([], state=RunState.PENDING, total=4, pending=4))
    checked(text)
    assert "No trial has ended yet" in text


def test_no_success() -> None:
    text = report(
        status(
            [trial(0, state="failed", metrics={}), trial(1, state="killed")],
            state=RunState.FAILED,
            reason="2 trials failed.\nlast line",
        )
    )
    page = checked(text)
    assert page.tags.count("path") == 2
    assert "No trial has succeeded" in text
    assert "2 trials failed.\nlast line" in text


def test_one_trial() -> None:
    page = checked(report(status([trial(0)], best="tiny-tune-0")))
    assert page.tags.count("circle") == 1


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    trials = [
        trial(
            n,
            name=f"{HOSTILE}{n}",
            parameters={HOSTILE: HOSTILE, f"{HOSTILE}2": n},
            metrics={"accuracy": 0.5, HOSTILE: 1.0},
        )
        for n in range(3)
    ]
    found = status(trials, best=f"{HOSTILE}1", state=RunState.FAILED, reason=HOSTILE)
    text = report(found, title=HOSTILE)
    checked(text)
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    checked(report(found, objective=HOSTILE))


def test_the_page_may_not_load_anything() -> None:
    assert "default-src 'none'" in report(status([trial(0)]))


def test_a_metric_may_be_called_like_a_hyperparameter() -> None:
    text = report(status([trial(0, parameters={"accuracy": 0.25})]))
    assert text.count('<th class="n">accuracy</th>') == 2


SCALARS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
    | st.booleans()
    | st.text()
    | st.sampled_from([10**400, 5e-324, 1.7e308, -1.7e308, 0.0])
)
NUMBERS = st.floats() | st.sampled_from([1.7e308, -1.7e308, 5e-324, 0.0, math.inf, math.nan])
NAMES = st.text(max_size=30)


@st.composite
def searches(draw: st.DrawFn) -> TuneStatus:
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    trials = [
        Trial(
            number=number,
            name=draw(NAMES),
            state=draw(st.sampled_from(["succeeded", "failed", "killed", "pruned"])),
            parameters={name: draw(SCALARS) for name in names},
            metrics=draw(
                st.dictionaries(st.sampled_from(["accuracy", "loss"]) | NAMES, NUMBERS, max_size=3)
            ),
            seconds=draw(st.none() | st.floats(0, 1e6)),
        )
        for number in draw(st.lists(st.integers(0, 40), unique=True, max_size=8).map(sorted))
    ]
    best = draw(st.sampled_from([None, *(t.name for t in trials)]))
    return status(trials, best=best)


@given(searches(), st.sampled_from(["maximize", "minimize"]), NAMES)
def test_any_search_makes_a_whole_page(found: TuneStatus, objective_type: str, title: str) -> None:
    text = report(found, objective_type=objective_type, title=title)
    Page(text)
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        for numbers in re.findall(r' (?:points|[cxy][xy12]?)="([^"]*)"', picture):
            assert all(math.isfinite(float(n)) for n in re.split("[ ,]", numbers) if n)
