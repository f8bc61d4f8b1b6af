"""What a search decides: pure functions of what its trials did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.search_support import request

from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.hyperparameter.domains import Categorical, Integer
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.ports import RunState, RunStatus
from kaptain_zen.model.record import RunHandle
from kaptain_zen.platform.local.search_rules import (
    Asked,
    Ended,
    Ending,
    best,
    decide,
    describe,
    judge,
    total,
    train_request,
    trial_name,
    trial_uri,
    value,
)

HANDLE = RunHandle(backend="local", kind="tune", namespace="/x", name="tiny-tune", uid="1")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
State = Literal["succeeded", "failed", "killed", "pruned"]


def ended(number: int, state: State = "succeeded", accuracy: float = 0.5) -> Ended:
    return Ended(
        asked=Asked(number=number, parameters={"x": accuracy}),
        ending=Ending(
            state=state,
            reason="ended with exit code 3." if state == "failed" else "",
            metrics={"accuracy": Metric.first(accuracy)} if state != "failed" else {},
            seconds=1.0,
        ),
    )


def run(state: RunState, **changes: Any) -> RunStatus:
    return RunStatus(handle=HANDLE, state=state, **changes)


TRIALS = st.lists(
    st.tuples(
        st.sampled_from(["succeeded", "failed", "killed", "pruned"]),
        st.floats(-10, 10),
    ),
    max_size=12,
).map(lambda pairs: [ended(n, state, v) for n, (state, v) in enumerate(pairs)])  # type: ignore[arg-type]


@given(
    trials=TRIALS,
    more=st.integers(0, 5),
    failed=st.integers(1, 6),
    goal=st.none() | st.floats(-10, 10),
    maximize=st.booleans(),
    cancelled=st.booleans(),
    overdue=st.booleans(),
)
def test_a_search_is_over_exactly_when_it_should_be(
    trials: list[Ended],
    more: int,
    failed: int,
    goal: float | None,
    maximize: bool,
    cancelled: bool,
    overdue: bool,
) -> None:
    wanted = request(
        trials=max(1, len(trials) + more),
        failed_trials=failed,
        objective_goal=goal,
        objective_type="maximize" if maximize else "minimize",
        timeout=60.0,
    )
    verdict = decide(wanted, trials, total=wanted.trials, cancelled=cancelled, overdue=overdue)
    failures = sum(t.ending.state == "failed" for t in trials)
    values = [value(t, wanted) for t in trials if t.ending.state == "succeeded"]
    reached = goal is not None and any(v >= goal if maximize else v <= goal for v in values)
    complete = len(trials) == wanted.trials
    over = cancelled or overdue or failures >= failed or reached or complete
    assert (verdict is not None) == over
    if verdict is None:
        return
    assert verdict.state.finished
    if cancelled:
        assert verdict.state is RunState.CANCELLED
    elif failures >= failed:
        assert verdict.state is RunState.FAILED
    else:
        succeeded = reached or (complete and bool(values))
        assert verdict.state is (RunState.SUCCEEDED if succeeded else RunState.FAILED)
        assert verdict.goal_reached == reached
    assert bool(verdict.reason) == (verdict.state is not RunState.SUCCEEDED)


@given(TRIALS, st.booleans())
def test_the_best_is_no_worse_than_any_other(trials: list[Ended], maximize: bool) -> None:
    wanted = request(objective_type="maximize" if maximize else "minimize")
    winner = best(trials, wanted)
    good = [t for t in trials if t.ending.state == "succeeded"]
    assert (winner is None) == (not good)
    if winner is None:
        return
    assert winner.ending.state == "succeeded"
    values = [value(t, wanted) for t in good]
    assert value(winner, wanted) == (max(values) if maximize else min(values))
    first = next(t for t in good if value(t, wanted) == value(winner, wanted))
    assert winner == first


def test_the_reason_names_the_first_failure() -> None:
    wanted = request(failed_trials=2)
    trials = [ended(0), ended(1, "failed"), ended(2, "failed")]
    verdict = decide(wanted, trials, total=16, cancelled=False, overdue=False)
    assert verdict is not None
    assert verdict.reason == (
        "2 trials failed, and failed_trials=2 ends the search. The first, tiny-tune-1: ended with "
        "exit code 3."
    )


def test_trials_that_were_all_stopped_make_no_search() -> None:
    verdict = decide(
        request(trials=1), [ended(0, "killed")], total=1, cancelled=False, overdue=False
    )
    assert verdict is not None
    assert verdict.state is RunState.FAILED
    assert verdict.reason == (
        "None of 1 trial succeeded. All of them were stopped before their end."
    )


def test_how_a_run_ended_is_how_its_trial_ended() -> None:
    wanted = request()
    metrics = {"accuracy": Metric(latest=0.4, min=0.1, max=0.9)}
    times = {"started_at": NOW, "ended_at": NOW + timedelta(seconds=2.5)}
    good = judge(run(RunState.SUCCEEDED, metrics=metrics, **times), wanted, pruned=False)
    assert good == Ending(state="succeeded", metrics=metrics, seconds=2.5)
    # It succeeded before it could be stopped.
    assert judge(run(RunState.SUCCEEDED, metrics=metrics), wanted, pruned=True).state == "succeeded"
    assert judge(run(RunState.CANCELLED), wanted, pruned=False).state == "killed"
    assert judge(run(RunState.CANCELLED), wanted, pruned=True).state == "pruned"
    bad = judge(run(RunState.FAILED, reason="worker-0 ended."), wanted, pruned=False)
    assert (bad.state, bad.reason) == ("failed", "worker-0 ended.")
    assert judge(run(RunState.FAILED), wanted, pruned=False).reason != ""


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None])
def test_a_run_that_reported_no_number_failed(number: float | None) -> None:
    metrics = {"loss": Metric.first(1.0)}
    if number is not None:
        metrics["accuracy"] = Metric.first(number)
    ending = judge(run(RunState.SUCCEEDED, metrics=metrics), request(), pruned=False)
    assert ending.state == "failed"
    assert "did not report a number for 'accuracy'; it reported loss" in ending.reason


def test_a_grid_may_have_fewer_points_than_trials() -> None:
    spaces = {"n": Integer(1, 3), "w": Categorical(["a", "b"])}
    assert total(request(algorithm=Algorithm.GRID, hyperparameters=spaces, trials=16)) == 6
    assert total(request(algorithm=Algorithm.GRID, hyperparameters=spaces, trials=4)) == 4
    assert total(request(hyperparameters=spaces, trials=16)) == 16


def test_a_trial_is_a_training_of_its_own_name_and_place() -> None:
    wanted = request(args=("a",), kwargs={"b": "c"}, annotation="record", workers=3, timeout=9.0)
    trial = train_request(wanted, 4, {"x": 0.5}, timeout=3.0)
    assert trial.name == trial_name(wanted, 4) == "tiny-tune-4"
    assert trial.upload_uri == trial_uri(wanted, 4) == "file:///nowhere/trials/tiny-tune-4"
    assert trial.hyperparameters == {"x": 0.5}
    assert (trial.args, trial.kwargs, trial.workers) == (("a",), {"b": "c"}, 3)
    assert (trial.timeout, trial.annotation) == (3.0, "")


@given(st.integers(0, 10**6))
def test_trials_of_a_long_name_have_different_legal_names(number: int) -> None:
    wanted = request(name="m" * 63)
    name = trial_name(wanted, number)
    assert len(name) <= 63
    assert name.endswith(f"-{number}")


@given(TRIALS, st.integers(0, 4))
def test_a_status_adds_up(trials: list[Ended], running: int) -> None:
    wanted = request()
    whole = len(trials) + running + 3
    status = describe(HANDLE, wanted, trials, total=whole, running=running, submitted_at=NOW)
    states = ("succeeded", "failed", "killed", "pruned")
    assert sum(status.count(s) for s in states) + status.running + status.pending == whole
    assert (status.state is RunState.PENDING) == (not trials and not running)
    winner = best(trials, wanted)
    assert (status.best is None) == (winner is None)
    if winner:
        assert status.hyperparameters == winner.asked.parameters
        assert status.metrics == winner.ending.metrics
    assert status.model_validate_json(status.model_dump_json()) == status
