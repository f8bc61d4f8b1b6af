"""What can go wrong before, beside and after a service: nothing is lost, nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
from sklearn.preprocessing import FunctionTransformer
from tests.local.server_support import SMALL, Serving, ask_once, constant_model, new_record
from tests.processes import eventually, mentioning

from kaptain_zen.exceptions import (
    ConflictError,
    KaptainError,
    ModelValidationException,
    PredictionError,
    RecordFormatError,
    StorageError,
    UnsupportedModelDeploymentException,
    WorkloadDeploymentError,
    WorkloadTimeoutError,
)
from kaptain_zen.model.ports import Service
from kaptain_zen.model.record import ANNOTATION
from kaptain_zen.model.resources import Resources
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.mlserver_launcher import _reserved_port
from kaptain_zen.platform.local.processes import ProcessRef
from kaptain_zen.platform.local.serving_process import SPARES
from kaptain_zen.platform.prediction import predict


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(LocalHome(tmp_path / "home"), tmp_path / "models")
    yield serving
    serving.server.delete(serving.model_id)
    SPARES.discard()
    assert mentioning(tmp_path) == []


def _nothing_is_left(serving: Serving) -> None:
    assert list(serving.home.services.glob("**/*")) == []
    assert serving.server.list() == []


def _one_row() -> list[float]:
    return [0.0]


def test_of_two_first_deployments_at_once_one_wins_with_the_prepared_process(
    serving: Serving,
) -> None:
    uri = constant_model(serving.models / "fours", 4)
    assert serving.server.prepare("sklearn")
    assert serving.server.prepare("scikit-learn")
    spare = [p.pid for p in mentioning(serving.home.root)]
    outcomes: list[Service | KaptainError] = []

    def deploy() -> None:
        try:
            record = serving.deployed(uri)
            outcomes.append(serving.server.apply(record, resource_version=None))
        except KaptainError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=deploy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    won = [outcome for outcome in outcomes if isinstance(outcome, Service)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
    assert (len(won), len(lost)) == (1, 1)
    assert serving.service.record == won[0].record
    assert list(serving.pids.values()) == spare
    assert ask_once(won[0], _one_row())[2]["outputs"][0]["data"] == [4]
    _broken_annotation_is_kept(serving, uri)
    serving.server.delete(serving.model_id)
    with pytest.raises(OSError, match="refused"):
        ask_once(won[0], _one_row())
    _nothing_is_left(serving)


def _broken_annotation_is_kept(serving: Serving, uri: str) -> None:
    """Part of a test with a service, because a service takes seconds to start."""
    state, file = serving.state, serving.folder.file
    good = file.read_bytes()
    record = serving.deployed(uri)
    newer = json.loads(state.annotations[ANNOTATION]) | {"schema_version": 7}
    for notes in ({}, {ANNOTATION: "{"}, {ANNOTATION: json.dumps(newer)}):
        broken = state.model_copy(update={"annotations": notes}).model_dump_json().encode()
        file.write_bytes(broken)
        with pytest.raises(RecordFormatError, match="left as it is"):
            serving.server.get(serving.model_id)
        with pytest.raises(RecordFormatError):
            serving.server.apply(record, resource_version=state.resource_version)
        assert serving.server.list() == []
        assert serving.server.cleanup() == []
        assert file.read_bytes() == broken
    file.write_bytes(b"no json at all")
    with pytest.raises(RecordFormatError):
        serving.server.get(serving.model_id)
    assert serving.server.cleanup() == []
    file.write_bytes(good)
    assert serving.service.ready


def test_a_memory_limit_below_what_mlserver_needs_is_said_so(serving: Serving) -> None:
    uri = constant_model(serving.models / "fours", 4)
    record = serving.deployed(uri, resources=Resources(memory_limit="20M"))

    with pytest.raises(WorkloadDeploymentError, match=r"limited to 20 MB; give it at least \d{3}"):
        serving.apply(record)

    _nothing_is_left(serving)


def test_a_model_cannot_take_more_memory_than_its_limit(serving: Serving) -> None:
    folder = serving.models / "greedy"
    folder.mkdir()
    greedy = FunctionTransformer(np.resize, kw_args={"new_shape": (100_000_000, 1)})
    joblib.dump(greedy, folder / "model.joblib")
    settings = {"parameters": {"extra": {"predict_fn": "transform"}}}
    (folder / "model-settings.json").write_text(json.dumps(settings))

    service = serving.apply(serving.deployed(folder.as_uri(), resources=SMALL))
    with pytest.raises(PredictionError, match="answered with 500"):
        predict(service, [[0.0]], timeout=30)
    assert serving.service.ready
    eventually(lambda: any("MemoryError" in i.text for i in serving.server.logs("dev/mnist")))


def test_a_first_deployment_that_fails_leaves_nothing(serving: Serving) -> None:
    uri = constant_model(serving.models / "fours", 4)

    with pytest.raises(WorkloadTimeoutError):
        serving.apply(serving.deployed(uri), timeout=0.3)
    _nothing_is_left(serving)
    with pytest.raises(StorageError, match="nowhere"):
        serving.apply(serving.deployed((serving.models / "nowhere").as_uri()))
    _nothing_is_left(serving)
    with pytest.raises(ConflictError, match="gone"):
        serving.server.apply(serving.deployed(uri), resource_version="0" * 32)
    _nothing_is_left(serving)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow", "onnx", "custom"])
def test_frameworks_without_a_server_are_refused(serving: Serving, framework: str) -> None:
    record = new_record(framework=framework)

    with pytest.raises(UnsupportedModelDeploymentException, match=framework):
        serving.server.check(record)
    assert not serving.server.prepare(framework)


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm"])
def test_a_runtime_that_is_not_installed_is_named(serving: Serving, framework: str) -> None:
    record = new_record(framework=framework)

    with pytest.raises(
        UnsupportedModelDeploymentException, match=f"pip install mlserver-{framework}"
    ):
        serving.server.check(record)


def test_another_protocol_is_refused(serving: Serving) -> None:
    record = serving.deployed("file:///x", serving_config={"protocol_version": "v1"})

    with pytest.raises(ModelValidationException, match="protocol_version is 'v1'"):
        serving.server.check(record)


def test_nothing_to_serve_is_refused(serving: Serving) -> None:
    with pytest.raises(ModelValidationException, match="nothing to be served"):
        serving.server.apply(new_record(), resource_version=None)


@contextmanager
def _client(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    client = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        yield client
    finally:
        client.kill()
        client.wait()
        assert client.stdout
        client.stdout.close()


_DEPLOY = """
import sys
from pathlib import Path
from kaptain_zen.platform.local.home import LocalHome
from tests.local.server_support import Serving

serving = Serving(LocalHome(Path(sys.argv[1])), Path(sys.argv[2]))
serving.server.apply(serving.deployed(sys.argv[3]), resource_version=None,
                     on_progress=lambda row: print(row.latest, flush=True))
"""


def test_cleanup_removes_what_a_killed_client_left(serving: Serving) -> None:
    uri = constant_model(serving.models / "fours", 4)
    arguments = (str(serving.home.root), str(serving.models), uri)
    with _client(_DEPLOY, *arguments) as client:
        assert client.stdout
        assert [client.stdout.readline() for _ in range(2)] == ["\n", "100\n"]
        assert serving.server.cleanup(dry_run=True) == []

    eventually(lambda: mentioning(serving.home.root) == [], seconds=5)
    (found,) = serving.server.cleanup(dry_run=True)
    assert str(serving.folder.path) in found
    assert serving.folder.path.exists()
    assert serving.server.cleanup() == [found]
    _nothing_is_left(serving)
    assert serving.server.cleanup() == []


_FREE = """
import sys
from pathlib import Path
from kaptain_zen.platform.local.serving_process import start_router

home = Path(sys.argv[1])
child = start_router(home / "gone", home=home, port=0, log=home / "log")
child.channel.receive(timeout=20)
child.adopt()
print(child.ref.model_dump_json(), flush=True)
sys.stdin.readline()
"""


def test_cleanup_stops_processes_of_services_that_are_gone(serving: Serving) -> None:
    folder = serving.home.ensure(serving.home.root / "gone")
    (folder / "token").write_text("secret")
    with _client(_FREE, str(serving.home.root)) as client:
        assert client.stdout
        ref = ProcessRef.model_validate_json(client.stdout.readline())
        assert serving.server.cleanup() == []

    assert serving.server.cleanup(dry_run=True) == [f"process {ref.pid}: belongs to no service"]
    assert ref.alive
    assert len(serving.server.cleanup()) == 1
    assert not ref.alive


def test_cleanup_of_another_home_does_not_touch_this_one(serving: Serving, tmp_path: Path) -> None:
    assert serving.server.prepare("sklearn")
    other = Serving(LocalHome(tmp_path / "home2"), tmp_path / "models2")

    assert other.server.cleanup(dry_run=True) == []
    assert len(mentioning(serving.home.root)) == 1


_PREPARE = """
import sys
from pathlib import Path
from kaptain_zen.platform.local.home import LocalHome
from tests.local.server_support import Serving

serving = Serving(LocalHome(Path(sys.argv[1])), Path(sys.argv[2]))
serving.server.prepare("sklearn")
print("prepared", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_prepared_process_ends_with_its_client(serving: Serving, number: int) -> None:
    with _client(_PREPARE, str(serving.home.root), str(serving.models)) as client:
        assert client.stdout
        client.stdout.readline()
        assert len(mentioning(serving.home.root)) == 2

        os.kill(client.pid, number)
        client.wait()

        eventually(lambda: mentioning(serving.home.root) == [], seconds=5)


def test_a_prepared_process_is_given_up_on_request(serving: Serving) -> None:
    serving.server.prepare("sklearn")
    (spare,) = mentioning(serving.home.root)

    serving.server.cleanup()

    assert not spare.is_running() or spare.status() == psutil.STATUS_ZOMBIE


def test_nobody_is_given_a_port_that_is_reserved_for_mlserver() -> None:
    taken: list[Any] = []
    try:
        with _reserved_port() as port:
            for _ in range(500):
                taken.append(socket.socket())
                taken[-1].bind(("127.0.0.1", 0))
            assert port not in {s.getsockname()[1] for s in taken}
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))
            with socket.create_server(("127.0.0.1", port)) as listening:
                assert listening.getsockname()[1] == port
    finally:
        for opened in taken:
            opened.close()


def test_importing_the_server_loads_nothing_heavy() -> None:
    code = (
        "import sys, kaptain_zen.platform.local.server\n"
        "heavy = {'mlserver', 'sklearn', 'numpy', 'pandas', 'httpx', 'httptools', 'uvloop',"
        " 'joblib', 'boto3', 'zenml', 'kubernetes', 'optuna'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
