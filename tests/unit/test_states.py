"""The table of actions, and that no sequence of them leaves a record that cannot be kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kaptain_zen.exceptions import KaptainError, ModelDeploymentException, ModelValidationException
from kaptain_zen.model import states
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.record import (
    ANNOTATION_HISTORY,
    ANNOTATION_LIMIT,
    Artifact,
    DataSet,
    DeploymentPhase,
    Image,
    ModelRecord,
    ModelState,
    PendingRun,
    RunHandle,
    Trial,
)
from kaptain_zen.model.spec import ModelSpec

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HANDLE = RunHandle(backend="local", kind="train", namespace="/tmp", name="run")


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec(
        **{
            "id": "dev/mnist",
            "name": "MNIST",
            "description": "Digits",
            "version": "1",
            "framework": "sklearn",
            "framework_version": "1.9",
            "main_file": "training.py",
            "image_name": "me/mnist",
            "base_image": "python",
            **changes,
        }
    )


def revision(number: int) -> str:
    return f"{number:032x}"


def artifact(number: int) -> Artifact:
    return Artifact(uri=f"file:///m/trained/{revision(number)}", revision=revision(number), size=3)


def untrained() -> ModelRecord:
    return states.new(spec(), revision=revision(0), now=NOW)


def trained(number: int = 1, record: ModelRecord | None = None) -> ModelRecord:
    return states.trained(
        record or untrained(),
        artifact=artifact(number),
        hyperparameters={"c": 1.0},
        metrics={"accuracy": Metric.first(0.9)},
        run=HANDLE,
        now=NOW + timedelta(seconds=number),
    )


def serving() -> ModelRecord:
    return states.deployed(trained(), revision=revision(2), now=NOW, bundles="file:///m/deploy")


def canary() -> ModelRecord:
    return states.canaried(
        trained(3, serving()),
        percentage=30,
        revision=revision(4),
        now=NOW,
        bundles="file:///m/deploy",
    )


def test_a_new_model_is_untrained_and_not_deployed():
    record = untrained()
    assert (record.state, record.deployment.phase) == (
        ModelState.UNTRAINED,
        DeploymentPhase.NONE,
    )


def test_training_takes_the_artifacts_revision_and_leaves_the_deployment():
    record = trained(3, serving())
    assert record.revision == revision(3)
    assert record.deployment == serving().deployment


def test_deploying_serves_a_copy_under_the_new_revision():
    baseline = serving().deployment.baseline
    assert baseline is not None
    assert baseline.revision == revision(2)
    assert baseline.source == revision(1)
    assert baseline.uri == f"file:///m/deploy/{revision(2)}"
    assert baseline.metrics == {"accuracy": 0.9}


def test_an_untrained_model_is_deployed_only_from_a_uri():
    with pytest.raises(ModelValidationException, match="Train or tune"):
        states.deployed(untrained(), revision=revision(1), now=NOW)
    record = states.deployed(untrained(), revision=revision(1), now=NOW, uri="s3://b/m")
    assert record.deployment.baseline is not None
    assert record.deployment.baseline.source is None
    assert record.state is ModelState.UNTRAINED


@pytest.mark.parametrize("record", [serving(), canary()], ids=["serving", "canary"])
def test_a_deployed_model_is_replaced_only_on_demand(record: ModelRecord):
    with pytest.raises(ModelDeploymentException, match="replace=True"):
        states.deployed(record, revision=revision(9), now=NOW)
    replaced = states.deployed(record, revision=revision(9), now=NOW, replace=True)
    assert replaced.deployment.phase is DeploymentPhase.SERVING


def test_a_canary_needs_a_baseline():
    with pytest.raises(ModelDeploymentException, match="no baseline"):
        states.canaried(trained(), percentage=30, revision=revision(2), now=NOW)


def test_a_canary_of_what_serves_already_is_refused():
    with pytest.raises(ModelDeploymentException, match="already serves"):
        states.canaried(serving(), percentage=30, revision=revision(3), now=NOW)


def test_the_same_canary_again_changes_its_percentage_only():
    changed = states.canaried(canary(), percentage=50, revision=revision(5), now=NOW)
    assert changed.deployment.canary == canary().deployment.canary
    assert changed.deployment.canary_percentage == 50
    assert changed.revision == revision(5)


def test_a_newer_artifact_replaces_the_canary():
    newer = states.canaried(
        trained(6, canary()), percentage=10, revision=revision(7), now=NOW, bundles="file:///d"
    )
    assert newer.deployment.canary is not None
    assert newer.deployment.canary.source == revision(6)


@pytest.mark.parametrize("percentage", [0, 100, 101, -1, 30.0, "30", True, None])
def test_a_share_outside_1_to_99_is_refused(percentage: Any):
    with pytest.raises(ModelValidationException, match="1 to 99"):
        states.canaried(serving(), percentage=percentage, revision=revision(3), now=NOW)


def test_promotion_serves_the_canarys_revision_and_rollback_the_baselines():
    promoted = states.promoted(canary(), revision=revision(8), now=NOW)
    rolled_back = states.rolled_back(canary(), revision=revision(8), now=NOW)
    assert promoted.deployment.baseline == canary().deployment.canary
    assert rolled_back.deployment.baseline == canary().deployment.baseline
    assert promoted.deployment.phase is rolled_back.deployment.phase is DeploymentPhase.SERVING


@pytest.mark.parametrize("record", [untrained(), trained(), serving()])
@pytest.mark.parametrize("action", [states.promoted, states.rolled_back])
def test_without_a_canary_there_is_nothing_to_settle(record: ModelRecord, action: Any):
    with pytest.raises(ModelDeploymentException, match="no canary"):
        action(record, revision=revision(8), now=NOW)


def test_undeploying_keeps_what_was_trained():
    record = states.undeployed(canary(), now=NOW)
    assert record.deployment.phase is DeploymentPhase.NONE
    assert record.artifact == canary().artifact
    with pytest.raises(ModelDeploymentException, match="not deployed"):
        states.undeployed(record, now=NOW)


@pytest.mark.parametrize("autoscale", [0, -1, True, 1.5])
def test_autoscale_below_one_is_refused(autoscale: Any):
    with pytest.raises(ModelValidationException, match="autoscale"):
        states.deployed(trained(), revision=revision(2), now=NOW, autoscale=autoscale)


def test_two_clients_histories_are_united_and_a_run_settled_twice_stands_once():
    ours = trained(1)
    theirs = states.with_data(
        trained(1).model_copy(
            update={
                "history": (
                    *states.deployed(ours, revision=revision(2), now=NOW).history[1:],
                    ours.history[0].model_copy(update={"at": NOW}),
                )
            }
        ),
        DataSet(name="digits", uri="s3://d"),
    )
    united = states.merged(ours, theirs)
    assert sorted(e.action for e in united.history) == ["deploy", "train"]
    assert [d.name for d in united.datasets] == ["digits"]


def test_the_annotation_keeps_the_newest_history_and_stays_within_its_limit():
    record = trained()
    for number in range(10, 60):
        record = trained(number, record)
    record = record.model_copy(
        update={
            "trials": tuple(
                Trial(
                    number=n,
                    name=f"t-{n}",
                    state="succeeded",
                    parameters={f"parameter-{i}": 0.123456789 for i in range(20)},
                )
                for n in range(1000)
            )
        }
    )
    text = record.to_annotation()
    read = ModelRecord.from_json(text, where="here")
    assert len(text.encode()) <= ANNOTATION_LIMIT
    assert read.history == record.history[-ANNOTATION_HISTORY:]
    assert read.artifact == record.artifact


def test_metrics_that_are_no_numbers_are_not_logged():
    with pytest.raises(ModelValidationException):
        states.evaluated(trained(), metrics={"a": float("nan")}, metrics_type="testing", now=NOW)


class Actions(RuleBasedStateMachine):
    """Any sequence of actions either raises with nothing changed, or leaves a record that keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.record = untrained()
        self.number = 0

    def _try(self, action: Any, **arguments: Any) -> None:
        before = self.record.to_json()
        try:
            self.record = action(self.record, **arguments)
        except KaptainError:
            unchanged = self.record.to_json() == before
            assert unchanged

    def _next(self) -> str:
        self.number += 1
        return revision(self.number)

    @rule()
    def build(self) -> None:
        self._try(states.built, image=Image(name="me/mnist:1", checksum="abc"))

    @rule(tuned=st.booleans(), value=st.floats(allow_nan=False, allow_infinity=False))
    def train_or_tune(self, tuned: bool, value: float) -> None:
        arguments = {
            "artifact": artifact(int(self._next(), 16)),
            "hyperparameters": {"c": value},
            "metrics": {"accuracy": Metric.first(value)},
            "run": HANDLE,
            "now": NOW,
        }
        if tuned:
            trial = Trial(number=0, name="t", state="succeeded", parameters={"c": value})
            self._try(states.tuned, trials=(trial,), **arguments)
        else:
            self._try(states.trained, **arguments)

    @rule()
    def submit(self) -> None:
        pending = PendingRun(
            action="train",
            revision=self._next(),
            handle=HANDLE,
            upload_uri="file:///m",
            submitted_at=NOW,
        )
        self._try(states.submitted, pending=pending)

    @rule()
    def fail(self) -> None:
        self._try(states.ended_without_model)

    @rule(uri=st.none() | st.sampled_from(["s3://b/a", "s3://b/c", " "]), replace=st.booleans())
    def deploy(self, uri: str | None, replace: bool) -> None:
        self._try(states.deployed, revision=self._next(), now=NOW, uri=uri, replace=replace)

    @rule(
        uri=st.none() | st.sampled_from(["s3://b/a", "s3://b/c"]),
        percentage=st.integers(-5, 120),
    )
    def canary(self, uri: str | None, percentage: int) -> None:
        self._try(states.canaried, revision=self._next(), now=NOW, uri=uri, percentage=percentage)

    @rule()
    def promote(self) -> None:
        self._try(states.promoted, revision=self._next(), now=NOW)

    @rule()
    def rollback(self) -> None:
        self._try(states.rolled_back, revision=self._next(), now=NOW)

    @rule()
    def undeploy(self) -> None:
        self._try(states.undeployed, now=NOW)

    @rule(value=st.floats(), kind=st.sampled_from(["training", "testing", "nonsense"]))
    def log(self, value: float, kind: str) -> None:
        self._try(states.evaluated, metrics={"m": value}, metrics_type=kind, now=NOW)

    @invariant()
    def round_trips_and_is_valid(self) -> None:
        assert ModelRecord.from_json(self.record.to_json(), where="here") == self.record
        annotation = ModelRecord.from_json(self.record.to_annotation(), where="here")
        assert annotation.deployment == self.record.deployment

    @invariant()
    def phase_and_revisions_agree(self) -> None:
        deployment = self.record.deployment
        assert (deployment.baseline is None) == (deployment.phase is DeploymentPhase.NONE)
        assert (deployment.canary is not None) == (deployment.phase is DeploymentPhase.CANARY)


Actions.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestActions = Actions.TestCase


@given(text=st.text() | st.recursive(st.none() | st.integers(), st.lists).map(str))
def test_a_broken_record_is_reported_with_its_place(text: str):
    from kaptain_zen.exceptions import RecordFormatError

    with pytest.raises(RecordFormatError, match="annotation of x"):
        ModelRecord.from_json(text, where="annotation of x")


def test_a_record_of_a_later_release_is_refused():
    from kaptain_zen.exceptions import RecordFormatError

    text = untrained().to_json().replace('"schema_version":1', '"schema_version":2')
    with pytest.raises(RecordFormatError, match="schema version 2"):
        ModelRecord.from_json(text, where="here")
