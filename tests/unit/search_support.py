"""Strategies for domains, and requests for searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from kaptain_zen.hyperparameter.domains import (
    AnyDomain,
    Categorical,
    Discrete,
    Double,
    Integer,
)
from kaptain_zen.model.ports import TuneRequest
from kaptain_zen.model.spec import ModelSpec

SPEC = ModelSpec(
    id="dev/tiny",
    name="tiny",
    description="A model of one number",
    version="1",
    framework="sklearn",
    framework_version="1",
    main_file="train.py",
    image_name="tiny",
    base_image="python",
)


def request(**changes: Any) -> TuneRequest:
    """A search over one number."""
    values: dict[str, Any] = {
        "name": "tiny-tune",
        "spec": SPEC,
        "base_dir": Path("/nowhere"),
        "upload_uri": "file:///nowhere/tuned",
        "trials_uri": "file:///nowhere/trials",
        "objectives": ("accuracy",),
        "hyperparameters": {"x": Double(0, 1)},
        **changes,
    }
    return TuneRequest(**values)


@st.composite
def doubles(draw: st.DrawFn, limit: float = 1e300) -> Double:
    numbers = st.floats(-limit, limit)
    low, high = sorted([draw(numbers), draw(numbers)])
    if draw(st.booleans()) and low > 0:
        return Double(low, high, log=True)
    return Double(low, high)


@st.composite
def stepped_doubles(draw: st.DrawFn, points: int = 50) -> Double:
    low = draw(st.decimals(-1000, 1000, places=3))
    step = draw(st.decimals("0.001", 100, places=3))
    high = low + step * draw(st.integers(0, points)) + draw(st.decimals(0, "0.5", places=3))
    return Double(float(low), float(high), step=float(step))


@st.composite
def integers(draw: st.DrawFn, limit: int = 2**52, span: int | None = None) -> Integer:
    low = draw(st.integers(-limit, limit))
    high = draw(st.integers(low, limit if span is None else min(limit, low + span)))
    if draw(st.booleans()) and low > 0:
        return Integer(low, high, log=True)
    return Integer(low, high, step=draw(st.none() | st.integers(1, 1000)))


def discretes() -> st.SearchStrategy[Discrete]:
    numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
    return st.lists(numbers, min_size=1, max_size=8, unique=True).map(Discrete)


def categoricals() -> st.SearchStrategy[Categorical]:
    return st.lists(st.text(min_size=1), min_size=1, max_size=8, unique=True).map(Categorical)


def domains() -> st.SearchStrategy[AnyDomain]:
    """Any domain."""
    return st.one_of(doubles(), stepped_doubles(), integers(), discretes(), categoricals())


def finite_domains() -> st.SearchStrategy[AnyDomain]:
    """Domains that a grid may go over."""
    return st.one_of(stepped_doubles(points=6), integers(span=6), discretes(), categoricals())
