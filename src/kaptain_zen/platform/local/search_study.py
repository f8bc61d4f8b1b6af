"""The trials of a search in Optuna's own storage, which is the truth about them.

Only the process that drives a search writes to it, and it holds the search's lock; so Optuna's own
lock, which a killed process would leave behind for half a minute, is not used. This module imports
Optuna, so it is imported when a search runs and not before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from kaptain_zen.exceptions import WorkloadDeploymentError
from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.hyperparameter.domains import AnyDomain
from kaptain_zen.model.metrics import parse_line
from kaptain_zen.model.ports import LogLine, TuneRequest
from kaptain_zen.model.record import Hyperparameters, RunHandle
from kaptain_zen.platform.local.samplers import make_pruner, make_sampler
from kaptain_zen.platform.local.search_rules import Asked, Ended, Ending, value
from kaptain_zen.platform.local.search_settings import read_settings
from kaptain_zen.platform.local.search_space import axis, value_at

_STATES = {
    "succeeded": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "killed": TrialState.FAIL,
}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's logging to errors for the length of a block."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def submitted_runs(journal: Path, request: TuneRequest, *, ended: bool) -> list[RunHandle]:
    """The runs of a search's trials, for somebody who does not drive it.

    Args:
        journal: The search's storage.
        request: The search.
        ended: Whether to include trials that ended.
    """
    if not journal.exists():
        return []
    storage = optuna.storages.JournalStorage(_Journal(journal))
    try:
        study = storage.get_study_id_from_name(request.name)
    except KeyError:
        return []
    return [
        RunHandle.model_validate(trial.user_attrs["handle"])
        for trial in storage.get_all_trials(study, deepcopy=False)
        if "handle" in trial.user_attrs and (ended or not trial.state.is_finished())
    ]


class SearchStudy:
    """A search's study, opened by the process that drives it.

    Attributes:
        pruned: Trials that should be stopped because others did better.
    """

    def __init__(self, journal: Path, request: TuneRequest) -> None:
        """Open the study, or begin it."""
        _cut_torn_line(journal)
        self._request = request
        self._domains, self._fixed = _searched(request)
        self._journal = _Journal(journal)
        self._storage = optuna.storages.JournalStorage(self._journal)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=request.name,
            direction=request.objective_type,
            load_if_exists=True,
        )
        self._id = self._storage.get_study_id_from_name(request.name)
        self._study.sampler = make_sampler(request, begun=len(self._all()))
        self._study.pruner = make_pruner(request)
        self._trials: dict[int, optuna.Trial] = {}
        self._reports: dict[int, tuple[str, int]] = {}
        self.pruned = {found.number for found in self._all() if "pruned" in found.user_attrs}

    @property
    def started_at(self) -> datetime | None:
        """When the first trial was asked for."""
        moments = [trial.datetime_start for trial in self._all() if trial.datetime_start]
        # Optuna's moments are in local time, without saying so.
        return min(moments).astimezone(UTC) if moments else None

    def ask(self) -> Asked:
        """Ask for the next trial.

        Raises:
            WorkloadDeploymentError: The algorithm cannot cope with the hyperparameters' domains.
        """
        with _blaming(self._request):
            trial = self._study.ask()
            self._trials[trial.number] = trial
            asked = Asked(number=trial.number, parameters=self._draw(trial))
        self._journal.sync()
        return asked

    def unfinished(self) -> list[Asked]:
        """Trials that were asked for, perhaps by an earlier process, and have not ended.

        One whose process was killed while it asked lacks hyperparameters; `completed` adds them.
        """
        return [self._asked(found) for found in self._all() if not found.state.is_finished()]

    def completed(self, asked: Asked) -> Asked:
        """A trial with all of its hyperparameters."""
        if asked.complete(self._request):
            return asked
        with _blaming(self._request):
            parameters = self._draw(self._trial(asked.number))
        self._journal.sync()
        return asked.model_copy(update={"parameters": parameters})

    def ended(self) -> list[Ended]:
        """Trials that ended, in the order of asking."""
        return [
            Ended(
                asked=self._asked(found), ending=Ending.model_validate(found.user_attrs["ending"])
            )
            for found in self._all()
            if found.state.is_finished()
        ]

    def submitted(self, number: int, handle: RunHandle) -> None:
        """Note down which run a trial is."""
        self._note(number, "handle", handle.model_dump(mode="json"))

    def end(self, asked: Asked, ending: Ending) -> Ended:
        """Note down how a trial ended, and let the sampler learn from it."""
        ended = Ended(asked=asked, ending=ending)
        self._note(asked.number, "ending", ending.model_dump(mode="json"))
        state = _STATES[ending.state]
        values = value(ended, self._request) if state is TrialState.COMPLETE else None
        self._study.tell(asked.number, values, state=state)
        self._trials.pop(asked.number, None)
        return ended

    def observe(self, number: int, line: LogLine) -> bool:
        """Note down the value of the objective that a line of a trial may hold.

        Args:
            number: Of the trial.
            line: What it printed.

        Returns:
            Whether the trial should be stopped, because others did better after as many values.
        """
        reported = parse_line(line.text).get(self._request.objectives[0])
        source, step = self._reports.get(number, (line.source, 0))
        # Of several workers that report the same, the first one to do so counts.
        if reported is None or source != line.source or number in self.pruned:
            return False
        self._reports[number] = source, step + 1
        trial = self._trial(number)
        # Who re-attaches to a run sees its lines from the first one.
        if step + 1 not in self._storage.get_trial(self._key(number)).intermediate_values:
            trial.report(reported, step + 1)
        if not trial.should_prune():
            return False
        self._note(number, "pruned", True)
        self.pruned.add(number)
        return True

    @property
    def copied(self) -> bool:
        """Whether the best trial's model is completely where it belongs."""
        return bool(self._study.user_attrs.get("copied"))

    def note_copied(self) -> None:
        """Note down that the best trial's model is where it belongs."""
        self._study.set_user_attr("copied", True)
        # Before the originals are removed.
        self._journal.sync()

    def _all(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _key(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _note(self, number: int, name: str, noted: Any) -> None:
        self._storage.set_trial_user_attr(self._key(number), name, noted)

    def _trial(self, number: int) -> optuna.Trial:
        """A trial to draw from; making one already asks the sampler."""
        if number not in self._trials:
            self._trials[number] = optuna.Trial(self._study, self._key(number))
        return self._trials[number]

    def _asked(self, found: FrozenTrial) -> Asked:
        handle = found.user_attrs.get("handle")
        return Asked(
            number=found.number,
            parameters=self._parameters(found.params),
            handle=None if handle is None else RunHandle.model_validate(handle),
        )

    def _draw(self, trial: optuna.Trial) -> Hyperparameters:
        drawn: dict[str, Any] = {}
        for name, domain in self._domains.items():
            line = axis(domain)
            if line.kind == "real":
                drawn[name] = trial.suggest_float(name, line.low, line.high, log=line.log)
            elif line.kind == "whole":
                drawn[name] = trial.suggest_int(
                    name, int(line.low), int(line.high), step=line.step, log=line.log
                )
            else:
                drawn[name] = trial.suggest_categorical(name, line.choices)
        return self._parameters(drawn)

    def _parameters(self, drawn: dict[str, Any]) -> Hyperparameters:
        found = {name: value_at(self._domains[name], raw) for name, raw in drawn.items()}
        found.update(self._fixed)
        # In the order in which the hyperparameters were given.
        return {name: found[name] for name in self._request.hyperparameters if name in found}


@contextmanager
def _blaming(request: TuneRequest) -> Iterator[None]:
    """Say errors of an optimiser's arithmetic in words of this package."""
    try:
        yield
    except (ValueError, ArithmeticError) as error:
        name = request.algorithm.value
        raise WorkloadDeploymentError(
            f"Algorithm {name!r} could not choose the next hyperparameters ({error}). Give them "
            f"ranges that are less extreme, or use 'random'."
        ) from error


def _searched(request: TuneRequest) -> tuple[dict[str, AnyDomain], Hyperparameters]:
    """What is drawn, and what is fixed: hyperband gives every trial the full resource."""
    domains = dict(request.hyperparameters)
    if request.algorithm is Algorithm.HYPERBAND:
        settings = read_settings(request.algorithm, request.algorithm_settings)
        name = settings.get("resource_name")
        if name is not None:
            domain = domains.pop(name)
            return domains, {name: domain.parse(str(settings["r_l"]))}
    return domains, {}


class _Journal(JournalFileBackend):
    """Optuna's journal file for one writer, which decides itself when it must be on the disk.

    Optuna's own waits for the disk after every entry, five times a trial. A killed process loses
    nothing without that. A machine that fails may lose entries, which matters for one kind only:
    what a trial tries must be known before it is started, see `sync`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries."""
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)
        with self._path.open("ab") as file:
            file.write(lines.encode())

    def sync(self) -> None:
        """Wait until all entries are on the disk."""
        with self._path.open("ab") as file:
            os.fsync(file.fileno())


def _cut_torn_line(journal: Path) -> None:
    """Remove a line that was not written to its end, which Optuna could not read past."""
    try:
        with journal.open("r+b") as file:
            data = file.read()
            if data and not data.endswith(b"\n"):
                os.ftruncate(file.fileno(), data.rfind(b"\n") + 1)
    except FileNotFoundError:
        return
