"""Properties of a model, legal names, quantities, metrics: everything that is parsed or named."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.exceptions import (
    InvalidModelProperty,
    KaptainError,
    ModelValidationException,
    UndefinedModelProperty,
    UnsupportedMetricsTypeException,
    UnsupportedModelFrameworkException,
)
from kaptain_zen.model.frameworks import ModelFramework
from kaptain_zen.model.metrics import Metric, MetricsType, observe, parse_line, summarise
from kaptain_zen.model.models import Model
from kaptain_zen.model.names import is_name, label_value, slug, suffixed
from kaptain_zen.model.resources import Resources, parse_quantity
from kaptain_zen.model.spec import ModelSpec

PROPERTIES: dict[str, Any] = {
    "id": "dev/mnist",
    "name": "MNIST",
    "description": "Digits",
    "version": "1",
    "framework": "sklearn",
    "framework_version": "1.9",
    "main_file": "training.py",
    "image_name": "me/mnist",
    "base_image": "python",
}
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_blank_property_is_named(name: str, value: Any):
    with pytest.raises(InvalidModelProperty, match=name):
        Model(**{**PROPERTIES, name: value})


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_missing_property_is_named(name: str):
    with pytest.raises(UndefinedModelProperty, match=name):
        Model(**{key: value for key, value in PROPERTIES.items() if key != name})


def test_an_unknown_property_is_named():
    with pytest.raises(UndefinedModelProperty, match="frame_work"):
        ModelSpec(**PROPERTIES, frame_work="sklearn")


@pytest.mark.parametrize("id", ["../x", "a//b", "/a", "a/", "a/../b", "a\\b", "a\nb", "s3://x?y"])
def test_an_id_that_is_no_folder_is_refused(id: str):
    with pytest.raises(InvalidModelProperty, match="'id'"):
        ModelSpec(**{**PROPERTIES, "id": id})


@pytest.mark.parametrize("wrong", ["a.py", [""], [1]])
def test_extra_files_that_are_no_list_of_names_are_refused(wrong: Any):
    with pytest.raises(InvalidModelProperty, match="extra_files"):
        ModelSpec(**PROPERTIES, extra_files=wrong)


@given(st.dictionaries(st.sampled_from(list(PROPERTIES)), st.none() | st.integers() | st.text()))
def test_any_properties_make_a_spec_or_an_error_of_ours(properties: dict[str, Any]):
    try:
        spec = ModelSpec(**{**PROPERTIES, **properties})
    except KaptainError:
        return
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("name", ["sklearn", "scikit-learn", "SKLEARN", ModelFramework.SKLEARN])
def test_frameworks_are_found_by_their_usual_names(name: Any):
    assert ModelFramework.of(name) is ModelFramework.SKLEARN


def test_an_unknown_framework_lists_the_known_ones():
    with pytest.raises(UnsupportedModelFrameworkException, match="xgboost"):
        ModelFramework.of("cobol")
    assert ModelFramework.of(None) is None


@given(st.text())
def test_any_text_becomes_a_legal_name(text: str):
    assert DNS_LABEL.fullmatch(slug(text))
    assert is_name(slug(text))
    assert is_name(text) == bool(DNS_LABEL.fullmatch(text))
    assert DNS_LABEL.fullmatch(slug(text, max_length=20))
    assert len(slug(text, max_length=20)) <= 20
    assert LABEL_VALUE.fullmatch(label_value(text))


@given(st.text(), st.text())
def test_two_ids_never_share_a_name(one: str, other: str):
    if one != other:
        assert slug(one) != slug(other)
        assert label_value(one) != label_value(other)


def test_a_slash_and_a_hyphen_do_not_become_one_name():
    assert slug("col/lide") == "col-lide"
    assert slug("col-lide") != "col-lide"


def test_a_plain_id_keeps_its_look():
    assert slug("dev/mnist") == "dev-mnist"
    assert slug("digits") == "digits"
    assert label_value("dev-mnist") == "dev-mnist"


@given(st.text(), st.integers(26, 63))
def test_a_suffix_always_fits(text: str, limit: int):
    name = suffixed(slug(text), "job-1a2b3c4d", max_length=limit)
    assert name.endswith("-job-1a2b3c4d")
    assert len(name) <= limit
    assert DNS_LABEL.fullmatch(name)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.5", "0.5"), ("500m", "0.5"), (2, "2"), (0.5, "0.5"), ("1G", "1000000000"),
        ("1Gi", "1073741824"), ("1e3", "1000"), (".5", "0.5"), ("5.", "5"), ("1E", "1e18"),
    ],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_does(text: Any, number: str):
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "a", "1 G", "-1", "1GB", "1gi", "NaN", "1e", True, None])
def test_what_is_no_quantity_is_refused(text: Any):
    with pytest.raises(ModelValidationException, match="quantity"):
        parse_quantity(text)


def test_the_two_resource_apis_exclude_each_other():
    with pytest.raises(ModelValidationException, match="not both"):
        Resources.choose(Resources(cpu_limit="1"), cpu="1")
    assert Resources.choose(None, cpu=1, memory="2G", gpus=0) == Resources(
        cpu_request="1", cpu_limit="1", memory_request="2G", memory_limit="2G", gpu_limit=0
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu_request": "2", "cpu_limit": "1"},
        {"memory_request": "2Gi", "memory_limit": "2G"},
        {"gpu_request": 1, "gpu_limit": 2},
        {"gpu_limit": -1},
        {"cpu": 1},
    ],
)
def test_resources_that_no_cluster_would_take_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ModelValidationException):
        Resources(**wrong)


@pytest.mark.parametrize(
    ("line", "metrics"),
    [
        ("accuracy=0.93", {"accuracy": 0.93}),
        ("epoch=3 loss = 1.5e-3", {"epoch": 3.0, "loss": 0.0015}),
        ("accuracy=nan", {}),
        ("version=1.2.3", {}),
        ("path=/tmp/x", {}),
        ("nothing here", {}),
    ],
)
def test_metrics_are_read_from_lines(line: str, metrics: dict[str, float]):
    assert parse_line(line) == metrics


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_a_printed_metric_is_read_back_with_its_extremes(values: list[float]):
    metrics = summarise(f"m={value!r}" for value in values)
    assert metrics == {"m": Metric(latest=values[-1], min=min(values), max=max(values))}


def test_values_that_are_not_finite_are_no_observation():
    assert observe({}, {"a": float("inf"), "b": 1.0}) == {"b": Metric.first(1.0)}


def test_a_metric_is_read_the_way_of_the_kaptain_sdk():
    metric = Metric.first(0.5).observe(0.7)
    assert (metric["latest"], metric["min"], metric["max"]) == (0.7, 0.5, 0.7)
    with pytest.raises(KeyError):
        metric["mean"]


def test_metrics_types_are_checked():
    assert MetricsType.of("Testing") is MetricsType.TESTING
    with pytest.raises(UnsupportedMetricsTypeException, match="production"):
        MetricsType.of("guess")
