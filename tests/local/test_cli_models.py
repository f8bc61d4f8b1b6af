"""The command on a local platform: models, canaries, clean-up; no ZenML stack is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from kaptain_zen.cli.main import app
from kaptain_zen.config import Config
from kaptain_zen.exceptions import KaptainError, ModelDeploymentException
from kaptain_zen.model.models import Model
from kaptain_zen.model.ports import TrainRequest
from kaptain_zen.platform.platform import Platform, local

SCRIPT = """
    import sys, time
    from pathlib import Path

    from kaptain_zen.platform.model_export_util import ModelExportUtil

    print("accuracy=0.75")
    if "--score=-1" in sys.argv:
        raise SystemExit(3)
    if "fit" in sys.argv:
        import joblib
        from sklearn.tree import DecisionTreeClassifier

        joblib.dump(DecisionTreeClassifier().fit([[0.0], [10.0]], [0, 1]), "model.joblib")
    else:
        Path("model.joblib").write_text("no model")
    ModelExportUtil().upload_model("model.joblib")
"""


@pytest.fixture
def platform(tmp_path: Path, local_home: Path) -> Platform:
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    config = Config(base_dir=str(tmp_path), base_model_storage_uri=(local_home / "models").as_uri())
    return local(config, home=str(local_home), warm_start=False)


def model(platform: Platform, name: str = "scored") -> Model:
    return Model(
        id=f"dev/{name}",
        name=name,
        description="A model [with brackets]",
        version="1",
        framework="sklearn",
        framework_version="1.7",
        main_file="train.py",
        image_name="me/scored",
        base_image="python:3.12",
        platform=platform,
    )


@pytest.fixture
def kaptain_zen(local_home: Path) -> Callable[..., Result]:
    def run(*arguments: str, fails: bool = False) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--home", str(local_home)])
        assert (result.exit_code != 0) == fails, (result.output, result.exception)
        return result

    return run


def test_an_empty_platform_has_no_models(kaptain_zen: Callable[..., Result]) -> None:
    assert kaptain_zen("models", "list").output.startswith("No models at file://")
    assert json.loads(kaptain_zen("models", "list", "-o", "json").output) == []


def test_models_are_listed_shown_and_remembered(
    platform: Platform, kaptain_zen: Callable[..., Result]
) -> None:
    first, second = model(platform), model(platform, "second")
    assert first.train(hyperparameters={})
    assert second.train(hyperparameters={"depth": 3})
    listed = json.loads(kaptain_zen("models", "list", "-o", "json").output)
    assert [(row["id"], row["state"], row["phase"]) for row in listed] == [
        ("dev/scored", "trained", "none"),
        ("dev/second", "trained", "none"),
    ]
    table = kaptain_zen("models", "list").output.splitlines()
    assert table[0].split() == ["ID", "STATE", "REVISION", "METRICS", "DEPLOYMENT", "READY", "URL"]
    assert table[1].split()[:4] == [
        "dev/scored",
        "trained",
        first.record.revision[:8],
        "accuracy=0.75",
    ]
    shown = kaptain_zen("models", "show", "dev/second").output
    assert "A model [with brackets]" in shown
    assert "depth=3" in shown
    document = json.loads(kaptain_zen("models", "show", "dev/second", "-o", "json").output)
    assert document["record"] == json.loads(second.record.to_json())
    assert document["status"]["phase"] == "none"
    history = json.loads(kaptain_zen("models", "history", "dev/scored", "-o", "json").output)
    assert [entry["action"] for entry in history] == ["train"]
    assert first.record.revision[:8] in kaptain_zen("models", "history", "dev/scored").output


def test_a_record_that_cannot_be_read_hides_no_other(
    platform: Platform, kaptain_zen: Callable[..., Result]
) -> None:
    assert model(platform).train(hyperparameters={})
    platform.store.write(f"{platform.store.base_uri}/dev/broken/record.json", b"{}")
    rows = json.loads(kaptain_zen("models", "list", "-o", "json").output)
    assert [row["id"] for row in rows] == ["dev/broken", "dev/scored"]
    assert "schema version" in rows[0]["error"]
    assert "unreadable" in kaptain_zen("models", "list").output
    failed = kaptain_zen("models", "show", "dev/broken", fails=True)
    assert isinstance(failed.exception, KaptainError)


def test_a_canary_is_set_promoted_and_undeployed(
    platform: Platform, kaptain_zen: Callable[..., Result], tmp_path: Path
) -> None:
    deployed = model(platform)
    assert deployed.train("fit", hyperparameters={})
    assert isinstance(
        kaptain_zen("canary", "set", "dev/scored", "30", fails=True).exception,
        ModelDeploymentException,
    )
    assert deployed.deploy()
    copied = tmp_path / "copied"
    platform.store.download(str(deployed.record.artifact and deployed.record.artifact.uri), copied)
    assert (
        "gets 30 %"
        in kaptain_zen("canary", "set", "dev/scored", "30", "--model-uri", copied.as_uri()).output
    )
    assert (
        "gets 5 %"
        in kaptain_zen("canary", "set", "dev/scored", "5", "--model-uri", copied.as_uri()).output
    )
    row = json.loads(kaptain_zen("models", "list", "-o", "json").output)[0]
    assert (row["phase"], row["canary_percentage"], row["ready"]) == ("canary", 5, True)
    assert "gets all requests" in kaptain_zen("canary", "promote", "dev/scored").output
    assert "no canary" in str(kaptain_zen("canary", "rollback", "dev/scored", fails=True).exception)
    # What is deployed is nothing that may be cleaned up.
    kaptain_zen("cleanup")
    assert list(deployed.predict([[0.0], [10.0]])) == [0, 1]
    assert "is undeployed" in kaptain_zen("undeploy", "dev/scored").output
    assert platform.server.get("dev/scored") is None


def test_ended_runs_are_listed_and_then_removed(
    platform: Platform, kaptain_zen: Callable[..., Result], local_home: Path
) -> None:
    assert model(platform).train(hyperparameters={})
    assert not model(platform, "failing").train(hyperparameters={}, score="-1")
    runs = [status.handle.name for status in platform.trainer.runs()]
    assert len(runs) == 2
    listed = kaptain_zen("cleanup", "--dry-run").output
    assert all(f"remove  training {name}, " in listed for name in runs)
    assert len(platform.trainer.runs()) == 2
    assert kaptain_zen("cleanup", "--older-than", "1h").output.startswith("There is nothing")
    assert "2 removed." in kaptain_zen("cleanup").output
    assert platform.trainer.runs() == []
    assert kaptain_zen("cleanup").output.startswith("There is nothing to remove.")
    assert json.loads(kaptain_zen("models", "list", "-o", "json").output)[0]["state"]


def request(platform: Platform, tmp_path: Path, **more: Any) -> TrainRequest:
    return TrainRequest(
        **{
            "name": "by-hand",
            "spec": model(platform).spec,
            "base_dir": tmp_path,
            "upload_uri": f"{platform.store.base_uri}/dev/scored/trained/x",
            "workers": 1,
            **more,
        }
    )


def test_a_run_that_has_not_ended_stays(
    platform: Platform, kaptain_zen: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("import time; time.sleep(120)")
    handle = platform.trainer.submit(request(platform, tmp_path))
    assert "keep    training by-hand" in kaptain_zen("cleanup").output
    assert not platform.trainer.status(handle).state.finished


def test_a_result_that_no_model_has_taken_over_stays(
    platform: Platform, kaptain_zen: Callable[..., Result], local_home: Path, tmp_path: Path
) -> None:
    code = f"""
import os, signal
from kaptain_zen.config import Config
from kaptain_zen.model.models import Model
from kaptain_zen.platform.platform import local

config = Config(
    base_dir={str(tmp_path)!r}, base_model_storage_uri={platform.store.base_uri!r}
)
chosen = local(config, home={str(local_home)!r}, warm_start=False)
Model.from_spec(
    Model(**{model(platform).spec.model_dump(mode="json")!r}).spec, platform=chosen
).train(hyperparameters={{}}, on_submit=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (status,) = platform.trainer.runs()
    platform.trainer.wait(status.handle)
    output = kaptain_zen("cleanup").output
    assert "keep    training" in output
    assert "Model.attach('dev/scored')" in output
    attached = Model.attach("dev/scored", platform=platform)
    assert attached.record.state.value == "trained"
    assert "1 removed." in kaptain_zen("cleanup").output


def test_searches_go_with_their_trials(
    platform: Platform, kaptain_zen: Callable[..., Result]
) -> None:
    from kaptain_zen.hyperparameter.domains import Integer

    tuned = model(platform)
    assert not tuned.tune(
        hyperparameters={"depth": Integer(1, 3)},
        objectives=["accuracy"],
        trials=2,
        failed_trials=1,
        score="-1",
    )
    output = kaptain_zen("cleanup").output
    assert output.count("remove  ") == 1
    assert "remove  search dev-scored-tune-" in output
    assert platform.trainer.runs() == []


def test_a_server_that_belongs_to_no_service_is_stopped(
    kaptain_zen: Callable[..., Result], local_home: Path
) -> None:
    # A client that started a router, and was killed before it wrote down whose it is.
    code = f"""
from pathlib import Path
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.service_state import ServiceFolder
from kaptain_zen.platform.local.serving_process import start_router

folder = ServiceFolder(LocalHome(Path({str(local_home)!r})), "lost")
folder.token()
child = start_router(folder.router, home=folder.home.root, port=0, log=folder.router_log)
child.channel.receive(30)
child.adopt()
print(child.ref.pid)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    try:
        assert f"remove  process {pid}" in kaptain_zen("cleanup", "--dry-run").output
        assert runs(pid)
        kaptain_zen("cleanup")
        assert not runs(pid)
        assert kaptain_zen("cleanup").output == "There is nothing to remove.\n"
    finally:
        if runs(pid):
            psutil.Process(pid).kill()


def runs(pid: int) -> bool:
    """Whether a process runs; a zombie has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_killed_client_left_in_the_storage_goes_when_it_is_old(
    platform: Platform, kaptain_zen: Callable[..., Result], local_home: Path
) -> None:
    trained = model(platform)
    assert trained.train(hyperparameters={}, force_cleanup=True)
    copy = local_home / "models/dev/scored/deploy" / ("9" * 32) / "model.joblib"
    copy.parent.mkdir(parents=True)
    copy.write_text("a copy that was to be deployed")
    assert kaptain_zen("cleanup").output == "There is nothing to remove.\n"
    two_hours_ago = time.time() - 2 * 3600
    os.utime(copy, (two_hours_ago, two_hours_ago))
    assert "1 removed." in kaptain_zen("cleanup").output
    assert not copy.exists()
    assert Model.load("dev/scored", platform=platform).record.artifact == trained.record.artifact
