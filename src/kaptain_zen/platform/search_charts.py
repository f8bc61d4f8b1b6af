"""The two charts of a search, as SVG: objective over trials, and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from kaptain_zen.model.ports import TuneStatus
from kaptain_zen.model.record import Scalar, Trial

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 760, 280, 76, 36, 14
_NUMBERS = 20
_AXIS_GAP, _AXIS_TOP, _AXIS_HEIGHT, _LABEL = 150, 44, 240, 20
_LOG_RATIO, _TICKS, _TINY = 1000, 5, 1e-300
# From the worst to the best: purple, blue, green, yellow, dark enough to be seen on white.
_COLOURS = ((68, 1, 84), (49, 104, 142), (53, 183, 121), (205, 190, 30))


def objective_over_trials(status: TuneStatus, objective: str, *, maximize: bool) -> str:
    """The objective of every trial, and a line for the best value so far."""
    if not status.trials:
        return "<p>No trial has ended yet.</p>"
    trials = sorted(status.trials, key=lambda trial: trial.number)
    values = {t.number: v for t in trials if (v := objective_of(t, objective)) is not None}
    scale = _Scale.of(values.values())
    bottom, left = _HEIGHT - _BOTTOM, _LEFT

    def x(number: int) -> float:
        return left + (_WIDTH - left - 16) * (number + 0.5) / (trials[-1].number + 1)

    def y(value: float) -> float:
        return bottom - 12 - (bottom - 12 - _TOP) * scale.place(value)

    shapes = [
        f'<line class="rule" x1="{left}" y1="{y(tick):.1f}" x2="{_WIDTH}" y2="{y(tick):.1f}"/>'
        f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.6g}</text>'
        for tick in (scale.ticks() if values else ())
    ]
    shapes.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{_WIDTH}" y2="{bottom}"/>')
    shapes.extend(
        f'<text x="{x(trial.number):.1f}" y="{bottom + 18}" text-anchor="middle">'
        f"{trial.number}</text>"
        for trial in trials[:: math.ceil(len(trials) / _NUMBERS)]
    )
    corners = [
        f"{x(number):.1f},{y(value):.1f}"
        for number, value in _best_so_far(trials, values, maximize=maximize)
    ]
    if corners:
        shapes.append(f'<polyline class="sofar" points="{" ".join(corners)}"/>')
    for trial in trials:
        tip = f"<title>{html_text(_tip(trial, objective))}</title>"
        at, value = x(trial.number), values.get(trial.number)
        if value is None or trial.state not in ("succeeded", "pruned"):
            cross = f"M{at - 4:.1f} {bottom - 9}l8 8m0 -8l-8 8"
            shapes.append(f'<path class="lost" d="{cross}">{tip}</path>')
            continue
        kind = "best" if trial.name == status.best else "point"
        kind, radius = ("pruned" if trial.state == "pruned" else kind), (6 if kind == "best" else 4)
        shapes.append(
            f'<circle class="{kind}" cx="{at:.1f}" cy="{y(value):.1f}" r="{radius}">{tip}</circle>'
        )
    legend = (
        "<p>The line is the best value so far; hollow points were pruned; red crosses failed, "
        "were killed, or reported nothing.</p>"
    )
    return _svg(_WIDTH, _HEIGHT, shapes) + legend


def parallel_coordinates(status: TuneStatus, objective: str, *, maximize: bool) -> str:
    """A line for every trial that succeeded, through its hyperparameters to its objective."""
    drawn = [
        (trial, value)
        for trial in status.trials
        if trial.state == "succeeded" and (value := objective_of(trial, objective)) is not None
    ]
    if not drawn:
        return "<p>No trial has succeeded, so there is nothing to compare.</p>"
    names = list(dict.fromkeys(name for trial, _ in drawn for name in trial.parameters))
    axes = [
        *(_Axis.of(name, [trial.parameters.get(name) for trial, _ in drawn]) for name in names),
        _Axis.of(objective, [value for _, value in drawn]),
    ]
    width = max(_WIDTH, 2 * _LEFT + _AXIS_GAP * (len(axes) - 1))
    gap = (width - 2 * _LEFT) / max(1, len(axes) - 1)

    def at(place: int, fraction: float) -> str:
        return f"{_LEFT + gap * place:.1f},{_AXIS_TOP + _AXIS_HEIGHT * (1 - fraction):.1f}"

    shapes: list[str] = []
    # The best is drawn last, on top of the others.
    for trial, value in sorted(drawn, key=lambda pair: pair[0].name == status.best):
        found = [*(trial.parameters.get(name) for name in names), value]
        points = " ".join(
            at(place, axis.place(found[place]))
            for place, axis in enumerate(axes)
            if found[place] is not None
        )
        quality = axes[-1].place(value)
        colour = _colour(quality if maximize else 1 - quality)
        kind = "line best" if trial.name == status.best else "line"
        shapes.append(
            f'<polyline class="{kind}" stroke="{colour}" points="{points}">'
            f"<title>{html_text(_tip(trial, objective))}</title></polyline>"
        )
    for place, axis in enumerate(axes):
        shapes.extend(axis.shapes(_LEFT + gap * place))
    return _svg(round(width), _AXIS_TOP + _AXIS_HEIGHT + 20, shapes)


@dataclass(frozen=True)
class _Scale:
    """Places of numbers between 0 and 1; no two finite floats are too far apart for it."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, numbers: Iterable[float], *, log: bool = False) -> _Scale:
        found = list(numbers)
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        return cls(low, high, log and low > 0 and high / low >= _LOG_RATIO)

    def place(self, number: float) -> float:
        if self.log:
            low = math.log(self.low)
            return (math.log(number) - low) / (math.log(self.high) - low)
        # Halves, because the difference of two floats may be more than a float can hold.
        span = self.high / 2 - self.low / 2
        return (number / 2 - self.low / 2) / span if span > 0 else 0.5

    def ticks(self) -> list[float]:
        """A few round numbers of the scale, or its ends where there are none."""
        span = self.high - self.low
        smallest = max(_TINY, max(abs(self.low), abs(self.high)) * 1e-9)
        if self.log or not smallest < span < math.inf:
            return sorted({self.low, self.high})
        size = 10.0 ** math.floor(math.log10(span / _TICKS))
        step = next(size * n for n in (1, 2, 5, 10, 20) if span / (size * n) <= _TICKS)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


@dataclass(frozen=True)
class _Axis:
    """One axis of the parallel coordinates: numbers on a scale, or words one above the other."""

    name: str
    scale: _Scale | None
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, values: Sequence[Scalar | None]) -> _Axis:
        known = [value for value in values if value is not None]
        if all(_is_number(value) for value in known):
            return cls(name, _Scale.of([float(value) for value in known], log=True))
        return cls(name, None, tuple(dict.fromkeys(str(value) for value in known)))

    def place(self, value: Scalar | None) -> float:
        if self.scale is not None:
            return self.scale.place(float(value or 0))
        return (self.words.index(str(value)) + 0.5) / len(self.words)

    def shapes(self, x: float) -> list[str]:
        """The axis itself, its name and its labels."""
        top, bottom = _AXIS_TOP, _AXIS_TOP + _AXIS_HEIGHT
        labels = (
            [(as_text(tick), self.scale.place(tick)) for tick in self.scale.ticks()]
            if self.scale is not None
            else [(word, self.place(word)) for word in self.words]
        )
        return [
            f'<line class="axis" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>',
            f'<text x="{x:.1f}" y="{top - 16}" text-anchor="middle">{_short(self.name)}</text>',
            *(
                f'<text x="{x + 6:.1f}" y="{bottom - _AXIS_HEIGHT * fraction + 4:.1f}">'
                f"{_short(label)}</text>"
                for label, fraction in labels
            ),
        ]


def objective_of(trial: Trial, objective: str) -> float | None:
    """What a trial reported for the objective; None if that was no finite number."""
    value = trial.metrics.get(objective)
    return value if value is not None and math.isfinite(value) else None


def as_text(value: Scalar | None) -> str:
    """A value for people."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def html_text(text: str) -> str:
    """Text as it may stand in HTML, whatever is in it."""
    shown = "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return escape(shown, quote=True)


def _best_so_far(
    trials: Sequence[Trial], values: dict[int, float], *, maximize: bool
) -> list[tuple[int, float]]:
    """Corners of a line that steps at every trial that was better than all before it."""
    corners: list[tuple[int, float]] = []
    choose: Callable[[float, float], float] = max if maximize else min
    for trial in trials:
        value = values.get(trial.number)
        if value is None or trial.state != "succeeded":
            continue
        before = corners[-1][1] if corners else value
        corners += [(trial.number, before), (trial.number, choose(before, value))]
    return corners


def _is_number(value: Scalar) -> bool:
    if isinstance(value, (bool, str)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _colour(quality: float) -> str:
    place = quality * (len(_COLOURS) - 1)
    low = min(int(place), len(_COLOURS) - 2)
    mixed = (
        round(a + (b - a) * (place - low))
        for a, b in zip(_COLOURS[low], _COLOURS[low + 1], strict=True)
    )
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _tip(trial: Trial, objective: str) -> str:
    shown = {objective: objective_of(trial, objective), **trial.parameters}
    values = (f"{name} = {as_text(value)}" for name, value in shown.items())
    return "\n".join([f"{trial.name}: {trial.state}", *values])


def _short(text: str) -> str:
    cut = text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
    return f"{html_text(cut)}<title>{html_text(text)}</title>"


def _svg(width: int, height: int, shapes: Sequence[str]) -> str:
    return (
        f'<div class="wide"><svg width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">' + "\n".join(shapes) + "</svg></div>"
    )
