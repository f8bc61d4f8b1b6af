"""A service from its deployment to its end, with real models behind real MLServers.

Every test of this module begins with a service that serves, and leaves one.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import psutil
import pytest
from tests.local.server_support import (
    MODEL_ID,
    Asking,
    Serving,
    ask,
    ask_once,
    connect,
    constant_model,
    train_digits,
)
from tests.processes import eventually, mentioning

from kaptain_zen.exceptions import (
    ConflictError,
    ModelDeploymentException,
    ModelValidationException,
    PredictionError,
    WorkloadDeploymentError,
    WorkloadTimeoutError,
)
from kaptain_zen.model.ports import ServiceProgress
from kaptain_zen.model.record import ANNOTATION
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.processes import ProcessRef
from kaptain_zen.platform.prediction import predict

IMAGE = 7
NAME = "dev-mnist"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def images(root: Path) -> list[list[float]]:
    return train_digits(root / "models" / "digits")


@pytest.fixture(scope="module")
def row(images: list[list[float]]) -> list[float]:
    return images[IMAGE]


@pytest.fixture(scope="module")
def digits(root: Path, images: list[list[float]]) -> str:
    assert images
    return (root / "models" / "digits").as_uri()


@pytest.fixture(scope="module")
def threes(root: Path) -> str:
    return constant_model(root / "models" / "threes", 3)


@pytest.fixture(scope="module")
def deployed(root: Path, digits: str) -> Iterator[Serving]:
    serving = Serving(LocalHome(root / "home"), root / "models")
    serving.apply(serving.deployed(digits))
    yield serving
    serving.server.delete(MODEL_ID)
    assert mentioning(root) == []


@pytest.fixture
def serving(deployed: Serving) -> Serving:
    service = deployed.service
    if not service.ready:
        deployed.server.start(MODEL_ID)
    if service.record.deployment.canary:
        deployed.apply(deployed.rolled_back())
    return deployed


def test_the_eighth_digit_is_a_seven(serving: Serving, row: list[float]) -> None:
    service = serving.service

    status, revision, answer = ask_once(service, row)

    assert status == 200
    assert answer["outputs"][0]["data"] == [IMAGE]
    assert answer["model_name"] == NAME
    baseline = service.record.deployment.baseline
    assert baseline is not None
    assert revision == answer["model_version"] == baseline.revision


def test_predictions_come_back_as_the_model_makes_them(
    serving: Serving, images: list[list[float]]
) -> None:
    model = joblib.load(serving.models / "digits" / "model.joblib")

    predicted = predict(serving.service, np.array(images), timeout=30)

    assert isinstance(predicted, np.ndarray)
    assert predicted.tolist() == model.predict(images).tolist()


def test_inputs_that_the_model_cannot_take_are_its_own_error(serving: Serving) -> None:
    with pytest.raises(PredictionError, match=r"(?s)/infer was answered with 500: .*shape"):
        predict(serving.service, [[1.0, 2.0]], timeout=30)

    eventually(lambda: any("64 features" in i.text for i in serving.server.logs(MODEL_ID)))


def test_progress_is_reported_until_it_answers(serving: Serving) -> None:
    url = serving.service.url

    assert serving.rows[:3] == [
        ServiceProgress(name=NAME, ready="Unknown"),
        ServiceProgress(name=NAME, ready="Unknown", prev="0", latest="100"),
        ServiceProgress(name=NAME, ready="True", prev="0", latest="100", url=url),
    ]


def test_any_process_can_find_the_service(serving: Serving) -> None:
    other = Serving(serving.home, serving.models)

    assert [s.model_copy(update={"requests": {}}) for s in other.server.list()] == [
        serving.service.model_copy(update={"requests": {}})
    ]
    assert other.service.ready
    assert other.service.backend == "local"
    assert other.server.get("another/model") is None


def test_looking_at_a_service_takes_milliseconds(serving: Serving) -> None:
    took = []
    for _ in range(20):
        began = time.perf_counter()
        assert serving.service.ready
        took.append(time.perf_counter() - began)

    assert min(took) < 0.02


def test_only_the_owner_can_read_the_secret(serving: Serving) -> None:
    token = serving.folder.router / "token"

    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    for process in (serving.state.router.ref, *(s.ref for s in serving.state.servers)):
        assert token.read_text() not in " ".join(psutil.Process(process.pid).cmdline())


def test_logs_name_their_source(serving: Serving) -> None:
    lines = list(serving.server.logs(MODEL_ID))

    assert any("HTTP server running" in line.text for line in lines)
    assert {line.source for line in lines} == {f"{NAME}/baseline"}
    assert [line.text for line in serving.server.logs(MODEL_ID, tail=2)] == [
        line.text for line in lines[-2:]
    ]


def test_the_log_can_be_followed(serving: Serving) -> None:
    lines = serving.server.logs(MODEL_ID, tail=0, follow=True)
    with serving.folder.log(next(iter(serving.pids))).open("a") as log:
        log.write("a line of its own\n")

    assert next(lines).text == "a line of its own"


def test_a_client_that_knows_an_older_state_is_refused(serving: Serving, digits: str) -> None:
    before = serving.state
    record = serving.deployed(digits)

    for stale in (None, "0" * 32):
        with pytest.raises(ConflictError):
            serving.server.apply(record, resource_version=stale)
        if stale:
            with pytest.raises(ConflictError):
                serving.server.delete(MODEL_ID, resource_version=stale)

    assert serving.state == before
    assert serving.service.ready


def test_a_canary_gets_its_share_and_no_process_is_restarted(
    serving: Serving, row: list[float], threes: str
) -> None:
    before, url = serving.pids, serving.service.url
    answered_before = serving.service.requests

    service = serving.apply(serving.with_canary(30, threes))
    assert service.record.deployment.canary is not None
    canary = service.record.deployment.canary.revision
    connection = connect(service)
    answers = [ask(connection, service, row) for _ in range(1000)]
    connection.close()

    assert service.url == url
    assert {status for status, _, _ in answers} == {200}
    assert sum(revision == canary for _, revision, _ in answers) == 300
    assert {a["outputs"][0]["data"][0] for _, revision, a in answers if revision == canary} == {3}
    assert serving.service.requests[canary] == 300
    (baseline,) = before
    assert serving.service.requests[baseline] == answered_before.get(baseline, 0) + 700
    assert serving.rows[-1].model_dump() == {
        "name": NAME,
        "ready": "True",
        "prev": "70",
        "latest": "30",
        "url": url,
    }

    both = serving.pids
    serving.apply(serving.with_canary(60))
    assert serving.pids == both
    assert {s.source for s in serving.server.logs(MODEL_ID)} == {
        f"{NAME}/baseline",
        f"{NAME}/canary",
    }
    connection = connect(service)
    shares = [ask(connection, service, row)[1] == canary for _ in range(100)]
    connection.close()
    assert sum(shares) == 60

    with Asking(serving.service, row) as asking:
        serving.apply(serving.rolled_back())
    assert asking.failures == []
    assert serving.pids == before
    assert ask_once(serving.service, row)[2]["outputs"][0]["data"] == [IMAGE]
    assert not psutil.pid_exists(both[canary])
    assert not serving.folder.revision(canary).exists()


def test_a_replacement_under_load_drops_no_request(
    serving: Serving, row: list[float], digits: str
) -> None:
    (old,), url = serving.pids, serving.service.url

    with Asking(serving.service, row) as asking:
        service = serving.apply(serving.deployed(digits))
        eventually(lambda: any(revision != old for revision, _ in asking.answers))

    assert asking.failures == []
    assert len(asking.answers) > 50
    assert {answer for _, answer in asking.answers} == {IMAGE}
    (new,) = serving.pids
    revisions = [revision for revision, _ in asking.answers]
    assert set(revisions) == {old, new}
    assert service.url == url
    assert not serving.folder.revision(old).exists()


_CHANGE = """
import os, signal, sys
from pathlib import Path
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local import rollout
from kaptain_zen.platform.local.service_state import ServiceFolder
from kaptain_zen.model.record import ModelRecord
from tests.local.server_support import Serving

def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

serving = Serving(LocalHome(Path(sys.argv[1])), Path(sys.argv[2]))
if sys.argv[3] == "routes are switched":
    ServiceFolder.write = die
elif sys.argv[3] == "state is written":
    rollout.settle = die
serving.apply(serving.promoted())
"""


def _promote_and_die(serving: Serving, when: str) -> None:
    client = subprocess.run(
        [sys.executable, "-c", _CHANGE, str(serving.home.root), str(serving.models), when],
        check=False,
    )
    assert client.returncode == -signal.SIGKILL


def test_a_client_killed_in_a_promotion_leaves_one_state_or_the_other(
    serving: Serving, row: list[float], threes: str
) -> None:
    (baseline,) = serving.pids
    serving.apply(serving.with_canary(50, threes))
    both = serving.pids
    (canary,) = set(both) - {baseline}

    _promote_and_die(serving, "routes are switched")
    service = serving.service
    assert service.ready
    assert service.record.deployment.canary is not None
    assert serving.pids == both
    connection = connect(service)
    assert sum(ask(connection, service, row)[1] == canary for _ in range(100)) == 50
    connection.close()

    with Asking(service, row) as asking:
        _promote_and_die(serving, "state is written")
        service = serving.service
    assert asking.failures == []
    assert service.ready
    assert service.record.deployment.canary is None
    assert serving.pids == {canary: both[canary]}
    assert ask_once(service, row)[2]["outputs"][0]["data"] == [3]
    assert not psutil.pid_exists(both[baseline])
    assert not serving.folder.unsettled


def test_a_model_that_cannot_be_loaded_says_why_and_changes_nothing(
    serving: Serving, root: Path, row: list[float]
) -> None:
    broken = root / "models" / "broken"
    broken.mkdir()
    (broken / "model.joblib").write_bytes(b"cnowhere\nThing\n.")
    before = serving.state

    with pytest.raises(WorkloadDeploymentError) as caught:
        serving.apply(serving.deployed(broken.as_uri()))

    assert "did not start: ModuleNotFoundError: No module named 'nowhere'." in str(caught.value)
    assert "Its last lines:" in str(caught.value)
    assert not isinstance(caught.value, WorkloadTimeoutError)
    _unchanged(serving, before, row)


def test_a_revision_that_takes_too_long_changes_nothing(
    serving: Serving, row: list[float], threes: str
) -> None:
    before = serving.state

    with pytest.raises(WorkloadTimeoutError, match=r"within 0\.4 s.*importing"):
        serving.apply(serving.deployed(threes), timeout=0.4)

    _unchanged(serving, before, row)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_changes_nothing(
    serving: Serving, row: list[float], threes: str, interrupt: type[BaseException]
) -> None:
    before = serving.state

    def interrupting(row: ServiceProgress) -> None:
        if row.latest:
            raise interrupt

    with pytest.raises(interrupt):
        serving.server.apply(
            serving.deployed(threes),
            resource_version=before.resource_version,
            on_progress=interrupting,
        )

    _unchanged(serving, before, row)


_DEPLOY = """
import sys
from pathlib import Path
from kaptain_zen.platform.local.home import LocalHome
from tests.local.server_support import Serving

serving = Serving(LocalHome(Path(sys.argv[1])), Path(sys.argv[2]))
record = serving.deployed(sys.argv[3])
version = serving.state.resource_version if serving.folder.file.exists() else None
serving.server.apply(record, resource_version=version,
                     on_progress=lambda row: print(row.latest, flush=True))
"""


def test_a_client_killed_while_a_revision_starts_leaves_nothing(
    serving: Serving, row: list[float], threes: str
) -> None:
    before = serving.state
    client = subprocess.Popen(
        [sys.executable, "-c", _DEPLOY, str(serving.home.root), str(serving.models), threes],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout
    assert [client.stdout.readline() for _ in range(2)] == ["\n", "100\n"]
    started = serving.folder.journal().started
    assert [ref.alive for ref in started] == [True]

    client.kill()
    client.wait()
    client.stdout.close()

    eventually(lambda: not any(ref.alive for ref in started), seconds=5)
    assert serving.service.ready
    _unchanged(serving, before, row)


def test_files_that_are_no_model_are_refused_before_anything_starts(
    serving: Serving, root: Path, row: list[float]
) -> None:
    empty = root / "models" / "text"
    empty.mkdir()
    (empty / "readme.txt").write_text("hello")
    before = serving.state

    with pytest.raises(ModelValidationException, match=r"(?s)model\.joblib.*readme\.txt"):
        serving.apply(serving.deployed(empty.as_uri()))

    _unchanged(serving, before, row)


def _unchanged(serving: Serving, before: object, row: list[float]) -> None:
    assert serving.state == before
    assert not serving.folder.unsettled
    assert [p.name for p in serving.folder.revisions.iterdir()] == list(serving.pids)
    known = {serving.state.router.ref.pid, *serving.pids.values()}
    eventually(lambda: {p.pid for p in mentioning(serving.home.root)} <= known, seconds=5)
    assert serving.service.ready
    assert ask_once(serving.service, row)[0] == 200


def test_a_stopped_service_keeps_its_address(serving: Serving, row: list[float]) -> None:
    before, url = serving.pids, serving.service.url

    stopped = serving.server.stop(MODEL_ID)
    assert (stopped.stopped, stopped.ready, stopped.url) == (True, False, url)
    assert "stopped" in stopped.message
    assert not any(psutil.pid_exists(pid) for pid in before.values())
    with pytest.raises(PredictionError, match=r"(?s)503.*stopped"):
        predict(stopped, [row], timeout=10)
    assert serving.server.stop(MODEL_ID) == serving.service

    started = serving.server.start(MODEL_ID)
    assert (started.stopped, started.ready, started.url) == (False, True, url)
    assert ask_once(started, row)[0] == 200
    again = serving.pids
    assert serving.server.start(MODEL_ID).ready
    assert serving.pids == again


def test_processes_that_were_killed_are_noticed_and_started_again(
    serving: Serving, row: list[float]
) -> None:
    url = serving.service.url
    (server,) = serving.state.servers
    _kill(server.ref)

    broken = serving.service
    assert not broken.ready
    assert f"The server of revision {server.revision} has ended" in broken.message
    assert "Its last words" in broken.message
    assert ask_once(broken, row)[0] == 502

    _kill(serving.state.router.ref)
    assert "The router of dev-mnist has ended" in serving.service.message
    with pytest.raises(PredictionError, match="deploy it or start it again"):
        predict(broken, [row], timeout=5)

    started = serving.server.start(MODEL_ID)
    assert started.ready
    assert started.url == url
    assert ask_once(started, row)[0] == 200


def test_a_router_alone_is_started_again_on_its_port(serving: Serving, row: list[float]) -> None:
    before, url = serving.pids, serving.service.url
    _kill(serving.state.router.ref)

    service = serving.server.start(MODEL_ID)

    assert service.url == url
    assert serving.pids == before
    assert ask_once(service, row)[0] == 200


def test_a_running_service_is_not_cleaned_up(serving: Serving, row: list[float]) -> None:
    assert serving.server.cleanup(dry_run=True) == []
    assert serving.server.cleanup() == []
    assert ask_once(serving.service, row)[0] == 200


def test_the_annotation_is_the_record(serving: Serving) -> None:
    assert serving.state.annotations == {ANNOTATION: serving.service.record.to_annotation()}


def test_what_is_not_there_cannot_be_stopped_or_started(serving: Serving) -> None:
    for action in (serving.server.stop, serving.server.start, serving.server.logs):
        with pytest.raises(ModelDeploymentException, match="other/model"):
            action("other/model")
    serving.server.delete("other/model")
    assert not (serving.home.services / "other-model.lock").exists()


def _kill(ref: ProcessRef) -> None:
    os.kill(ref.pid, signal.SIGKILL)
    eventually(lambda: not ref.alive, seconds=5)
