"""What the tests of the server share: real models, real records, clients that keep asking."""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from kaptain_zen.config import Config
from kaptain_zen.model import states
from kaptain_zen.model.ports import Service, ServiceProgress
from kaptain_zen.model.record import ModelRecord
from kaptain_zen.model.resources import Resources
from kaptain_zen.model.spec import ModelSpec
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.server import LocalServer
from kaptain_zen.platform.local.service_state import ServiceFolder, ServiceState
from kaptain_zen.storage.store import open_store

MODEL_ID = "dev/mnist"
SMALL = Resources.choose(None, cpu="0.5", memory="500M")


def train_digits(folder: Path) -> list[list[float]]:
    """Train the digits model into a folder; give back all images, flat."""
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    digits = load_digits()
    data = digits.images.reshape(len(digits.images), -1)
    half = len(data) // 2
    folder.mkdir(parents=True)
    joblib.dump(SVC(gamma=0.001).fit(data[:half], digits.target[:half]), folder / "model.joblib")
    rows: list[list[float]] = data.tolist()
    return rows


def constant_model(folder: Path, answer: int) -> str:
    """A model that always answers the same; its URI."""
    import joblib
    from sklearn.dummy import DummyClassifier

    folder.mkdir(parents=True)
    model = DummyClassifier(strategy="constant", constant=answer)
    joblib.dump(model.fit([[0.0]] * 2, [answer, answer + 1]), folder / "model.joblib")
    return folder.as_uri()


def new_record(model_id: str = MODEL_ID, **changes: Any) -> ModelRecord:
    """The record of an untrained model."""
    properties = {
        "id": model_id,
        "name": "Digits",
        "description": "Handwritten digits",
        "version": "1",
        "framework": "sklearn",
        "framework_version": "1.9",
        "main_file": "training.py",
        "image_name": "me/digits",
        "base_image": "python",
        "serving_config": {"protocol_version": "v2"},
    }
    spec = ModelSpec(**{**properties, **changes})
    return states.new(spec, revision=uuid4().hex, now=datetime.now(UTC))


@dataclass
class Serving:
    """A server, and a model on it that may be deployed.

    Attributes:
        home: Where it works.
        models: Folder for models.
        rows: Every row of progress that was reported.
    """

    home: LocalHome
    models: Path
    model_id: str = MODEL_ID
    rows: list[ServiceProgress] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.models.mkdir(parents=True, exist_ok=True)
        store = open_store(Config(base_model_storage_uri=self.models.as_uri()))
        self.server = LocalServer(self.home, store=store)

    @property
    def folder(self) -> ServiceFolder:
        return ServiceFolder.of(self.home, self.model_id)

    @property
    def state(self) -> ServiceState:
        state = self.folder.read()
        assert state is not None
        return state

    @property
    def service(self) -> Service:
        service = self.server.get(self.model_id)
        assert service is not None
        return service

    @property
    def pids(self) -> dict[str, int]:
        """Of the servers, by revision."""
        return {server.revision: server.ref.pid for server in self.state.servers}

    def record(self) -> ModelRecord:
        """What is deployed, or an untrained model."""
        service = self.server.get(self.model_id)
        return service.record if service else new_record(self.model_id)

    def deployed(self, uri: str, **options: Any) -> ModelRecord:
        """The record with a model deployed."""
        return states.deployed(
            self.record(),
            revision=uuid4().hex,
            now=datetime.now(UTC),
            uri=uri,
            replace=True,
            **{"resources": SMALL, **options},
        )

    def with_canary(self, percentage: int, uri: str | None = None) -> ModelRecord:
        """The record with a canary."""
        return states.canaried(
            self.record(),
            percentage=percentage,
            revision=uuid4().hex,
            now=datetime.now(UTC),
            uri=uri,
            resources=SMALL,
        )

    def promoted(self) -> ModelRecord:
        """The record with the canary promoted."""
        return states.promoted(self.record(), revision=uuid4().hex, now=datetime.now(UTC))

    def rolled_back(self) -> ModelRecord:
        """The record with the canary rolled back."""
        return states.rolled_back(self.record(), revision=uuid4().hex, now=datetime.now(UTC))

    def apply(self, record: ModelRecord, timeout: float = 120) -> Service:
        """Apply a record to what is there."""
        current = self.server.get(self.model_id)
        return self.server.apply(
            record,
            resource_version=current.resource_version if current else None,
            timeout=timeout,
            on_progress=self.rows.append,
        )


@dataclass
class Asking:
    """Clients that ask for predictions over kept connections, until the block ends.

    Attributes:
        service: Whom.
        row: What they ask about.
        clients: How many.
    """

    service: Service
    row: list[float]
    clients: int = 4
    answers: list[tuple[str, int]] = field(default_factory=list)
    failures: list[object] = field(default_factory=list)

    def __enter__(self) -> Asking:
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = connect(self.service)
        try:
            while not self._ending.is_set():
                status, revision, value = ask(connection, self.service, self.row)
                if status == 200:
                    self.answers.append((revision, value["outputs"][0]["data"][0]))
                else:
                    self.failures.append((status, value))
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(error)
        finally:
            connection.close()


def connect(service: Service) -> http.client.HTTPConnection:
    """A connection to a service."""
    return http.client.HTTPConnection(str(urlsplit(service.url).netloc), timeout=30)


def ask(
    connection: http.client.HTTPConnection, service: Service, row: list[float]
) -> tuple[int, str, Any]:
    """One prediction: status, revision that answered, answer."""
    tensor = {"name": "predict", "shape": [1, len(row)], "datatype": "FP32", "data": row}
    connection.request(
        "POST",
        urlsplit(service.prediction_url).path,
        json.dumps({"inputs": [tensor]}),
        {"Content-Type": "application/json"},
    )
    response = connection.getresponse()
    body = json.loads(response.read())
    return response.status, response.headers.get("kaptain-zen-revision", ""), body


def ask_once(service: Service, row: list[float]) -> tuple[int, str, Any]:
    """One prediction over a connection of its own."""
    connection = connect(service)
    try:
        return ask(connection, service, row)
    finally:
        connection.close()
