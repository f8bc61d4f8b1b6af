"""What a search decides: how a trial ended, which is best, when it is over. Pure functions.

A trial counts by the *latest* value of the main objective that it reported, because that is the
value of the model that the trial saved: a run that was better once and then diverged does not win
with a model that no longer exists. (Katib's own default is the best value ever reported; its
`metricStrategies` can be set to `latest` for the same result.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field

from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.model.base import Frozen
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.names import suffixed
from kaptain_zen.model.ports import RunState, RunStatus, TrainRequest, TuneRequest, TuneStatus
from kaptain_zen.model.record import Hyperparameters, RunHandle, Trial
from kaptain_zen.platform.local.search_space import Grid


class Asked(Frozen):
    """A trial that was asked for and has not ended.

    Attributes:
        number: Its place in the order of asking, from 0.
        parameters: What it is to try.
        handle: Its run, once it is known to have been submitted.
    """

    number: int
    parameters: Hyperparameters
    handle: RunHandle | None = None

    def complete(self, request: TuneRequest) -> bool:
        """Whether all of its hyperparameters are known; before that it is not submitted."""
        return len(self.parameters) == len(request.hyperparameters)


class Ending(Frozen):
    """How a trial ended.

    Attributes:
        state: As in `Trial`.
        reason: Why it failed.
        metrics: What it reported.
        seconds: How long it ran.
    """

    state: Literal["succeeded", "failed", "killed", "pruned"]
    reason: str = ""
    metrics: dict[str, Metric] = Field(default_factory=dict)
    seconds: float | None = None


class Ended(Frozen):
    """A trial that ended.

    Attributes:
        asked: The trial.
        ending: How it ended.
    """

    asked: Asked
    ending: Ending


class Verdict(Frozen):
    """That a search is over, and how.

    Attributes:
        state: How.
        reason: Why it failed or was cancelled.
        goal_reached: Whether it is over because the goal was reached.
    """

    state: RunState
    reason: str = ""
    goal_reached: bool = False


CANCELLED = Verdict(state=RunState.CANCELLED, reason="The search was cancelled.")


def total(request: TuneRequest) -> int:
    """How many trials a search has at most: a grid may have fewer points than trials."""
    if request.algorithm is Algorithm.GRID:
        return min(request.trials, Grid(request.hyperparameters).size)
    return request.trials


def trial_name(request: TuneRequest, number: int) -> str:
    """The name of a trial's run: the same in every process, so that none is started twice."""
    return suffixed(request.name, str(number))


def trial_uri(request: TuneRequest, number: int) -> str:
    """Where a trial's model goes."""
    return f"{request.trials_uri}/{trial_name(request, number)}"


def train_request(
    request: TuneRequest, number: int, parameters: Hyperparameters, *, timeout: float | None
) -> TrainRequest:
    """A trial as a training.

    Args:
        request: The search.
        number: Of the trial.
        parameters: What it tries.
        timeout: Seconds that are left to the search.
    """
    shared = {name: getattr(request, name) for name in TrainRequest.model_fields}
    shared.update(
        name=trial_name(request, number),
        upload_uri=trial_uri(request, number),
        hyperparameters=parameters,
        timeout=timeout,
        annotation="",
    )
    return TrainRequest(**shared)


def judge(status: RunStatus, request: TuneRequest, *, pruned: bool) -> Ending:
    """How a trial ended, by its run's status.

    Args:
        status: Of the run that ended.
        request: The search.
        pruned: Whether the search stopped it because others did better.
    """
    started, ended = status.started_at, status.ended_at
    seconds = (ended - started).total_seconds() if started and ended else None
    ending = Ending(state="succeeded", metrics=status.metrics, seconds=seconds)
    if status.state is RunState.CANCELLED:
        return ending.model_copy(update={"state": "pruned" if pruned else "killed"})
    if status.state is not RunState.SUCCEEDED:
        reason = status.reason or "its run failed without a reason"
        return ending.model_copy(update={"state": "failed", "reason": reason})
    objective = request.objectives[0]
    if objective not in status.metrics or not math.isfinite(status.metrics[objective].latest):
        found = ", ".join(status.metrics) or "nothing"
        reason = (
            f"did not report a number for {objective!r}; it reported {found}. Print "
            f"{objective}=<value>, or call MetadataUtil.record_metrics({{{objective!r}: value}})"
        )
        return ending.model_copy(update={"state": "failed", "reason": reason})
    return ending


def value(ended: Ended, request: TuneRequest) -> float:
    """What a trial that succeeded counts by."""
    return ended.ending.metrics[request.objectives[0]].latest


def best(trials: Collection[Ended], request: TuneRequest) -> Ended | None:
    """The best of the trials that succeeded, the earliest of equals; None if none did."""
    sign = -1 if request.objective_type == "maximize" else 1
    return min(
        (ended for ended in trials if ended.ending.state == "succeeded"),
        key=lambda ended: (sign * value(ended, request), ended.asked.number),
        default=None,
    )


def decide(
    request: TuneRequest,
    trials: Sequence[Ended],
    *,
    total: int,
    cancelled: bool,
    overdue: bool,
) -> Verdict | None:
    """Whether a search is over.

    Args:
        request: The search.
        trials: Those that ended.
        total: How many there will be at most.
        cancelled: Whether somebody wants it to stop.
        overdue: Whether its time is over.

    Returns:
        The verdict; None when it goes on.
    """
    if cancelled:
        return CANCELLED
    failed = [ended for ended in trials if ended.ending.state == "failed"]
    if len(failed) >= request.failed_trials:
        return Verdict(
            state=RunState.FAILED,
            reason=f"{_trials(len(failed))} failed, and failed_trials={request.failed_trials} "
            f"ends the search. {_first_cause(failed, request)}",
        )
    winner = best(trials, request)
    if winner is not None and _reaches_goal(value(winner, request), request):
        return Verdict(state=RunState.SUCCEEDED, goal_reached=True)
    if len(trials) >= total:
        return _all_ended(winner, failed, request, len(trials))
    if overdue:
        reason = (
            f"The search did not end within its timeout of {request.timeout or 0:g} s; "
            f"{len(trials)} of {_trials(total)} had ended. Raise the timeout, or ask for fewer "
            f"trials."
        )
        return Verdict(state=RunState.FAILED, reason=reason)
    return None


def describe(
    handle: RunHandle,
    request: TuneRequest,
    trials: Sequence[Ended],
    *,
    total: int,
    running: int,
    submitted_at: datetime,
    started_at: datetime | None = None,
    ended_at: datetime | None = None,
    verdict: Verdict | None = None,
) -> TuneStatus:
    """What is known of a search.

    Args:
        handle: Of the search.
        request: The search.
        trials: Those that ended.
        total: How many there will be at most.
        running: How many run.
        submitted_at: When it was submitted.
        started_at: When its first trial was asked for.
        ended_at: When it was over.
        verdict: How it ended, if it has.
    """
    state = RunState.RUNNING if trials or running else RunState.PENDING
    winner = best(trials, request)
    return TuneStatus(
        handle=handle,
        state=verdict.state if verdict else state,
        reason=verdict.reason if verdict else "",
        metrics=winner.ending.metrics if winner else {},
        submitted_at=submitted_at,
        started_at=started_at,
        ended_at=ended_at,
        annotation=request.annotation,
        trials=tuple(_trial(ended, request) for ended in trials),
        best=trial_name(request, winner.asked.number) if winner else None,
        hyperparameters=winner.asked.parameters if winner else {},
        total=total,
        running=running,
        pending=0 if verdict else total - len(trials) - running,
        goal_reached=verdict.goal_reached if verdict else False,
    )


def _all_ended(
    winner: Ended | None, failed: Sequence[Ended], request: TuneRequest, number: int
) -> Verdict:
    if winner is not None:
        return Verdict(state=RunState.SUCCEEDED)
    reason = f"None of {_trials(number)} succeeded. {_first_cause(failed, request)}"
    return Verdict(state=RunState.FAILED, reason=reason)


def _trial(ended: Ended, request: TuneRequest) -> Trial:
    return Trial(
        number=ended.asked.number,
        name=trial_name(request, ended.asked.number),
        state=ended.ending.state,
        parameters=ended.asked.parameters,
        metrics={name: metric.latest for name, metric in ended.ending.metrics.items()},
        seconds=ended.ending.seconds,
    )


def _reaches_goal(found: float, request: TuneRequest) -> bool:
    goal = request.objective_goal
    if goal is None:
        return False
    return found >= goal if request.objective_type == "maximize" else found <= goal


def _first_cause(failed: Sequence[Ended], request: TuneRequest) -> str:
    if not failed:
        return "All of them were stopped before their end."
    first = min(failed, key=lambda ended: ended.asked.number)
    return f"The first, {trial_name(request, first.asked.number)}: {first.ending.reason}"


def _trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number} trials"
