"""What Optuna's samplers draw for our domains, through a study on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.search_support import (
    categoricals,
    discretes,
    doubles,
    finite_domains,
    integers,
    request,
    stepped_doubles,
)

from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.hyperparameter.domains import AnyDomain, Discrete, Double, Integer
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.ports import LogLine, TuneRequest
from kaptain_zen.model.record import RunHandle
from kaptain_zen.platform.local.search_rules import Ending
from kaptain_zen.platform.local.search_study import SearchStudy, quiet, submitted_runs

DRAWN = st.one_of(doubles(), stepped_doubles(), integers(), discretes(), categoricals())
TYPES = {"double": float, "integer": int, "discrete": float, "categorical": str}
HANDLE = RunHandle(backend="local", kind="train", namespace="/x", name="tiny-tune-0", uid="1")


@contextmanager
def journal() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "journal.log"


def succeeded(value: float) -> Ending:
    return Ending(state="succeeded", metrics={"accuracy": Metric.first(value)})


def check_values(wanted: TuneRequest, parameters: dict[str, Any]) -> None:
    assert list(parameters) == list(wanted.hyperparameters)
    for name, domain in wanted.hyperparameters.items():
        assert parameters[name] in domain
        assert type(parameters[name]) is TYPES[domain.kind]


@pytest.mark.parametrize(
    "algorithm", ["random", "tpe", "multivariate-tpe", "cmaes", "sobol", "hyperband"]
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_a_sampler_draws_lies_in_the_domain(algorithm: str, data: st.DataObject) -> None:
    names = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
    spaces = data.draw(st.dictionaries(names, DRAWN, min_size=1, max_size=4))
    if algorithm == "cmaes":
        spaces |= {"first": data.draw(doubles()), "second": data.draw(integers())}
    wanted = request(
        algorithm=Algorithm(algorithm),
        hyperparameters=spaces,
        objective_type=data.draw(st.sampled_from(["maximize", "minimize"])),
    )
    values = st.floats(allow_nan=False, allow_infinity=False)
    with journal() as path, quiet():
        study = SearchStudy(path, wanted)
        for number in range(12):
            asked = study.ask()
            assert asked.number == number
            check_values(wanted, asked.parameters)
            study.end(asked, succeeded(data.draw(values)))
        # Another process reads the same.
        ended = SearchStudy(path, wanted).ended()
        assert ended == study.ended()
        for one in ended:
            check_values(wanted, one.asked.parameters)


@settings(max_examples=25, deadline=None)
@given(
    spaces=st.dictionaries(st.text(min_size=1), finite_domains(), min_size=1, max_size=2),
    trials=st.integers(1, 12),
    reopened=st.integers(0, 12),
)
def test_a_grid_gives_every_trial_another_point_whoever_asks(
    spaces: dict[str, AnyDomain], trials: int, reopened: int
) -> None:
    wanted = request(algorithm=Algorithm.GRID, hyperparameters=spaces, trials=trials)
    from kaptain_zen.platform.local.search_rules import total

    found = []
    with journal() as path, quiet():
        study = SearchStudy(path, wanted)
        for number in range(total(wanted)):
            if number == reopened:
                study = SearchStudy(path, wanted)
            asked = study.ask()
            check_values(wanted, asked.parameters)
            found.append(repr(asked.parameters))
            study.end(asked, succeeded(1.0) if number % 2 else Ending(state="failed"))
    assert len(set(found)) == len(found)


def drawn(wanted: TuneRequest, number: int, *, reopen: int | None = None) -> list[float]:
    with journal() as path, quiet():
        study = SearchStudy(path, wanted)
        values = []
        for n in range(number):
            if n == reopen:
                study = SearchStudy(path, wanted)
            asked = study.ask()
            values.append(float(asked.parameters["x"]))
            study.end(asked, succeeded(values[-1]))
        return values


@pytest.mark.parametrize("algorithm", ["random", "tpe", "multivariate-tpe", "sobol", "hyperband"])
def test_a_random_state_makes_a_search_repeatable(algorithm: str) -> None:
    wanted = request(algorithm=Algorithm(algorithm), algorithm_settings={"random_state": 7})
    first = drawn(wanted, 12)
    assert drawn(wanted, 12) == first
    other = request(algorithm=Algorithm(algorithm), algorithm_settings={"random_state": 8})
    assert drawn(other, 12) != first


@pytest.mark.parametrize("algorithm", ["random", "tpe", "sobol"])
def test_a_resumed_search_does_not_try_the_same_again(algorithm: str) -> None:
    wanted = request(algorithm=Algorithm(algorithm), algorithm_settings={"random_state": 7})
    values = drawn(wanted, 12, reopen=6)
    assert len(set(values)) == 12


def test_settings_reach_the_sampler() -> None:
    few = request(algorithm=Algorithm.TPE, algorithm_settings={"n_startup_trials": 2})
    with journal() as path, quiet():
        sampler = SearchStudy(path, few)._study.sampler
    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert sampler._n_startup_trials == 2


def test_tpe_goes_where_it_was_good() -> None:
    wanted = request(
        algorithm=Algorithm.TPE,
        algorithm_settings={"random_state": 1},
        hyperparameters={"x": Double(0, 1)},
        objective_type="minimize",
    )
    with journal() as path, quiet():
        study = SearchStudy(path, wanted)
        distances = []
        for _ in range(40):
            asked = study.ask()
            distances.append(abs(float(asked.parameters["x"]) - 0.37))
            study.end(asked, succeeded(distances[-1]))
    assert median(distances[20:]) < 0.75 * median(distances[:10])


def test_a_study_knows_what_is_under_way() -> None:
    wanted = request()
    with journal() as path, quiet():
        assert submitted_runs(path, wanted, ended=True) == []
        study = SearchStudy(path, wanted)
        assert submitted_runs(path, wanted, ended=True) == []
        first, second = study.ask(), study.ask()
        study.submitted(0, HANDLE)
        study.end(first, succeeded(1.0))
        again = SearchStudy(path, wanted)
        assert again.unfinished() == [second]
        assert [e.asked.handle for e in again.ended()] == [HANDLE]
        assert submitted_runs(path, wanted, ended=True) == [HANDLE]
        assert submitted_runs(path, wanted, ended=False) == []
        again.end(second, Ending(state="killed"))
        assert again.ask().number == 2


def test_only_the_first_worker_that_reports_counts_for_pruning() -> None:
    wanted = request(
        algorithm=Algorithm.HYPERBAND,
        algorithm_settings={"r_l": 9, "eta": 2},
        hyperparameters={"x": Double(0, 1), "n": Integer(1, 3), "d": Discrete([1])},
    )

    def observed(study: SearchStudy, number: int, value: float, source: str = "a") -> bool:
        return study.observe(number, LogLine(source=source, text=f"accuracy={value}"))

    with journal() as path, quiet():
        study = SearchStudy(path, wanted)
        for _ in range(6):
            good = study.ask()
            assert not any(observed(study, good.number, 0.9) for _ in range(9))
            study.end(good, succeeded(0.9))
        bad = study.ask()
        assert not study.observe(bad.number, LogLine(source="a", text="no number here"))
        stopped = False
        for _ in range(9):
            stopped = stopped or observed(study, bad.number, 0.1)
            assert not observed(study, bad.number, 0.0, source="b")
        assert stopped
        assert study.pruned == {bad.number}
        assert SearchStudy(path, wanted).pruned == {bad.number}


def test_optunas_logging_is_left_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    with pytest.raises(ZeroDivisionError), quiet():
        assert optuna.logging.get_verbosity() == optuna.logging.ERROR
        raise ZeroDivisionError
    assert optuna.logging.get_verbosity() == before
