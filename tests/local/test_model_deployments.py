"""A notebook's way through the local platform, and what is deployed as other processes see it."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.models import tiny_model, tiny_platform
from tests.processes import eventually_none, files_below, mentioning

from kaptain_zen import envs
from kaptain_zen.exceptions import (
    ModelDeploymentException,
    ModelValidationException,
    ObjectNotFoundError,
    UnsupportedModelDeploymentException,
)
from kaptain_zen.hyperparameter.domains import Double
from kaptain_zen.model.frameworks import ModelFramework
from kaptain_zen.model.models import Model
from kaptain_zen.model.record import DeploymentPhase, ModelState
from kaptain_zen.platform.platform import local

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the training script, a home of its own, and switches put back."""
    for name in ("training.py", "requirements.txt"):
        shutil.copy(EXAMPLE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAPTAIN_ZEN_HOME", str(tmp_path / "home"))
    for name in ("KAPTAIN_SDK_VERBOSE", "KAPTAIN_SDK_DEBUG"):
        monkeypatch.setenv(name, "false")
    yield tmp_path
    eventually_none(lambda: mentioning(tmp_path / "home"))


def test_a_notebook_written_for_the_kaptain_sdk_runs(
    notebook: Path, capsys: pytest.CaptureFixture[str]
):
    envs.VERBOSE = True
    envs.DEBUG = True
    model = Model(
        id="dev/mnist",
        name="MNIST",
        description="Handwritten digits",
        version="0.0.1",
        framework=ModelFramework.SKLEARN,
        framework_version="1.9",
        main_file="training.py",
        image_name="somebody/images:mnist",
        base_image="somebody/base:1",
        serving_config={"requirements_file": "requirements.txt"},
        requirements="requirements.txt",
    )
    assert model.train(cpu="0.5", memory="1G", hyperparameters={}) is True
    assert round(model.metrics["accuracy"]["latest"], 4) == 0.9689
    assert "precision" in capsys.readouterr().err

    envs.VERBOSE = False
    assert model.tune(
        trials=12,
        parallel_trials=2,
        cpu="0.5",
        memory="1G",
        hyperparameters={"--gamma": Double(0.0001, 0.001), "--c": Double(0.01, 1.00)},
        objectives=["accuracy"],
        objective_goal=0.99,
    )
    assert set(model.hyperparameters or {}) == {"--gamma", "--c"}
    assert all(isinstance(value, float) for value in (model.hyperparameters or {}).values())
    assert {name: value["latest"] for name, value in model.metrics.items()}["accuracy"] > 0.9

    model.serving_config = {"protocol_version": "v2"}
    assert model.deploy(cpu="0.5", memory="500M", replace=True)
    assert "NAME" in capsys.readouterr().out

    digits = load_digits()
    request = {
        "inputs": [
            {
                "name": "predict",
                "shape": [1, 64],
                "datatype": "FP32",
                "data": digits.data[7].tolist(),
            }
        ]
    }
    service = model.service()
    assert service is not None
    answer = urllib.request.urlopen(
        urllib.request.Request(
            service.prediction_url,
            json.dumps(request).encode(),
            {"Content-Type": "application/json"},
        ),
        timeout=30,
    )
    assert json.load(answer)["outputs"][0]["data"] == [7]
    assert service.prediction_url.endswith("/v2/models/dev-mnist/infer")

    stored = files_below(notebook / "home" / "models" / "dev" / "mnist")
    assert [path.split("/")[0] for path in stored] == [
        "deploy", "record.json", "trained", "trained", "tuned",
    ]  # fmt: skip
    model.undeploy()
    assert model.record.state is ModelState.TUNED


def test_the_life_of_a_deployment_as_another_process_sees_it(notebook: Path):
    platform = local(home=str(notebook / "home"), base_dir=notebook)
    model = tiny_model(platform, id="dev/digits")

    def other() -> Model:
        return Model.load("dev/digits", platform=local(home=str(notebook / "home")))

    with pytest.raises(ModelValidationException, match="untrained"):
        model.deploy()
    with pytest.raises(ModelDeploymentException, match="not deployed"):
        model.predict([[0.0] * 64])
    with pytest.raises(ModelDeploymentException, match="not deployed"):
        model.undeploy()
    with pytest.raises(ModelDeploymentException, match="no baseline"):
        model.deploy_canary(30)

    model.train(hyperparameters={"gamma": 0.001})
    first = model.record.artifact
    assert first is not None
    with pytest.raises(ObjectNotFoundError, match="nowhere"):
        model.deploy(model_uri=f"{platform.store.base_uri}/nowhere")
    assert model.deploy()
    with pytest.raises(ModelDeploymentException, match="replace=True"):
        other().deploy()
    with pytest.raises(ModelDeploymentException, match="already serves"):
        other().deploy_canary(10)
    baseline = other().record.deployment.baseline
    assert baseline is not None
    assert baseline.source == first.revision

    model.train(hyperparameters={"gamma": 0.0005})
    for wrong in (0, 101):
        with pytest.raises(ModelValidationException, match="1 to 99"):
            model.deploy_canary(wrong)
    model.deploy_canary(canary_traffic_percentage=30)
    seen = other()
    assert seen.record.deployment.phase is DeploymentPhase.CANARY
    assert seen.record.deployment.baseline == baseline
    canary = seen.record.deployment.canary
    assert canary is not None

    digits = load_digits()
    for _ in range(200):
        assert seen.predict(digits.data[7:8]).tolist() == [7]
    # Blocks of 100 requests hold exactly the canary's share.
    assert seen.status().requests == {baseline.revision: 140, canary.revision: 60}

    seen.deploy_canary(50)
    model.rollback_canary()
    assert other().record.deployment.baseline == baseline
    model.deploy_canary(10)
    promoted = model.record.deployment.canary
    other().promote_canary()
    status = model.status()
    assert status.baseline == promoted.revision if promoted else None
    assert status.ready
    with pytest.raises(ModelDeploymentException, match="no canary"):
        model.promote_canary()

    predictions = model.predict(digits.data[:5])
    assert isinstance(predictions, np.ndarray)
    assert predictions.tolist() == [0, 1, 2, 3, 4]
    # Only what serves is kept beside the artifacts.
    bundles = files_below(notebook / "home/models/dev/digits/deploy")
    assert [path.split("/")[0] for path in bundles] == [status.baseline]

    other().undeploy()
    assert model.status().phase is DeploymentPhase.NONE
    assert files_below(notebook / "home/models/dev/digits/deploy") == []
    actions = [entry.action for entry in other().history]
    assert actions == [
        "train", "deploy", "train", "deploy_canary", "deploy_canary", "rollback", "deploy_canary",
        "promote", "undeploy",
    ]  # fmt: skip


def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(tmp_path: Path):
    platform = tiny_platform(tmp_path)
    model = tiny_model(platform)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.joblib").write_text("this is no model")
    assert model.deploy(model_uri=broken.as_uri()) is False
    assert model.last_error
    assert platform.server.get("dev/tiny") is None
    assert not mentioning(tmp_path / "home")
    # The tiny model's artifact is JSON, which scikit-learn's server cannot load.
    model.train(hyperparameters={}, workers=1)
    with pytest.raises((ModelValidationException, ModelDeploymentException)):
        model.deploy()
    assert files_below(tmp_path / "home/models/dev/tiny/deploy") == []


def test_a_framework_without_a_server_here_is_refused(tmp_path: Path):
    model = tiny_model(tiny_platform(tmp_path), framework="paddle")
    with pytest.raises(UnsupportedModelDeploymentException, match="paddle"):
        model.deploy(model_uri=tmp_path.as_uri())
