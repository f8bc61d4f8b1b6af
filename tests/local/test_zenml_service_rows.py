"""ZenML's rows of services: registered once, brought up to date in place, told apart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from zenml.client import Client
from zenml.enums import ServiceState

from kaptain_zen.components.services.local import (
    KaptainLocalDeploymentConfig,
    KaptainLocalDeploymentService,
    ModelServerError,
)
from kaptain_zen.components.services.rows import Query, ServiceRows
from kaptain_zen.model import states
from kaptain_zen.model.ports import Service
from kaptain_zen.model.record import ModelRecord
from kaptain_zen.model.spec import ModelSpec
from kaptain_zen.platform.local.home import LocalHome

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(model_id: str = "dev/m") -> ModelRecord:
    spec = ModelSpec(
        id=model_id,
        name="m",
        description="d",
        version="1",
        framework="sklearn",
        framework_version="1",
        main_file="train.py",
        image_name="i",
        base_image="b",
    )
    new = states.new(spec, revision="0" * 32, now=NOW)
    return states.deployed(new, revision="1" * 32, now=NOW, uri="file:///models/one")


def deployed(served: ModelRecord, **more: Any) -> Service:
    values = {
        "model_id": served.spec.id,
        "name": served.spec.id.replace("/", "-"),
        "backend": "local",
        "url": "http://127.0.0.1:20000",
        "record": served,
        "resource_version": "1",
        "ready": True,
    }
    return Service.model_validate({**values, **more})


def config(model_id: str = "dev/m", **more: Any) -> KaptainLocalDeploymentConfig:
    return KaptainLocalDeploymentConfig(model_id=model_id, **more)


@pytest.fixture
def rows(zenml_client: Client, tmp_path: Path) -> ServiceRows:
    return ServiceRows(zenml_client, LocalHome(tmp_path / "home"))


def test_a_service_is_registered_once_and_then_changed_in_place(rows: ServiceRows) -> None:
    first = rows.publish(deployed(record()), config(pipeline_name="one"))
    canary = states.canaried(
        record(), percentage=20, revision="2" * 32, now=NOW, uri="file:///models/two"
    )
    second = rows.publish(deployed(canary), config(pipeline_name="two"))
    assert second.uuid == first.uuid
    ((row, loaded),) = rows.find()
    assert (loaded.status.canary_revision, loaded.status.canary_percentage) == ("2" * 32, 20)
    assert loaded.config.pipeline_name == "two"
    assert row.prediction_url == "http://127.0.0.1:20000/v2/models/dev-m/infer"
    assert row.labels is not None
    assert row.labels["kaptain-zen.io/model-id"] == "dev/m"
    # ZenML's own way of loading sees the same.
    assert KaptainLocalDeploymentService.from_model(row) == loaded


def test_a_canary_that_was_settled_leaves_no_trace(rows: ServiceRows) -> None:
    canary = states.canaried(
        record(), percentage=20, revision="2" * 32, now=NOW, uri="file:///models/two"
    )
    rows.publish(deployed(canary), config())
    promoted = states.promoted(canary, revision="3" * 32, now=NOW)
    status = rows.publish(deployed(promoted), config()).status
    assert (status.revision, status.uri) == ("2" * 32, "file:///models/two")
    assert (status.canary_revision, status.canary_uri, status.canary_percentage) == ("", "", 0)


def test_clients_at_the_same_time_register_one_row(rows: ServiceRows) -> None:
    barrier = threading.Barrier(4)
    found: list[Any] = []

    def publish() -> None:
        barrier.wait()
        found.append(rows.publish(deployed(record()), config(pipeline_name=uuid4().hex)).uuid)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(rows.find()) == 1


def test_noting_a_state_does_not_undo_what_somebody_deployed_meanwhile(rows: ServiceRows) -> None:
    rows.publish(deployed(record()), config(pipeline_name="one"))
    ((_, read),) = rows.find()
    rows.publish(deployed(record()), config(pipeline_name="two"))
    rows.note(read)
    ((_, now),) = rows.find()
    assert now.config.pipeline_name == "two"


def test_models_and_homes_are_told_apart(
    rows: ServiceRows, zenml_client: Client, tmp_path: Path
) -> None:
    elsewhere = ServiceRows(zenml_client, LocalHome(tmp_path / "elsewhere"))
    uuids = {
        rows.publish(deployed(record("dev/a")), config("dev/a")).uuid,
        rows.publish(deployed(record("dev/b")), config("dev/b")).uuid,
        elsewhere.publish(deployed(record("dev/a")), config("dev/a")).uuid,
    }
    assert len(uuids) == 3
    assert [s.config.model_id for _, s in rows.find()] == ["dev/b", "dev/a"]
    assert [s.config.model_id for _, s in elsewhere.find()] == ["dev/a"]
    ours = rows.of_model("dev/a")
    assert ours is not None
    rows.remove(ours.uuid)
    rows.remove(ours.uuid)
    assert rows.of_model("dev/a") is None
    assert elsewhere.of_model("dev/a") is not None


@pytest.mark.parametrize(
    ("service", "state"),
    [
        ({"ready": True}, ServiceState.ACTIVE),
        ({"ready": False, "message": "The server has ended."}, ServiceState.ERROR),
        ({"ready": False, "stopped": True}, ServiceState.INACTIVE),
    ],
)
def test_the_state_is_what_the_platform_says(
    rows: ServiceRows, service: dict[str, Any], state: ServiceState
) -> None:
    published = rows.publish(deployed(record(), **service), config())
    ((row, _),) = rows.find()
    assert row.state == published.status.state == state
    assert published.status.last_error == service.get("message", "")
    stopped = service.get("stopped", False)
    assert row.admin_state == (ServiceState.INACTIVE if stopped else ServiceState.ACTIVE)


def test_a_run_is_found_by_its_id_or_the_beginning_of_it(rows: ServiceRows) -> None:
    run = uuid4()
    rows.publish(deployed(record()), config(pipeline_run_id=str(run)))
    for query in (str(run), run.hex, str(run)[:10]):
        assert len(rows.find(Query(pipeline_run_id=query))) == 1
    assert rows.find(Query(pipeline_run_id=str(uuid4()))) == []


def test_a_service_that_was_undeployed_elsewhere_says_so_and_can_be_removed(
    local_stacks: Callable[..., AbstractContextManager[str]], local_home: Path
) -> None:
    with local_stacks(local_home):
        deployer = Client().active_stack.model_deployer
        assert deployer is not None
        published = deployer.publish_service(deployed(record()), config())
        (found,) = deployer.find_model_server()
        assert found.status.state is ServiceState.INACTIVE
        assert "not deployed any more" in found.status.last_error
        assert deployer.find_model_server(running=True) == []
        with pytest.raises(ModelServerError, match="no service on this machine"):
            deployer.start_model_server(published.uuid)
        deployer.delete_model_server(published.uuid)
        assert deployer.find_model_server() == []


def test_a_name_stands_for_an_id_and_the_other_way_round() -> None:
    for given in ({"model_id": "dev/m"}, {"model_name": "dev/m"}, {"name": "dev/m"}):
        made = KaptainLocalDeploymentConfig(**given)
        assert (made.model_id, made.model_name, made.name) == ("dev/m",) * 3
    assert config(model_name="Digits").model_name == "Digits"
    with pytest.raises(ValueError, match="must be set"):
        KaptainLocalDeploymentConfig(model_uri="file:///m")
