"""The model deployer and its services, through ZenML's interface, on a real server.

One model is deployed for the whole module; tests that change what is deployed come last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import pytest
from zenml.client import Client
from zenml.enums import ServiceState
from zenml.models import ServiceRequest
from zenml.models.v2.misc.service import ServiceType

from kaptain_zen.components.services.local import (
    KaptainLocalDeploymentConfig,
    KaptainLocalDeploymentService,
    ModelServerError,
)

if TYPE_CHECKING:
    from kaptain_zen.components.model_deployers.local import KaptainLocalModelDeployer

MODEL = "dev/threshold"


def save_model(folder: Path, threshold: float) -> str:
    """A classifier that says 1 above a threshold, where MLServer finds it; returns its URI."""
    import joblib
    from sklearn.tree import DecisionTreeClassifier

    folder.mkdir(parents=True)
    values = [[threshold - 1], [threshold + 1]]
    joblib.dump(DecisionTreeClassifier().fit(values, [0, 1]), folder / "model.joblib")
    return folder.as_uri()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("saved")
    return {name: save_model(folder / name, value) for name, value in (("low", 2), ("high", 8))}


@pytest.fixture(scope="module")
def stack(
    local_stacks: Callable[..., AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    with local_stacks(tmp_path_factory.mktemp("home")) as name:
        yield name


@pytest.fixture(scope="module")
def deployer(stack: str) -> KaptainLocalModelDeployer:
    from kaptain_zen.components.model_deployers.local import KaptainLocalModelDeployer

    found = KaptainLocalModelDeployer.get_active_model_deployer()
    assert isinstance(found, KaptainLocalModelDeployer)
    return found


def config(uri: str, **more: Any) -> KaptainLocalDeploymentConfig:
    defaults = {
        "model_id": MODEL,
        "model_uri": uri,
        "framework": "sklearn",
        "pipeline_name": "training",
        "pipeline_step_name": "deploy_model",
    }
    return KaptainLocalDeploymentConfig(**{**defaults, **more})


@pytest.fixture(scope="module")
def service(
    deployer: KaptainLocalModelDeployer, models: dict[str, str]
) -> KaptainLocalDeploymentService:
    made = deployer.deploy_model(config(models["low"]))
    assert isinstance(made, KaptainLocalDeploymentService)
    return made


def foreign_row(name: str, **more: Any) -> UUID:
    """A row of another deployer, of a class that nobody can import."""
    client = Client()
    columns: dict[str, Any] = {
        "service_type": ServiceType(type="model-serving", flavor="mlflow", name="mlflow"),
        "service_source": "somewhere.else.MLFlowService",
        "config": {"name": name, "model_name": MODEL, "unique": uuid4().hex},
        "status": {"state": "active"},
    }
    request = ServiceRequest(name=name, project=client.active_project.id, **{**columns, **more})
    return client.zen_store.create_service(request).id


def ids(services: list[Any]) -> list[UUID]:
    return [service.uuid for service in services]


def test_a_deployed_model_answers_at_a_url_that_is_known_without_asking(
    service: KaptainLocalDeploymentService,
) -> None:
    row = Client().get_service(service.uuid)
    assert row.prediction_url == service.prediction_url == service.get_prediction_url()
    assert row.health_check_url == service.get_healthcheck_url()
    assert row.state is ServiceState.ACTIVE
    assert row.admin_state is ServiceState.ACTIVE
    assert httpx.get(str(row.health_check_url)).status_code == 200
    assert list(service.predict([[1.0], [3.0]])) == [0, 1]


def test_a_service_is_loaded_from_its_row_as_it_was(
    service: KaptainLocalDeploymentService, deployer: KaptainLocalModelDeployer
) -> None:
    loaded = deployer.load_service(service.uuid)
    assert loaded.model_dump() == service.model_dump()
    assert loaded.is_running
    assert not loaded.is_stopped


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, True),
        ({"running": True}, True),
        ({"running": False}, True),
        ({"model_name": MODEL}, True),
        ({"model_name": "another"}, False),
        ({"model_name": MODEL, "model_version": "7"}, False),
        ({"service_name": "dev-threshold"}, True),
        ({"service_name": "dev"}, False),
        ({"pipeline_name": "training", "pipeline_step_name": "deploy_model"}, True),
        ({"pipeline_name": "training", "pipeline_step_name": "other"}, False),
        ({"pipeline_name": "trainin"}, False),
        ({"config": {"model_id": MODEL}}, True),
        ({"config": {"model_id": MODEL, "framework": "xgboost"}}, False),
        ({"config": {"there is no": "such key"}}, False),
        ({"type": "model-serving", "flavor": "kaptain_local"}, True),
        ({"type": "model-serving"}, True),
        ({"flavor": "mlflow"}, False),
        ({"service_type": KaptainLocalDeploymentService.SERVICE_TYPE}, True),
        ({"service_type": ServiceType(type="model-serving", flavor="mlflow")}, False),
        ({"pipeline_run_id": str(uuid4())}, False),
        ({"service_uuid": uuid4()}, False),
    ],
)
def test_a_service_is_found_by_what_fits_and_by_nothing_else(
    deployer: KaptainLocalModelDeployer,
    service: KaptainLocalDeploymentService,
    query: dict[str, Any],
    found: bool,
) -> None:
    assert ids(deployer.find_model_server(**query)) == ([service.uuid] if found else [])


def test_services_of_other_deployers_are_never_loaded_changed_or_removed(
    deployer: KaptainLocalModelDeployer, service: KaptainLocalDeploymentService
) -> None:
    theirs = [foreign_row("theirs"), foreign_row("being-deployed", service_source=None)]
    before = [Client().get_service(uuid).model_dump() for uuid in theirs]
    assert ids(deployer.find_model_server()) == [service.uuid]
    assert ids(deployer.find_model_server(service_uuid=theirs[0])) == []
    with pytest.raises(ModelServerError, match="no model server with UUID"):
        deployer.delete_model_server(theirs[0])
    assert [Client().get_service(uuid).model_dump() for uuid in theirs] == before


def test_a_row_of_ours_that_cannot_be_read_hides_no_other(
    deployer: KaptainLocalModelDeployer,
    service: KaptainLocalDeploymentService,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kind = KaptainLocalDeploymentService.SERVICE_TYPE
    broken = foreign_row(
        "broken",
        service_type=kind,
        service_source=service.type,
        status={"state": "active", "canary_percentage": "a third"},
    )
    try:
        assert ids(deployer.find_model_server()) == [service.uuid]
        assert str(broken) in caplog.text
    finally:
        Client().zen_store.delete_service(broken)


def test_a_search_reads_all_pages(
    deployer: KaptainLocalModelDeployer,
    service: KaptainLocalDeploymentService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kaptain_zen.components.services import rows

    monkeypatch.setattr(rows, "_PAGE", 2)
    kind = KaptainLocalDeploymentService.SERVICE_TYPE
    # Services of another home, newer than ours.
    added = [
        foreign_row(
            f"elsewhere-{number}",
            service_type=kind,
            service_source=service.type,
            config=config("file:///x", model_id=f"other/{number}", home="/elsewhere").model_dump(),
        )
        for number in range(5)
    ]
    try:
        assert ids(deployer.find_model_server(model_name=MODEL)) == [service.uuid]
    finally:
        for uuid in added:
            Client().zen_store.delete_service(uuid)


def test_deploying_the_same_again_gives_the_same_service_and_restarts_nothing(
    deployer: KaptainLocalModelDeployer,
    service: KaptainLocalDeploymentService,
    models: dict[str, str],
) -> None:
    again = deployer.deploy_model(config(models["low"]))
    assert again.uuid == service.uuid
    assert again.status.revision == service.status.revision


def test_a_model_that_serves_something_else_is_replaced_only_on_demand(
    deployer: KaptainLocalModelDeployer,
    service: KaptainLocalDeploymentService,
    models: dict[str, str],
) -> None:
    with pytest.raises(ModelServerError, match="replace=True"):
        deployer.deploy_model(config(models["high"]))
    assert list(service.predict([[3.0]])) == [1]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"model_id": "dev/new", "model_uri": ""}, "give its model_uri and its framework"),
        ({"model_id": "dev/new", "framework": ""}, "give its model_uri and its framework"),
    ],
)
def test_a_model_that_nothing_is_known_of_needs_a_uri_and_a_framework(
    deployer: KaptainLocalModelDeployer,
    models: dict[str, str],
    wrong: dict[str, str],
    reason: str,
) -> None:
    with pytest.raises(ModelServerError, match=reason):
        deployer.deploy_model(config(models["low"], **wrong))
    assert deployer.find_model_server(model_name="dev/new") == []


def test_a_deployment_that_fails_leaves_no_service(
    deployer: KaptainLocalModelDeployer, tmp_path: Path
) -> None:
    nothing = config((tmp_path / "nothing").as_uri(), model_id="dev/broken")
    with pytest.raises(ModelServerError, match=r"'dev/broken' was not deployed.*nothing"):
        deployer.deploy_model(nothing)
    assert deployer.find_model_server(model_name="dev/broken") == []


def test_configurations_and_types_of_other_deployers_are_refused(
    deployer: KaptainLocalModelDeployer, models: dict[str, str]
) -> None:
    from zenml.services import ServiceConfig

    with pytest.raises(ModelServerError, match="KaptainLocalDeploymentConfig"):
        deployer.deploy_model(ServiceConfig(model_name="m"))
    with pytest.raises(ModelServerError, match="mlflow"):
        deployer.deploy_model(
            config(models["low"]), ServiceType(type="model-serving", flavor="mlflow")
        )


@pytest.mark.parametrize("action", ["start", "stop", "delete"])
def test_an_unknown_id_is_a_clear_error(deployer: KaptainLocalModelDeployer, action: str) -> None:
    uuid = uuid4()
    with pytest.raises(RuntimeError, match=f"no model server with UUID {uuid}"):
        getattr(deployer, f"{action}_model_server")(uuid)


def test_logs_are_told_apart_by_their_source(
    deployer: KaptainLocalModelDeployer, service: KaptainLocalDeploymentService
) -> None:
    lines = list(deployer.get_model_server_logs(service.uuid, tail=2))
    assert len(lines) == 2
    assert all(line.startswith("dev-threshold/") for line in lines)


def test_a_replaced_model_keeps_id_and_url_and_drops_no_request(
    deployer: KaptainLocalModelDeployer,
    service: KaptainLocalDeploymentService,
    models: dict[str, str],
) -> None:
    answers: list[tuple[int, Any]] = []
    enough = threading.Event()
    request = {
        "inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [5.0]}],
    }

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not enough.is_set():
                response = client.post(str(service.prediction_url), json=request)
                body = response.json() if response.status_code == 200 else response.text
                answers.append(
                    (response.status_code, body["outputs"][0]["data"][0])
                    if response.status_code == 200
                    else (response.status_code, body)
                )

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        replaced = deployer.deploy_model(
            config(models["high"], pipeline_name="retraining"), replace=True
        )
        before = len(answers)
        while len(answers) < before + 20 and asking.is_alive():
            enough.wait(0.01)
    finally:
        enough.set()
        asking.join()
    assert {status for status, _ in answers} == {200}
    assert (answers[0], answers[-1]) == ((200, 1), (200, 0))
    assert replaced.uuid == service.uuid
    assert replaced.prediction_url == service.prediction_url
    assert replaced.status.revision != service.status.revision
    assert ids(deployer.find_model_server(pipeline_name="retraining")) == [service.uuid]
    assert deployer.find_model_server(pipeline_name="training") == []
    loaded = deployer.load_service(service.uuid)
    assert isinstance(loaded, KaptainLocalDeploymentService)
    assert loaded.config.model_uri == models["high"]


@pytest.mark.usefixtures("service")
def test_a_service_that_zenml_does_not_know_is_found_too(
    deployer: KaptainLocalModelDeployer,
) -> None:
    # As if a `Model` in a notebook had deployed it.
    deployer.forget_service(MODEL)
    assert Client().list_services(flavor="kaptain_local").items == []
    (found,) = deployer.find_model_server(config={"framework": "sklearn"}, running=True)
    assert found.config.model_id == MODEL
    assert ids(deployer.find_model_server()) == [found.uuid]


@pytest.mark.usefixtures("service")
def test_zenmls_commands_show_stop_start_and_delete(
    deployer: KaptainLocalModelDeployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner
    from zenml.cli.cli import cli

    monkeypatch.setenv("COLUMNS", "250")

    def zenml(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["model-deployer", "models", *arguments])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    (service,) = deployer.find_model_server()
    assert isinstance(service, KaptainLocalDeploymentService)
    uuid = str(service.uuid)
    assert uuid in zenml("list", "--model", MODEL)
    assert "CANARY" not in zenml("describe", uuid)
    assert str(service.prediction_url) in zenml("get-url", uuid)
    assert "dev-threshold/" in zenml("logs", uuid, "--tail", "1")
    assert "was stopped" in zenml("stop", uuid)
    row = Client().get_service(service.uuid)
    assert (row.state, row.admin_state) == (ServiceState.INACTIVE, ServiceState.INACTIVE)
    assert deployer.find_model_server(running=True) == []
    assert ids(deployer.find_model_server()) == [service.uuid]
    assert httpx.get(str(service.healthcheck_url)).status_code == 503
    assert "was started" in zenml("start", uuid)
    assert Client().get_service(service.uuid).state is ServiceState.ACTIVE
    assert list(service.predict([[0.0], [10.0]])) == [0, 1]
    assert "was deleted" in zenml("delete", uuid)
    assert deployer.find_model_server() == []
    with pytest.raises(KeyError):
        Client().get_service(service.uuid)
    with pytest.raises(httpx.ConnectError):
        httpx.get(str(service.healthcheck_url))
