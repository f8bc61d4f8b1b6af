"""The decision whether to deploy, as arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.model import states
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.record import Artifact, ModelRecord, RunHandle
from kaptain_zen.model.spec import ModelSpec
from kaptain_zen.steps.decision import decide, deployed_metric, metric_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VALUES = st.floats(-1e6, 1e6, allow_nan=False)


def trained(revision: str, accuracy: float) -> ModelRecord:
    spec = ModelSpec(
        id="dev/m",
        name="m",
        description="d",
        version="1",
        framework="sklearn",
        framework_version="1",
        main_file="train.py",
        image_name="i",
        base_image="b",
    )
    return states.trained(
        states.new(spec, revision="0" * 32, now=NOW),
        artifact=Artifact(uri="file:///a", revision=revision),
        hyperparameters={},
        metrics={"accuracy": Metric.first(accuracy)},
        run=RunHandle(backend="local", kind="train", namespace="n", name="r"),
        now=NOW,
    )


def evaluated(record: ModelRecord, value: float, minutes: int = 0) -> ModelRecord:
    return states.evaluated(
        record,
        metrics={"accuracy": value},
        metrics_type="testing",
        now=NOW + timedelta(minutes=minutes),
    )


@given(VALUES, VALUES)
def test_a_minimum_lets_exactly_the_others_through(value: float, least: float) -> None:
    assert decide(value, metric="m", min_value=least).deploy == (value >= least)


@given(VALUES, VALUES)
def test_a_maximum_lets_exactly_the_others_through(value: float, most: float) -> None:
    assert decide(value, metric="m", max_value=most).deploy == (value <= most)


@given(VALUES, VALUES)
def test_only_a_better_model_replaces_another_and_an_equal_one_never_does(
    new: float, old: float
) -> None:
    assert decide(new, metric="m", better="higher", deployed=old).deploy == (new > old)
    assert decide(new, metric="m", better="lower", deployed=old).deploy == (new < old)


@given(VALUES, VALUES, st.floats(0.001, 10))
def test_a_wanted_improvement_is_a_threshold_on_the_difference(
    new: float, old: float, improvement: float
) -> None:
    decision = decide(new, metric="m", better="higher", deployed=old, min_improvement=improvement)
    assert decision.deploy == (new - old >= improvement)


def test_the_first_deployment_has_nothing_to_be_compared_with() -> None:
    decision = decide(0.1, metric="m", better="higher")
    assert decision.deploy
    assert "nothing is deployed" in decision.reason


def test_a_limit_holds_even_for_a_model_that_is_better() -> None:
    assert not decide(0.5, metric="m", min_value=0.9, better="higher", deployed=0.1).deploy


def test_the_reason_names_both_values() -> None:
    reason = decide(0.5, metric="accuracy", better="higher", deployed=0.7).reason
    assert "accuracy 0.5" in reason
    assert "0.7" in reason


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "nothing to decide by"),
        ({"min_value": 2.0, "max_value": 1.0}, "Swap"),
        ({"min_value": float("nan")}, "finite"),
        ({"better": "higher", "min_improvement": -1.0}, "0 or more"),
        ({"better": "larger"}, "'higher' or 'lower'"),
        ({"metric": " ", "min_value": 1.0}, "blank"),
    ],
)
def test_a_decision_without_sense_is_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ModelValidationException, match=reason):
        decide(1.0, **{"metric": "m", **wrong})


def test_an_evaluation_counts_before_what_the_training_printed() -> None:
    record = trained("1" * 32, 0.9)
    assert metric_of(record, "accuracy") == 0.9
    assert metric_of(evaluated(evaluated(record, 0.7), 0.8, minutes=1), "accuracy") == 0.8


def test_an_evaluation_of_an_earlier_revision_does_not_count() -> None:
    old = evaluated(trained("1" * 32, 0.9), 0.7)
    new = trained("2" * 32, 0.95)
    assert metric_of(new.model_copy(update={"evaluations": old.evaluations}), "accuracy") == 0.95


def test_an_unknown_metric_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ModelValidationException, match=r"no metric 'f1'.*accuracy"):
        metric_of(trained("1" * 32, 0.9), "f1")


def test_what_is_deployed_is_compared_by_its_own_evaluation() -> None:
    record = evaluated(trained("1" * 32, 0.9), 0.7)
    served = states.deployed(record, revision="3" * 32, now=NOW)
    newest = trained("2" * 32, 0.95)
    assert deployed_metric(served, newest, "accuracy") == 0.7
    without = served.model_copy(update={"evaluations": ()})
    assert deployed_metric(without, newest, "accuracy") == 0.9
    assert deployed_metric(without, newest, "f1") is None
    assert deployed_metric(newest, newest, "accuracy") is None
