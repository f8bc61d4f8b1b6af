"""The steps in real pipelines on a real local stack, from a model's description to predictions.

One model is trained, tuned, deployed, canaried and promoted for the whole module; the tests that go
on from there keep their order.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from zenml import Model as ZenMLModel
from zenml import pipeline
from zenml.client import Client
from zenml.models import PipelineRunResponse

from kaptain_zen import steps
from kaptain_zen.cli.main import app
from kaptain_zen.hyperparameter.domains import Double
from kaptain_zen.model.record import DeploymentPhase, ModelRecord, ModelState
from kaptain_zen.model.spec import ModelSpec

SCRIPT = """
    import argparse

    import joblib
    from sklearn.tree import DecisionTreeClassifier

    from kaptain_zen.platform.metadata_util import MetadataUtil
    from kaptain_zen.platform.model_export_util import ModelExportUtil

    parser = argparse.ArgumentParser()
    parser.add_argument("--score", type=float)
    score = parser.parse_args().score
    if score < 0:
        raise SystemExit("a score below zero")
    joblib.dump(DecisionTreeClassifier().fit([[0.0], [10.0]], [0, 1]), "model.joblib")
    MetadataUtil.record_metrics({"accuracy": score})
    ModelExportUtil().upload_model("model.joblib")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "train.py").write_text(textwrap.dedent(SCRIPT))
    return folder


@pytest.fixture(scope="module")
def stack(
    local_stacks: Callable[..., AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    with local_stacks(tmp_path_factory.mktemp("home")) as name:
        yield name


def spec(name: str = "scored") -> ModelSpec:
    return ModelSpec(
        id=f"dev/{name}",
        name=name,
        description="Says 1 above 5",
        version="1",
        framework="sklearn",
        framework_version="1.7",
        main_file="train.py",
        image_name="me/scored",
        base_image="python:3.12",
    )


def record_of(run: PipelineRunResponse, step: str) -> ModelRecord:
    (artifact,) = run.steps[step].outputs["model_record"]
    return artifact.load()


@pytest.fixture(scope="module")
def whole(stack: str, folder: Path) -> PipelineRunResponse:
    """The run of a whole pipeline."""

    @pipeline(enable_cache=False, model=ZenMLModel(name="scored"))
    def whole() -> None:
        built = steps.build_model(spec(), base_dir=str(folder))
        trained = steps.train_model(built, hyperparameters={"score": 0.5}, base_dir=str(folder))
        logged = steps.log_model_metrics(trained, metrics={"f1": 0.4}, metrics_type="validation")
        good = steps.deployment_trigger(logged, metric="f1", min_value=0.3, better="higher")
        deployed = steps.deploy_model(logged, deploy=good)
        tuned, _ = steps.tune_model(
            deployed,
            hyperparameters={"score": Double(0.6, 0.7)},
            objectives=["accuracy"],
            trials=2,
            base_dir=str(folder),
        )
        canary = steps.deploy_canary(tuned, percentage=30)
        promoted = steps.promote_canary(canary)
        steps.predict(promoted, inputs=[[0.0], [10.0]])

    return whole()


def test_a_whole_pipeline_ends_with_predictions_of_the_promoted_model(
    whole: PipelineRunResponse,
) -> None:
    (predictions,) = whole.steps["predict"].outputs["predictions"]
    assert list(predictions.load()) == [0, 1]
    record = record_of(whole, "promote_canary")
    assert record.state is ModelState.TUNED
    assert record.deployment.phase is DeploymentPhase.SERVING
    assert record.deployment.baseline is not None
    assert record.artifact is not None
    assert record.deployment.baseline.source == record.artifact.revision
    actions = [entry.action for entry in record.history]
    assert actions == ["train", "deploy", "tune", "deploy_canary", "promote"]


def test_every_record_on_the_way_is_an_artifact_of_its_own(whole: PipelineRunResponse) -> None:
    assert record_of(whole, "build_model").state is ModelState.UNTRAINED
    assert record_of(whole, "train_model").metrics["accuracy"].latest == 0.5
    assert record_of(whole, "deploy_model").deployment.phase is DeploymentPhase.SERVING
    canary = record_of(whole, "deploy_canary").deployment
    assert (canary.phase, canary.canary_percentage) == (DeploymentPhase.CANARY, 30)
    assert 0.6 <= record_of(whole, "tune_model").metrics["accuracy"].latest <= 0.7


def test_runs_and_states_stand_in_the_metadata_of_the_steps(whole: PipelineRunResponse) -> None:
    trained = whole.steps["train_model"].run_metadata
    assert trained["kaptain_run"]["kind"] == "train"
    assert trained["kaptain_model"]["state"] == "trained"
    assert trained["kaptain_model"]["metrics"] == {"accuracy": 0.5}
    assert whole.steps["tune_model"].run_metadata["kaptain_run"]["kind"] == "tune"
    logged = whole.steps["log_model_metrics"].run_metadata
    assert logged["validation_metrics"] == {"f1": 0.4}
    decision = whole.steps["deployment_trigger"].run_metadata["kaptain_decision"]
    assert decision["deploy"] is True
    assert "nothing is deployed" in decision["reason"]


def test_the_picture_of_the_search_is_an_html_artifact(whole: PipelineRunResponse) -> None:
    (report,) = whole.steps["tune_model"].outputs["search_report"]
    assert "<svg" in report.load()
    assert report.visualizations
    assert report.visualizations[0].type.value == "html"


def test_the_model_version_knows_state_metrics_and_url(
    whole: PipelineRunResponse, stack: str
) -> None:
    version = Client().get_model_version("scored", "1")
    noted = version.run_metadata["kaptain_model"]
    assert noted["state"] == "tuned"
    assert noted["deployment"] == "serving"
    assert noted["prediction_url"].endswith("/v2/models/dev-scored/infer")
    deployer = Client().active_stack.model_deployer
    assert deployer is not None
    (service,) = deployer.find_model_server(model_name="scored", model_version="1")
    assert service.prediction_url == noted["prediction_url"]
    assert Client().get_service(service.uuid).model_version.id == version.id
    assert deployer.find_model_server(model_name="scored", model_version="2") == []


def test_the_service_is_found_by_the_pipeline_and_step_that_deployed_it(
    whole: PipelineRunResponse,
) -> None:
    deployer = Client().active_stack.model_deployer
    assert deployer is not None
    (service,) = deployer.find_model_server(
        pipeline_name="whole",
        pipeline_step_name="deploy_model",
        pipeline_run_id=str(whole.id),
        running=True,
    )
    noted = whole.steps["promote_canary"].run_metadata
    assert noted["service_id"] == str(service.uuid)
    assert service.status.revision == noted["kaptain_model"]["baseline_revision"]


@pytest.mark.usefixtures("whole")
def test_continuous_deployment_replaces_by_a_better_model_only(folder: Path) -> None:
    @pipeline(enable_cache=False)
    def continuous(score: float) -> None:
        trained = steps.train_model(spec(), hyperparameters={"score": score}, base_dir=str(folder))
        good = steps.deployment_trigger(trained, metric="accuracy", better="higher")
        steps.deploy_model(trained, deploy=good)

    deployer = Client().active_stack.model_deployer
    assert deployer is not None
    (before,) = deployer.find_model_server()
    worse = continuous(score=0.1)
    assert record_of(worse, "deploy_model").state is ModelState.TRAINED
    (unchanged,) = deployer.find_model_server()
    assert unchanged.status.revision == before.status.revision
    better = continuous(score=0.9)
    (after,) = deployer.find_model_server(pipeline_name="continuous")
    assert (after.uuid, after.prediction_url) == (before.uuid, before.prediction_url)
    assert after.status.revision != before.status.revision
    served = record_of(better, "deploy_model").deployment.baseline
    assert served is not None
    assert served.metrics == {"accuracy": 0.9}


@pytest.mark.usefixtures("whole")
def test_two_models_of_one_pipeline_do_not_get_in_each_others_way(folder: Path) -> None:
    first, second = spec("first"), spec("second")

    @pipeline(enable_cache=False)
    def both() -> None:
        for model in (first, second):
            trained = steps.train_model(model, hyperparameters={"score": 0.5}, base_dir=str(folder))
            steps.deploy_model(trained)

    run = both()
    deployer = Client().active_stack.model_deployer
    assert deployer is not None
    services = {
        name: deployer.find_model_server(pipeline_name="both", model_name=f"dev/{name}")
        for name in ("first", "second")
    }
    assert [len(found) for found in services.values()] == [1, 1]
    urls = {found[0].prediction_url for found in services.values()}
    assert len(urls) == 2
    assert len(deployer.find_model_server(pipeline_run_id=str(run.id))) == 2

    @pipeline(enable_cache=False)
    def back_and_away(uri: str) -> None:
        canary = steps.deploy_canary(first, percentage=50, model_uri=uri)
        back = steps.rollback_canary(canary)
        gone = steps.undeploy_model(back)
        steps.undeploy_model(second, after=gone)

    artifact = record_of(run, "train_model").artifact
    assert artifact is not None
    copied = folder / "copied"
    shutil.copytree(artifact.uri.removeprefix("file://"), copied)
    ended = back_and_away(uri=copied.as_uri())
    assert record_of(ended, "rollback_canary").deployment.phase is DeploymentPhase.SERVING
    assert deployer.find_model_server(pipeline_name="both") == []


@pytest.mark.usefixtures("whole")
def test_the_command_undeploys_what_a_pipeline_deployed_and_zenml_forgets_it() -> None:
    deployer = Client().active_stack.model_deployer
    assert deployer is not None
    assert len(deployer.find_model_server(model_name="dev/scored")) == 1
    shown = CliRunner().invoke(app, ["models", "show", "dev/scored"])
    assert "serving" in shown.output
    undeployed = CliRunner().invoke(app, ["undeploy", "dev/scored"])
    assert undeployed.exit_code == 0, undeployed.exception
    assert deployer.find_model_server(model_name="dev/scored") == []


def single(step: Callable[..., Any], **arguments: Any) -> Callable[[], PipelineRunResponse]:
    @pipeline(enable_cache=False)
    def single() -> None:
        step(**arguments)

    return single


@pytest.mark.parametrize(
    ("step", "arguments", "reason"),
    [
        (steps.train_model, {"hyperparameters": {"score": -1.0}}, "a score below zero"),
        (
            steps.tune_model,
            {
                "hyperparameters": {"score": Double(0.1, 0.2)},
                "objectives": ["f1"],
                "trials": 1,
                "failed_trials": 1,
            },
            "f1",
        ),
    ],
)
@pytest.mark.usefixtures("stack")
def test_a_workload_that_fails_is_a_failed_step_with_the_reason_and_the_run(
    folder: Path, step: Callable[..., Any], arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RuntimeError, match="failure in step"):
        single(step, model=spec("failing"), base_dir=str(folder), **arguments)()
    run = Client().list_pipeline_runs(size=1, sort_by="desc:created", hydrate=True).items[0]
    (failed,) = run.steps.values()
    assert failed.status.value == "failed"
    assert failed.exception_info is not None
    assert "WorkloadDeploymentError" in failed.exception_info.traceback
    assert reason in failed.exception_info.traceback
    # It was there before the run ended: the step failed before it could write anything more.
    assert failed.run_metadata["kaptain_run"]["name"].startswith("dev-failing")


@pytest.mark.parametrize(
    ("step", "arguments", "error"),
    [
        (steps.deploy_model, {}, "ModelValidationException: Model 'dev/new' is untrained"),
        (steps.deploy_canary, {"percentage": 0}, "from 1 to 99, not 0"),
        (
            steps.deploy_canary,
            {"percentage": 30},
            "ModelDeploymentException: Model 'dev/new' is not",
        ),
        (steps.promote_canary, {}, "has no canary to promote"),
        (steps.rollback_canary, {}, "has no canary to roll back"),
        (steps.undeploy_model, {}, "nothing to undeploy"),
        (steps.predict, {"inputs": [[1.0]]}, "is not deployed, so it cannot predict"),
        (steps.train_model, {}, "The main file 'train.py' is not in"),
        (steps.build_model, {"base_dir": "/nowhere"}, "'train.py' is not in /nowhere."),
        (
            steps.deployment_trigger,
            {"metric": "accuracy", "min_value": 0.5},
            "has no metric 'accuracy'",
        ),
    ],
)
@pytest.mark.usefixtures("stack")
def test_a_wrong_request_is_an_error_of_ours_that_names_the_cause(
    step: Callable[..., Any], arguments: dict[str, Any], error: str
) -> None:
    with pytest.raises(RuntimeError, match="failure in step"):
        single(step, model=spec("new"), **arguments)()
    run = Client().list_pipeline_runs(size=1, sort_by="desc:created", hydrate=True).items[0]
    (failed,) = run.steps.values()
    assert failed.exception_info is not None
    assert error in failed.exception_info.traceback


@pytest.mark.usefixtures("stack")
def test_a_script_argument_with_the_name_of_an_argument_of_ours_is_refused(folder: Path) -> None:
    arguments = {"kwargs": {"workers": "3"}, "base_dir": str(folder)}
    with pytest.raises(RuntimeError, match="failure in step"):
        single(steps.train_model, model=spec("new"), **arguments)()
    run = Client().list_pipeline_runs(size=1, sort_by="desc:created", hydrate=True).items[0]
    (failed,) = run.steps.values()
    assert failed.exception_info is not None
    assert "--workers=value" in failed.exception_info.traceback


def test_a_stack_without_our_components_is_named_with_what_to_do(zenml_client: Client) -> None:
    before = Client().active_stack_model.id
    zenml_client.activate_stack("default")
    try:
        with pytest.raises(RuntimeError, match="failure in step"):
            single(steps.undeploy_model, model=spec("new"))()
        run = Client().list_pipeline_runs(size=1, sort_by="desc:created", hydrate=True).items[0]
        (failed,) = run.steps.values()
        assert failed.exception_info is not None
        assert "kaptain-zen stack register local" in failed.exception_info.traceback
    finally:
        Client().activate_stack(before)
