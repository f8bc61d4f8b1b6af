"""Searches with the real trainer and a real store: what they find, and what they leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.tuner_support import Laptop
from tests.processes import eventually, mentioning
from tests.s3_server import S3Server

from kaptain_zen.config import Config
from kaptain_zen.exceptions import (
    ModelValidationException,
    RunNotFoundError,
    StorageError,
    UnsupportedAlgorithmException,
    WorkloadTimeoutError,
)
from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.hyperparameter.domains import Categorical, Discrete, Double, Integer
from kaptain_zen.model.ports import LogLine, RunState, TuneStatus
from kaptain_zen.platform.local.trainer import LocalTrainer
from kaptain_zen.platform.local.tuner import OptunaTuner
from kaptain_zen.storage.store import open_store


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    laptop = Laptop(tmp_path)
    yield laptop
    eventually(lambda: not mentioning(tmp_path), seconds=10)


def test_the_best_trials_model_is_kept_and_nothing_else(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request())
    status = laptop.tuner.wait(handle)

    assert status.state is RunState.SUCCEEDED, status.reason
    assert [t.number for t in status.trials] == [0, 1, 2, 3]
    assert [t.state for t in status.trials] == ["succeeded"] * 4
    best = max(status.trials, key=lambda t: t.metrics["accuracy"])
    assert status.best == best.name == f"tiny-tune-{best.number}"
    assert status.hyperparameters == best.parameters
    assert status.metrics["accuracy"].latest == best.metrics["accuracy"]
    assert (status.total, status.running, status.pending) == (4, 0, 0)
    assert not status.goal_reached
    assert status.annotation == "the record"
    assert status.submitted_at <= status.started_at <= status.ended_at
    assert laptop.stored() == {"tuned/1/model.txt": str(best.parameters["x"])}
    assert not (laptop.storage / "trials" / "tiny-tune").exists()
    assert laptop.runs() == []


def test_a_later_look_says_the_same_as_the_wait(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=2))
    status = laptop.tuner.wait(handle)
    seen: list[TuneStatus] = []
    other = Laptop(laptop.root).tuner
    assert other.status(handle) == status
    assert other.wait(handle, on_progress=seen.append) == status
    assert seen == [status]


def test_minimize_keeps_the_smallest(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(objective_type="minimize"))
    status = laptop.tuner.wait(handle)
    smallest = min(t.metrics["accuracy"] for t in status.trials)
    assert status.metrics["accuracy"].latest == smallest
    assert laptop.stored() == {"tuned/1/model.txt": str(smallest)}


def test_a_trial_counts_by_what_it_reported_last(laptop: Laptop) -> None:
    # The larger x is, the better it was once and the worse it is in the end.
    request = laptop.request(
        algorithm=Algorithm.GRID,
        hyperparameters={"x": Discrete([0.1, 0.9])},
        kwargs={"print": "accuracy={x};accuracy={y}"},
    )
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert status.hyperparameters == {"x": 0.1}
    metric = status.metrics["accuracy"]
    assert (metric.latest, metric.min, metric.max) == (-0.1, -0.1, 0.1)


def test_further_objectives_are_recorded(laptop: Laptop) -> None:
    request = laptop.request(
        trials=2,
        objectives=("accuracy", "loss"),
        kwargs={"print": "accuracy={x} loss={y}"},
    )
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    for trial in status.trials:
        assert trial.metrics["loss"] == -trial.metrics["accuracy"]


def test_hyperparameters_have_the_types_of_their_domains(laptop: Laptop) -> None:
    domains = {
        "x": Double(0, 1, step=0.25),
        "--layers": Integer(1, 9),
        "rate": Discrete([1, 2]),
        "kernel": Categorical(["rbf", "linear"]),
    }
    status = laptop.tuner.wait(laptop.tuner.submit(laptop.request(hyperparameters=domains)))
    assert list(status.hyperparameters) == list(domains)
    for trial in status.trials:
        assert [type(v) for v in trial.parameters.values()] == [float, int, float, str]
        assert all(trial.parameters[name] in domain for name, domain in domains.items())


def test_the_goal_ends_the_search_and_stops_what_runs(laptop: Laptop) -> None:
    request = laptop.request(
        parallel_trials=3,
        objective_goal=0.5,
        algorithm=Algorithm.GRID,
        hyperparameters={"x": Discrete([0.2, 0.7, 0.3, 0.4])},
        kwargs={"hang": "x != 0.7"},
    )
    started = time.monotonic()
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert time.monotonic() - started < 20
    assert status.state is RunState.SUCCEEDED
    assert status.goal_reached
    assert [t.state for t in status.trials] == ["killed", "succeeded", "killed"]
    assert laptop.stored() == {"tuned/1/model.txt": "0.7"}


def test_the_goal_of_minimize_is_below(laptop: Laptop) -> None:
    request = laptop.request(
        trials=30, parallel_trials=1, objective_type="minimize", objective_goal=0.9
    )
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert status.goal_reached
    assert len(status.trials) < 30


def test_too_many_failures_end_the_search(laptop: Laptop) -> None:
    request = laptop.request(trials=20, parallel_trials=3, failed_trials=2, kwargs={"fail": "True"})
    handle = laptop.tuner.submit(request)
    status = laptop.tuner.wait(handle)
    assert status.state is RunState.FAILED
    assert status.count("failed") == 2
    assert len(status.trials) <= 4
    assert "2 trials failed, and failed_trials=2 ends the search" in status.reason
    assert "tiny-tune-" in status.reason
    assert "exit code 3" in status.reason
    assert "boom at" in status.reason
    assert laptop.stored() == {}
    assert laptop.tuner.status(handle) == status


def test_fewer_failures_do_not_matter(laptop: Laptop) -> None:
    request = laptop.request(
        algorithm=Algorithm.GRID,
        hyperparameters={"x": Discrete([0.1, 0.2, 0.3, 0.4])},
        kwargs={"fail": "x > 0.35"},
    )
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert status.state is RunState.SUCCEEDED
    assert status.count("failed") == 1
    assert laptop.stored() == {"tuned/1/model.txt": "0.3"}


@pytest.mark.parametrize("printed", ["nothing", "accuracy=nan", "acuracy=0.9", "accuracy=inf"])
def test_a_trial_that_reports_no_number_has_failed(laptop: Laptop, printed: str) -> None:
    request = laptop.request(
        trials=3, failed_trials=1, parallel_trials=1, kwargs={"print": printed}
    )
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert status.state is RunState.FAILED
    assert "did not report a number for 'accuracy'" in status.reason
    assert "Print accuracy=<value>" in status.reason
    assert ("it reported acuracy" in status.reason) == (printed == "acuracy=0.9")
    assert laptop.stored() == {}


def test_a_search_without_a_success_fails(laptop: Laptop) -> None:
    request = laptop.request(trials=2, failed_trials=10, kwargs={"fail": "True"})
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert status.state is RunState.FAILED
    assert status.reason.startswith("None of 2 trials succeeded. The first, tiny-tune-0: ")
    assert laptop.stored() == {}


def test_a_best_trial_without_a_model_fails_the_search(laptop: Laptop) -> None:
    request = laptop.request(
        algorithm=Algorithm.GRID,
        hyperparameters={"x": Discrete([0.1, 0.9])},
        kwargs={"upload": "x < 0.5"},
    )
    handle = laptop.tuner.submit(request)
    status = laptop.tuner.wait(handle)
    assert status.state is RunState.FAILED
    assert "uploaded no model" in status.reason
    assert "upload_model" in status.reason
    assert laptop.stored() == {}
    assert laptop.tuner.status(handle).state is RunState.FAILED


def test_metrics_alone_are_no_model(laptop: Laptop) -> None:
    script = laptop.root / "code" / "train.py"
    script.write_text(
        "from kaptain_zen.platform.metadata_util import MetadataUtil\n"
        "MetadataUtil.record_metrics({'accuracy': 0.5})\n"
    )
    status = laptop.tuner.wait(laptop.tuner.submit(laptop.request(trials=1)))
    assert status.state is RunState.FAILED
    assert "uploaded no model" in status.reason
    assert laptop.stored() == {}


def test_a_missing_main_file_ends_the_search_at_once(laptop: Laptop) -> None:
    (laptop.root / "code" / "train.py").unlink()
    status = laptop.tuner.wait(laptop.tuner.submit(laptop.request(trials=50, failed_trials=40)))
    assert status.state is RunState.FAILED
    assert "train.py" in status.reason
    assert len(status.trials) <= 2
    assert laptop.runs() == []


def test_an_optimiser_that_cannot_go_on_ends_the_search(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("cannot convert float NaN to integer")

    handle = laptop.tuner.submit(laptop.request(kwargs={"hang": "True"}))
    with pytest.raises(WorkloadTimeoutError):
        laptop.tuner.wait(handle, timeout=1.0)
    monkeypatch.setattr("optuna.Trial.suggest_float", fails)
    other = laptop.tuner.submit(laptop.request(name="other"))
    status = laptop.tuner.wait(other)
    assert status.state is RunState.FAILED
    assert status.reason == (
        "Algorithm 'random' could not choose the next hyperparameters (cannot convert float NaN "
        "to integer). Give them ranges that are less extreme, or use 'random'."
    )
    # Stopping a search asks no optimiser.
    laptop.tuner.cancel(handle)
    assert laptop.stored() == {}


def test_the_search_has_a_time_limit(laptop: Laptop) -> None:
    request = laptop.request(timeout=1.0, kwargs={"hang": "True"})
    started = time.monotonic()
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert time.monotonic() - started < 15
    assert status.state is RunState.FAILED
    assert "did not end within its timeout of 1 s" in status.reason
    assert laptop.stored() == {}


def test_a_wait_that_gives_up_can_be_repeated(laptop: Laptop) -> None:
    go = laptop.root / "go"
    request = laptop.request(kwargs={"hang": f"not Path({str(go)!r}).exists()"})
    handle = laptop.tuner.submit(request)
    with pytest.raises(WorkloadTimeoutError, match="0 of 4 trials have ended, 2 run on"):
        laptop.tuner.wait(handle, timeout=1.5)
    idle = laptop.tuner.status(handle)
    assert idle.state is RunState.RUNNING
    assert idle.running == 2
    assert "Nobody waits for this search" in idle.reason
    go.touch()
    status = laptop.tuner.wait(handle)
    assert status.state is RunState.SUCCEEDED
    assert sorted(laptop.noted("start")) == [f"tiny-tune-{n}" for n in range(4)]


def test_a_grid_ends_when_all_its_points_were_tried(laptop: Laptop) -> None:
    domains = {"x": Double(0, 1, step=0.5), "word": Categorical(["a", "b"])}
    request = laptop.request(trials=50, algorithm=Algorithm.GRID, hyperparameters=domains)
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert status.state is RunState.SUCCEEDED
    assert status.total == 6
    assert [tuple(t.parameters.values()) for t in status.trials] == [
        (0.0, "a"),
        (0.0, "b"),
        (0.5, "a"),
        (0.5, "b"),
        (1.0, "a"),
        (1.0, "b"),
    ]


def test_hyperband_stops_trials_that_fall_behind(laptop: Laptop) -> None:
    lines = ";".join(["accuracy={x}"] * 9)
    request = laptop.request(
        trials=8,
        parallel_trials=1,
        algorithm=Algorithm.HYPERBAND,
        algorithm_settings={"r_l": 9, "eta": 3, "random_state": 4},
        kwargs={"print": lines, "hang": "x < 0.5 and time.monotonic() < LIMIT"},
    )
    # A trial that is not stopped ends by itself, so that the search ends in any case.
    script = laptop.root / "code" / "train.py"
    script.write_text("import time\nLIMIT = time.monotonic() + 3\n" + script.read_text())
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert status.state is RunState.SUCCEEDED
    assert status.count("pruned") >= 1
    best = max(t.metrics["accuracy"] for t in status.trials if t.state == "succeeded")
    for trial in status.trials:
        if trial.state == "pruned":
            assert trial.metrics["accuracy"] <= best


def test_hyperbands_resource_is_given_in_full(laptop: Laptop) -> None:
    request = laptop.request(
        trials=2,
        algorithm=Algorithm.HYPERBAND,
        algorithm_settings={"r_l": "9", "resource_name": "epochs"},
        hyperparameters={"epochs": Integer(1, 9), "x": Double(0, 1)},
    )
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert [t.parameters["epochs"] for t in status.trials] == [9, 9]
    assert [list(t.parameters) for t in status.trials] == [["epochs", "x"]] * 2


@pytest.mark.parametrize(
    "algorithm", ["random", "tpe", "multivariate-tpe", "cmaes", "sobol", "hyperband"]
)
def test_every_algorithm_runs(laptop: Laptop, algorithm: str) -> None:
    request = laptop.request(
        trials=3,
        algorithm=Algorithm(algorithm),
        algorithm_settings={"random_state": 1},
        hyperparameters={"x": Double(0.01, 1, log=True), "n": Integer(1, 5)},
    )
    status = laptop.tuner.wait(laptop.tuner.submit(request))
    assert status.state is RunState.SUCCEEDED
    assert len(status.trials) == 3


def test_no_more_trials_run_at_a_time_than_asked(laptop: Laptop) -> None:
    request = laptop.request(trials=6, parallel_trials=2, kwargs={"seconds": "0.1"})
    seen: list[TuneStatus] = []
    laptop.tuner.wait(laptop.tuner.submit(request), on_progress=seen.append)
    assert max(s.running for s in seen) == 2
    running = most = 0
    for line in laptop.journal.read_text().splitlines():
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    assert most <= 2


def test_progress_tells_every_change_and_logs_pass_through(laptop: Laptop) -> None:
    seen: list[TuneStatus] = []
    lines: list[LogLine] = []
    threads: set[int] = set()

    def on_log(line: LogLine) -> None:
        lines.append(line)
        threads.add(threading.get_ident())

    handle = laptop.tuner.submit(laptop.request())
    status = laptop.tuner.wait(handle, on_progress=seen.append, on_log=on_log)
    assert seen[-1] == status
    ended = [len(s.trials) for s in seen]
    assert ended == sorted(ended)
    assert set(range(5)) <= set(ended)
    assert all(len(s.trials) + s.running + s.pending == 4 for s in seen)
    assert seen[0].state is RunState.RUNNING
    for trial in status.trials:
        text = f"accuracy={trial.parameters['x']}"
        assert LogLine(source=f"{trial.name}/worker-0", text=text) in lines
    assert threads == {threading.get_ident()}


def test_an_error_of_a_callback_does_not_end_the_search(laptop: Laptop) -> None:
    def broken(status: TuneStatus) -> None:
        if status.trials:
            raise ZeroDivisionError

    handle = laptop.tuner.submit(laptop.request())
    with pytest.raises(ZeroDivisionError):
        laptop.tuner.wait(handle, on_progress=broken)
    status = laptop.tuner.wait(handle)
    assert status.state is RunState.SUCCEEDED
    assert sorted(laptop.noted("start")) == [f"tiny-tune-{n}" for n in range(4)]


def test_a_storage_that_fails_in_the_end_can_be_mended(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=2))
    obstacle = laptop.storage / "tuned"
    laptop.storage.mkdir()
    obstacle.write_text("a file where a folder should be")
    with pytest.raises(StorageError):
        laptop.tuner.wait(handle)
    assert laptop.tuner.status(handle).state is RunState.RUNNING
    obstacle.unlink()
    status = laptop.tuner.wait(handle)
    assert status.state is RunState.SUCCEEDED
    assert laptop.stored() == {"tuned/1/model.txt": str(status.hyperparameters["x"])}
    assert len(laptop.noted("start")) == 2


def test_models_in_s3_and_secrets_nowhere(
    laptop: Laptop, s3_server: S3Server, s3_folder: str
) -> None:
    store = open_store(
        Config(base_model_storage_uri=s3_folder, storage_config_provider=s3_server.provider)
    )
    trainer = LocalTrainer(laptop.home, environment=s3_server.environment, warm_start=False)
    tuner = OptunaTuner(laptop.home, trainer=trainer, store=store)
    request = laptop.request(
        upload_uri=f"{s3_folder}/tuned/1", trials_uri=f"{s3_folder}/trials/tiny-tune"
    )
    status = tuner.wait(tuner.submit(request))
    assert status.state is RunState.SUCCEEDED, status.reason
    assert [item.uri for item in store.list(s3_folder)] == [f"{s3_folder}/tuned/1/model.txt"]
    assert (
        store.read(f"{s3_folder}/tuned/1/model.txt")[0] == str(status.hyperparameters["x"]).encode()
    )
    secrets = s3_server.environment["AWS_SECRET_ACCESS_KEY"].encode()
    written = [path.read_bytes() for path in laptop.home.root.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not any(secrets in data for data in written)


def test_a_search_that_nobody_waited_for_has_not_begun(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request())
    status = laptop.tuner.status(handle)
    assert status.state is RunState.PENDING
    assert (status.total, status.pending, status.running) == (4, 4, 0)
    assert "Nobody waits for this search" in status.reason


def test_submitting_a_name_again_finds_the_search(laptop: Laptop) -> None:
    request = laptop.request()
    handle = laptop.tuner.submit(request)
    assert laptop.tuner.submit(request.model_copy(update={"trials": 7})) == handle
    assert Laptop(laptop.root).tuner.submit(request) == handle
    assert laptop.tuner.status(handle).total == 4


def test_of_many_who_submit_one_name_all_get_one_search(laptop: Laptop) -> None:
    handles = []
    request = laptop.request()
    threads = [
        threading.Thread(target=lambda: handles.append(laptop.tuner.submit(request)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handles) == 8
    assert len({handle.uid for handle in handles}) == 1


def test_the_name_of_a_training_is_taken(laptop: Laptop) -> None:
    folder = laptop.home.ensure(laptop.home.runs / "tiny-tune")
    (folder / "run.json").write_text("{}")
    with pytest.raises(ModelValidationException, match="is a training of the name 'tiny-tune'"):
        laptop.tuner.submit(laptop.request())


@pytest.mark.parametrize("name", ["../up", "A", "", "a/b", ".hidden", "a" * 64])
def test_a_name_that_is_no_name_is_refused(laptop: Laptop, name: str) -> None:
    with pytest.raises(ModelValidationException, match="cannot name a search"):
        laptop.tuner.submit(laptop.request(name=name))
    assert not laptop.home.runs.exists() or list(laptop.home.runs.iterdir()) == []


def test_a_wrong_request_leaves_nothing(laptop: Laptop) -> None:
    with pytest.raises(UnsupportedAlgorithmException, match="'pbt' is not available"):
        laptop.tuner.submit(laptop.request(algorithm=Algorithm.PBT))
    with pytest.raises(ModelValidationException, match="no setting 'tempo'"):
        laptop.tuner.submit(laptop.request(algorithm_settings={"tempo": 1}))
    assert not laptop.home.root.exists()


def test_cancel_ends_a_search_that_another_thread_drives(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(kwargs={"hang": "True"}))
    results: list[TuneStatus] = []
    waiter = threading.Thread(target=lambda: results.append(laptop.tuner.wait(handle)))
    waiter.start()
    eventually(lambda: len(laptop.noted("start")) == 2)
    started = time.monotonic()
    laptop.tuner.cancel(handle)
    assert time.monotonic() - started < 10
    waiter.join(10)
    assert not waiter.is_alive()
    assert results[0].state is RunState.CANCELLED
    assert [t.state for t in results[0].trials] == ["killed", "killed"]
    assert laptop.tuner.status(handle) == results[0]
    assert laptop.stored() == {}
    assert len(laptop.noted("start")) == 2
    laptop.tuner.cancel(handle)


def test_cancel_ends_a_search_that_nobody_drives(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(kwargs={"hang": "True"}))
    with pytest.raises(WorkloadTimeoutError):
        laptop.tuner.wait(handle, timeout=1.5)
    Laptop(laptop.root).tuner.cancel(handle)
    assert laptop.tuner.wait(handle).state is RunState.CANCELLED
    assert laptop.stored() == {}
    eventually(lambda: not mentioning(laptop.root), seconds=2)


def test_cancel_before_the_beginning(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request())
    laptop.tuner.cancel(handle)
    status = laptop.tuner.wait(handle)
    assert status.state is RunState.CANCELLED
    assert status.trials == ()
    assert laptop.noted("start") == []


def test_cancel_keeps_what_a_search_found(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=1))
    laptop.tuner.wait(handle)
    laptop.tuner.cancel(handle)
    assert laptop.tuner.status(handle).state is RunState.SUCCEEDED
    assert list(laptop.stored()) == ["tuned/1/model.txt"]


def test_delete_removes_a_search_and_its_trials(laptop: Laptop) -> None:
    request = laptop.request(failed_trials=1, kwargs={"fail": "True"})
    handle = laptop.tuner.submit(request)
    laptop.tuner.wait(handle)
    assert laptop.runs() != []
    laptop.tuner.delete(handle)
    assert laptop.runs() == []
    assert not (laptop.home.runs / "tiny-tune").exists()
    for look in (laptop.tuner.status, laptop.tuner.wait, laptop.tuner.cancel):
        with pytest.raises(RunNotFoundError):
            look(handle)
    laptop.tuner.delete(handle)
    again = laptop.tuner.submit(request)
    assert again.uid != handle.uid
    with pytest.raises(RunNotFoundError, match="another one has its name now"):
        laptop.tuner.status(handle)
    laptop.tuner.delete(handle)
    assert laptop.tuner.status(again).state is RunState.PENDING


def test_delete_ends_a_search_that_runs(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(kwargs={"hang": "True"}))
    with pytest.raises(WorkloadTimeoutError):
        laptop.tuner.wait(handle, timeout=1.0)
    laptop.tuner.delete(handle)
    assert not mentioning(laptop.root)
    assert laptop.runs() == []
    assert laptop.stored() == {}


def test_a_wait_ends_when_the_search_is_deleted(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(kwargs={"hang": "True"}))
    errors: list[BaseException] = []
    states: list[RunState] = []

    def wait() -> None:
        try:
            states.append(laptop.tuner.wait(handle).state)
        except RunNotFoundError as error:
            errors.append(error)

    waiters = [threading.Thread(target=wait) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    eventually(lambda: len(laptop.noted("start")) == 2)
    laptop.tuner.delete(handle)
    for waiter in waiters:
        waiter.join(10)
    assert not any(waiter.is_alive() for waiter in waiters)
    assert len(errors) + len(states) == 2
    assert set(states) <= {RunState.CANCELLED}


def test_a_half_removed_search_does_not_begin_again(laptop: Laptop) -> None:
    request = laptop.request(trials=1)
    handle = laptop.tuner.submit(request)
    laptop.tuner.wait(handle)
    (laptop.home.runs / "tiny-tune" / "search.json").unlink()
    with pytest.raises(RunNotFoundError):
        laptop.tuner.wait(handle)
    again = laptop.tuner.submit(request)
    assert laptop.tuner.status(again).state is RunState.PENDING
    (laptop.home.runs / "tiny-tune" / "search.json").unlink()
    (laptop.home.runs / "tiny-tune" / "journal.log").touch()
    laptop.tuner.delete(again)
    assert not (laptop.home.runs / "tiny-tune").exists()


def test_a_handle_of_another_platform_is_not_found(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request())
    for change in ({"backend": "katib"}, {"kind": "train"}, {"namespace": "/elsewhere"}):
        with pytest.raises(RunNotFoundError, match="is no search of the local platform"):
            laptop.tuner.status(handle.model_copy(update=change))
