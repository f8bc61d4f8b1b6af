"""Model.train and Model.tune on the local platform: what they leave, however they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests.models import PROPERTIES, tiny_model, tiny_platform
from tests.processes import eventually, eventually_none, files_below, mentioning

from kaptain_zen.exceptions import (
    ConfigurationError,
    KaptainError,
    ModelNotFoundError,
    ModelValidationException,
    RunNotFoundError,
    StorageError,
    UnsupportedAlgorithmException,
)
from kaptain_zen.hyperparameter.domains import Categorical, Discrete, Double, Integer
from kaptain_zen.model.models import Model
from kaptain_zen.model.record import ModelState, RunHandle
from kaptain_zen.model.repository import RecordRepository
from kaptain_zen.model.resources import Resources
from kaptain_zen.platform.platform import Platform, local

ROOT = Path(__file__).parents[2]


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return tiny_platform(tmp_path)


def runs(folder: Path) -> list[str]:
    """Names of the runs that are kept; what is hidden is the platform's own bookkeeping."""
    return [p.name for p in (folder / "home/runs").iterdir() if not p.name.startswith(".")]


def models(folder: Path) -> list[str]:
    return files_below(folder / "home" / "models")


def test_a_training_leaves_its_model_its_metrics_and_a_record(platform: Platform, tmp_path: Path):
    model = tiny_model(platform)
    assert model.train("a word", hyperparameters={"x": 0.25}, workers=1) is True

    assert model.record.state is ModelState.TRAINED
    assert model.hyperparameters == {"x": 0.25}
    # What looks like a metric in a printed line is none when the script records its own.
    assert set(model.metrics) == {"accuracy", "size"}
    assert model.metrics["accuracy"]["latest"] == 0.75
    assert model.record.artifact is not None
    assert model.record.artifact.size == len('{"x": 0.25}')
    trained = f"dev/tiny/trained/{model.record.revision}"
    assert models(tmp_path) == [
        "dev/tiny/record.json",
        f"{trained}/metrics.json",
        f"{trained}/model.json",
    ]
    assert Model.load("dev/tiny", platform=platform).record == model.record
    assert [entry.action for entry in model.history] == ["train"]
    assert "accuracy=0.75" in repr(model)
    assert "<table>" in model._repr_html_()


def test_a_search_leaves_the_best_model_and_nothing_of_the_others(
    platform: Platform, tmp_path: Path
):
    model = tiny_model(platform)
    assert model.tune(
        hyperparameters={"--x": Double(0.0, 1.0)},
        objectives=["accuracy", "size"],
        trials=6,
        workers=1,
    )
    assert model.record.state is ModelState.TUNED
    assert model.hyperparameters is not None
    x = model.hyperparameters["--x"]
    assert isinstance(x, float)
    assert model.metrics["accuracy"]["latest"] == pytest.approx(1 - abs(x - 0.5))
    tuned = f"dev/tiny/tuned/{model.record.revision}"
    assert models(tmp_path) == ["dev/tiny/record.json", f"{tuned}/model.json"]
    stored = json.loads((tmp_path / "home/models" / tuned / "model.json").read_text())
    assert stored == {"x": x}
    assert len(model.record.trials) == 6
    best = max(model.record.trials, key=lambda trial: trial.metrics["accuracy"])
    assert best.parameters == model.hyperparameters
    assert best.metrics["size"] == 3


def test_a_script_that_fails_is_a_false_and_a_reason(platform: Platform, tmp_path: Path):
    model = tiny_model(platform)
    assert model.train(hyperparameters={"exit": 3}, workers=1) is False
    assert model.last_error is not None
    assert "3" in model.last_error
    assert "the disk is made of cheese" in model.last_error
    assert model.record.state is ModelState.UNTRAINED
    assert model.record.pending is None
    assert models(tmp_path) == ["dev/tiny/record.json"]


def test_a_script_that_exports_nothing_is_told_how_to(platform: Platform):
    model = tiny_model(platform)
    assert model.train(hyperparameters={"forget": "yes"}, workers=1) is False
    assert "upload_model" in str(model.last_error)


def test_a_search_whose_script_prints_no_objective_fails_and_says_so(
    platform: Platform, tmp_path: Path
):
    model = tiny_model(platform)
    assert (
        model.tune(
            hyperparameters={"x": Double(0, 1)},
            objectives=["accuracy"],
            trials=4,
            failed_trials=2,
            workers=1,
            silent="yes",
        )
        is False
    )
    assert "accuracy" in str(model.last_error)
    assert models(tmp_path) == ["dev/tiny/record.json"]


def test_a_script_that_never_ends_is_stopped_at_the_deadline(platform: Platform, tmp_path: Path):
    model = tiny_model(platform)
    assert model.train(hyperparameters={"sleep": 600}, timeout=1.5, workers=1) is False
    assert "1.5" in str(model.last_error)
    eventually_none(lambda: mentioning(tmp_path / "home" / "runs"))


def test_a_failed_training_leaves_the_model_of_the_one_before(platform: Platform):
    model = tiny_model(platform)
    model.train(hyperparameters={}, workers=1)
    before = model.record
    assert model.train(hyperparameters={"exit": 1}, workers=1) is False
    assert model.record.artifact == before.artifact
    assert model.record.revision == before.revision


def test_force_cleanup_leaves_no_run(platform: Platform, tmp_path: Path):
    model = tiny_model(platform)
    model.train(hyperparameters={}, workers=1, force_cleanup=True)
    assert runs(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hyperparameters": {"x": Double(0, 1)}}, "tune"),
        ({"hyperparameters": {"x": [1]}}, "x"),
        ({"hyperparameters": {"x": float("nan")}}, "finite"),
        ({"hyperparameters": {" ": 1}}, "name"),
        ({"hyperparameters": 3}, "mapping"),
        ({"hyperparameters": {}, "workers": 0}, "workers"),
        ({"hyperparameters": {}, "timeout": -1}, "timeout"),
        ({"hyperparameters": {}, "cpu": "much"}, "quantity"),
        ({"hyperparameters": {}, "gpus": -1}, "GPU"),
        ({"hyperparameters": {}, "cpu": 1, "resources": Resources(cpu_limit="1")}, "not both"),
    ],
)
def test_a_wrong_training_is_refused_before_anything_is_touched(
    platform: Platform, tmp_path: Path, arguments: dict[str, Any], words: str
):
    with pytest.raises(ModelValidationException, match=words):
        tiny_model(platform).train(**arguments)
    assert not (tmp_path / "home/runs").exists()
    assert models(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hyperparameters": {}}, "nothing to tune"),
        ({"hyperparameters": {"x": 1.0}}, "domain"),
        ({"objectives": []}, "objectives"),
        ({"objectives": "accuracy"}, "objectives"),
        ({"objectives": ["a", "a"]}, "twice"),
        ({"trials": 0}, "trials"),
        ({"parallel_trials": 0}, "parallel_trials"),
        ({"failed_trials": 0}, "failed_trials"),
        ({"objective_type": "best"}, "objective_type"),
        ({"objective_goal": "high"}, "objective_goal"),
        ({"algorithm_setting": {"nonsense": 1}}, "nonsense"),
        ({"gpus": 1, "resources": Resources()}, "not both"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_is_touched(
    platform: Platform, tmp_path: Path, arguments: dict[str, Any], words: str
):
    sound: dict[str, Any] = {"hyperparameters": {"x": Double(0, 1)}, "objectives": ["accuracy"]}
    with pytest.raises(ModelValidationException, match=words):
        tiny_model(platform).tune(**{**sound, **arguments})
    assert not (tmp_path / "home/runs").exists()
    assert models(tmp_path) == []


@pytest.mark.parametrize("algorithm", ["guess", "enas"])
def test_an_algorithm_that_cannot_run_here_is_refused(platform: Platform, algorithm: str):
    with pytest.raises(UnsupportedAlgorithmException, match=algorithm):
        tiny_model(platform).tune(
            hyperparameters={"x": Double(0, 1)}, objectives=["accuracy"], algorithm=algorithm
        )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Double(1.0, 0.0),
        lambda: Integer(3, 1),
        lambda: Discrete([]),
        lambda: Categorical([]),
        lambda: Double(0, float("inf")),
        lambda: Integer(0, 1.5),  # type: ignore[arg-type]
    ],
)
def test_an_empty_or_reversed_domain_is_refused(make: Any):
    with pytest.raises(ModelValidationException):
        make()


def test_a_missing_main_file_is_named(platform: Platform, tmp_path: Path):
    with pytest.raises(ModelValidationException, match=r"elsewhere\.py"):
        tiny_model(platform, main_file="elsewhere.py").train(hyperparameters={})
    assert models(tmp_path) == []


def test_a_storage_that_cannot_be_reached_is_named_before_anything_starts(tmp_path: Path):
    from kaptain_zen.config import Config
    from kaptain_zen.platform.config.s3 import S3ConfigurationProvider

    platform = tiny_platform(tmp_path)
    config = Config(
        base_dir=platform.config.base_dir,
        base_model_storage_uri="s3://models/x",
        storage_config_provider=S3ConfigurationProvider(
            "key", "hunter2-very-secret", s3_endpoint="http://127.0.0.1:9", s3_force_path_style=True
        ),
    )
    model = tiny_model(local(config, home=str(tmp_path / "home")))
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9") as caught:
        model.train(hyperparameters={})
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "home/runs").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    obstacle = tmp_path / "file"
    obstacle.write_text("")
    platform = tiny_platform(tmp_path)
    model = tiny_model(local(home=str(obstacle / "home"), base_dir=platform.config.base_dir))
    with pytest.raises((StorageError, ConfigurationError), match="file"):
        model.train(hyperparameters={})


def test_a_model_that_nobody_knows_cannot_be_loaded(platform: Platform):
    with pytest.raises(ModelNotFoundError, match="dev/none"):
        Model.load("dev/none", platform=platform)


def test_there_is_nothing_to_attach_to_without_a_run(platform: Platform):
    model = tiny_model(platform)
    model.train(hyperparameters={}, workers=1)
    with pytest.raises(RunNotFoundError):
        Model.attach("dev/tiny", platform=platform)
    unknown = RunHandle(backend="local", kind="train", namespace="", name="never-was")
    with pytest.raises(RunNotFoundError, match="never-was"):
        Model.attach(unknown, platform=platform)


def test_what_is_logged_about_a_model_is_kept(platform: Platform):
    model = tiny_model(platform)
    model.train(hyperparameters={}, workers=1)
    model.log_data("digits", "s3://data/digits", features=["pixels"], version="1")
    model.log_metrics({"auc": 0.9}, "testing")
    loaded = Model.load("dev/tiny", platform=platform).record
    assert loaded.datasets[0].features == ("pixels",)
    assert loaded.evaluations[0].metrics == {"auc": 0.9}
    with pytest.raises(ModelValidationException):
        model.log_data("", "s3://x")


# Clients that die


CLIENT = """
    import sys
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from tests.models import tiny_model, tiny_platform
    from kaptain_zen.hyperparameter.domains import Double

    model = tiny_model(tiny_platform(Path({folder!r})))
    {call}
"""
TRAIN = "model.train(hyperparameters={{'x': 0.25}}, workers=1, sleep={sleep}, started={started!r})"
TUNE = (
    "model.tune(hyperparameters={{'x': Double(0.0, 1.0)}}, objectives=['accuracy'], trials=8, "
    "workers=1, sleep={sleep}, started={started!r})"
)


def client(folder: Path, call: str, sleep: float) -> subprocess.Popen[bytes]:
    started = folder / "started"
    code = CLIENT.format(
        root=str(ROOT), folder=str(folder), call=call.format(sleep=sleep, started=str(started))
    )
    tiny_platform(folder)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    eventually(lambda: started.exists() or process.poll() is not None, seconds=30)
    assert process.poll() is None, process.communicate()[0].decode()
    return process


def test_a_training_outlives_its_client_and_is_finished_by_another(tmp_path: Path):
    process = client(tmp_path, TRAIN, sleep=1.5)
    process.kill()
    process.communicate()

    platform = tiny_platform(tmp_path)
    model = Model.attach("dev/tiny", platform=platform)
    assert model.last_error is None
    assert model.record.state is ModelState.TRAINED
    assert model.hyperparameters == {"x": 0.25}
    assert model.metrics["accuracy"]["latest"] == 0.75
    assert model.record.pending is None
    # It ran once, and not again for whoever attached.
    assert len((tmp_path / "started").read_text().split()) == 1
    assert model.record.run is not None
    again = Model.attach(model.record.run, platform=platform)
    assert again.record == model.record


def test_a_search_outlives_its_client_and_is_finished_by_another(tmp_path: Path):
    process = client(tmp_path, TUNE, sleep=0.3)
    eventually(lambda: len((tmp_path / "started").read_text().split()) >= 3)
    process.kill()
    process.communicate()

    platform = tiny_platform(tmp_path)
    model = Model.attach("dev/tiny", platform=platform)
    assert model.last_error is None
    assert model.record.state is ModelState.TUNED
    assert len(model.record.trials) == 8
    assert {trial.state for trial in model.record.trials} == {"succeeded"}
    # No trial was lost and none ran twice.
    assert len((tmp_path / "started").read_text().split()) == 8
    assert len(models(tmp_path)) == 2


@pytest.mark.parametrize("call", [TRAIN, TUNE], ids=["train", "tune"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_call_leaves_nothing(tmp_path: Path, call: str, number: signal.Signals):
    process = client(tmp_path, call, sleep=600)
    workers = [int(pid) for pid in (tmp_path / "started").read_text().split()]
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "removing it" in output.decode()

    for pid in workers:
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists(), seconds=5)
    eventually_none(lambda: mentioning(tmp_path, also_warm=True), seconds=5)
    assert runs(tmp_path) == []
    assert models(tmp_path) == ["dev/tiny/record.json"]
    record = RecordRepository(tiny_platform(tmp_path).store).load("dev/tiny")
    assert record is not None
    assert record.pending is None


def test_every_error_of_a_model_is_of_one_family(platform: Platform):
    with pytest.raises(KaptainError):
        Model(**{**PROPERTIES, "framework": "cobol"})
