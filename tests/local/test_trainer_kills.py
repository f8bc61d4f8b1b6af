"""Whatever is killed, a run's end is known, its processes are gone, and any process can attach."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.local.training_support import Bench, at_work_in, bench, model
from tests.processes import eventually

from kaptain_zen.model.ports import RunState, TrainRequest
from kaptain_zen.model.record import RunHandle
from kaptain_zen.platform.local.runs import Progress

__all__ = ["bench"]

CLIENT = """
import pathlib, sys, time
from kaptain_zen.model.ports import TrainRequest
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.trainer import LocalTrainer

home, warm, action = sys.argv[1:]
if __name__ == "__main__":
    trainer = LocalTrainer(LocalHome(pathlib.Path(home)), environment={}, warm_start=warm == "warm")
    handle = trainer.submit(TrainRequest.model_validate_json(sys.stdin.read()))
    print(handle.model_dump_json(), flush=True)
    if action == "wait":
        trainer.wait(handle)
    elif action == "stay":
        time.sleep(600)
"""


class Client:
    """Another process that submits a run."""

    def __init__(self, bench: Bench, request: TrainRequest, action: str, **options: Any) -> None:
        warm = "warm" if bench.warm else "exec"
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(bench.home.root), warm, action],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(request.model_dump_json())
        self.process.stdin.close()

    def handle(self) -> RunHandle:
        assert self.process.stdout is not None
        return RunHandle.model_validate_json(self.process.stdout.readline())

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()


WAITS_FOR_A_FILE = """
import os, time
print('ready')
while not os.path.exists('go'):
    time.sleep(0.01)
print('score=7')
"""
FOR_EVER = "import time\nprint('ready')\ntime.sleep(600)\n"


def test_a_run_outlives_its_killed_client(bench: Bench) -> None:
    client = Client(bench, bench.request(WAITS_FOR_A_FILE), "wait")
    handle = client.handle()
    bench.until(handle, "ready")
    client.end()
    assert bench.trainer.status(handle).state is RunState.RUNNING
    (bench.run_folder(handle.name).worker(0) / "go").touch()
    status, lines = bench.finish(handle)
    assert (status.state, lines) == (RunState.SUCCEEDED, ["ready", "score=7"])
    assert status.metrics["score"]["latest"] == 7


def test_a_run_whose_client_is_killed_at_once_still_starts(bench: Bench) -> None:
    # Warm, the imports are still being done at that time.
    client = Client(bench, bench.request("import sklearn.svm\nprint('score=7')"), "stay")
    handle = client.handle()
    client.end()
    status, lines = bench.finish(handle)
    assert (status.state, lines) == (RunState.SUCCEEDED, ["score=7"])


def test_nothing_stays_behind_when_a_client_goes(bench: Bench) -> None:
    mark = uuid.uuid4().hex

    def marked() -> list[int]:
        return [p.pid for p in psutil.process_iter() if _has_variable(p, "MARK", mark)]

    client = Client(
        bench, bench.request(WAITS_FOR_A_FILE), "wait", env={**os.environ, "MARK": mark}
    )
    handle = client.handle()
    bench.until(handle, "ready")
    # Client, supervisor and worker; warm, a server and a template as well.
    assert len(marked()) == (5 if bench.warm else 3)
    client.end()
    (bench.run_folder(handle.name).worker(0) / "go").touch()
    bench.finish(handle)
    eventually(lambda: not marked())


def _has_variable(process: psutil.Process, name: str, value: str) -> bool:
    try:
        return process.environ().get(name) == value
    except psutil.Error:
        return False


def test_an_interrupt_of_the_terminal_reaches_the_client_only(bench: Bench) -> None:
    client = Client(bench, bench.request(WAITS_FOR_A_FILE), "wait", process_group=0)
    handle = client.handle()
    bench.until(handle, "ready")
    os.killpg(client.process.pid, signal.SIGINT)
    assert client.process.wait(timeout=10) != 0
    assert client.process.stdout is not None
    client.process.stdout.close()
    (bench.run_folder(handle.name).worker(0) / "go").touch()
    assert bench.finish(handle)[0].state is RunState.SUCCEEDED


def test_two_clients_that_submit_one_name_get_one_run(bench: Bench) -> None:
    request = bench.request("print('once')", name="raced")
    clients = [Client(bench, request, "wait") for _ in range(4)]
    handles = {client.handle() for client in clients}
    assert len(handles) == 1
    for client in clients:
        assert client.process.wait(timeout=60) == 0
        assert client.process.stdout is not None
        client.process.stdout.close()
    assert bench.finish(handles.pop())[1] == ["once"]


def test_a_killed_supervisor_is_noticed_and_takes_its_workers_along(bench: Bench) -> None:
    handle = bench.submit(
        "import os, subprocess, time\nsubprocess.Popen(['sleep', '600'])\n"
        "print('ready', flush=True)\ntime.sleep(600)",
        spec=model("pytorch"),
        workers=2,
    )
    bench.until(handle, "worker-0\tready")
    bench.until(handle, "worker-1\tready")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(bench.trainer.wait, handle, timeout=30)
        time.sleep(0.05)
        killed = time.monotonic()
        os.kill(_supervisor(bench, handle), signal.SIGKILL)
        status = waiting.result(timeout=30)
        assert time.monotonic() - killed < 0.7
    assert status.state is RunState.FAILED
    assert "supervisor ended without a word" in status.reason
    assert status.ended_at is not None
    eventually(lambda: not at_work_in(bench.folder), seconds=5)
    assert bench.trainer.status(handle) == status
    bench.trainer.cancel(handle)
    assert bench.trainer.status(handle) == status


def test_workers_end_with_their_supervisor_though_nobody_looks(bench: Bench) -> None:
    handle = bench.submit(FOR_EVER, spec=model("pytorch"), workers=2)
    bench.until(handle, "worker-0\tready")
    bench.until(handle, "worker-1\tready")
    os.kill(_supervisor(bench, handle), signal.SIGKILL)
    eventually(lambda: not at_work_in(bench.folder), seconds=5)


def test_a_supervisor_that_hangs_does_not_keep_a_run_from_being_cancelled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaptain_zen.platform.local.trainer.GRACE", 0.5)
    monkeypatch.setattr("kaptain_zen.platform.local.trainer._LAST_WORD", 0.5)
    handle = bench.submit(FOR_EVER)
    bench.until(handle, "ready")
    os.kill(_supervisor(bench, handle), signal.SIGSTOP)
    bench.trainer.cancel(handle)
    assert bench.trainer.status(handle).state is RunState.CANCELLED
    eventually(lambda: not at_work_in(bench.folder), seconds=5)


def test_a_stopped_supervisor_stops_its_run(bench: Bench) -> None:
    handle = bench.submit(FOR_EVER)
    bench.until(handle, "ready")
    os.kill(_supervisor(bench, handle), signal.SIGTERM)
    status, _ = bench.finish(handle)
    assert (status.state, status.reason) == (RunState.CANCELLED, "Its supervisor got SIGTERM.")


def test_a_run_of_an_earlier_start_of_the_machine_has_failed(bench: Bench) -> None:
    status, _ = bench.run("print('x')")
    folder = bench.run_folder(status.handle.name)
    sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        progress = folder.progress()
        assert progress is not None
        # After a restart, a recorded id belongs to somebody else.
        folder.write_progress(
            Progress(
                supervisor=progress.supervisor,
                workers={"worker-0": type(progress.workers["worker-0"]).of(sleeper.pid)},
                boot="another",
            )
        )
        assert bench.trainer.status(status.handle).state is RunState.FAILED
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_run_that_was_never_started_is_said_to_have_failed(bench: Bench) -> None:
    """As when the client is killed between making a run's folder and starting its supervisor."""
    status, _ = bench.run("print('x')")
    folder = bench.run_folder(status.handle.name)
    (folder.path / "status.json").unlink()
    # The supervisor may need a moment to go.
    eventually(lambda: bench.trainer.status(status.handle).state is RunState.FAILED)
    assert "never started" in bench.trainer.status(status.handle).reason


def test_a_machine_without_inotify_is_followed_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaptain_zen.platform.local.watch._watch", lambda folder: None)
    assert bench.run("for i in range(3):\n    print(i)")[1] == ["0", "1", "2"]
    handle = bench.submit(FOR_EVER)
    bench.until(handle, "ready")
    bench.trainer.cancel(handle)
    assert bench.trainer.status(handle).state is RunState.CANCELLED


def test_a_supervisor_that_cannot_start_is_explained(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from kaptain_zen.exceptions import WorkloadDeploymentError

    monkeypatch.setattr("kaptain_zen.platform.local.launch.sys.executable", "/bin/false")
    with pytest.raises(WorkloadDeploymentError, match="/bin/false"):
        bench.submit("print('x')")
    assert [p.name for p in bench.home.runs.iterdir() if p.name[0] != "."] == []


def _supervisor(bench: Bench, handle: RunHandle) -> int:
    supervisor = bench.progress(handle.name).supervisor
    assert supervisor is not None
    return supervisor.pid
