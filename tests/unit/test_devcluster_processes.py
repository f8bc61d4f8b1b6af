"""Processes of devcluster: recorded before they run, stopped, never confused; locks and ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from devcluster.errors import DevclusterError
from devcluster.locks import locked
from devcluster.ports import free_port, is_free
from devcluster.processes import ProcessRef, spawn
from tests.processes import eventually, mentioning

_ENVIRONMENT = {"PATH": os.defpath}


def _start(folder: Path, *arguments: str) -> ProcessRef:
    recorded: list[ProcessRef] = []
    ref = spawn(
        arguments,
        log=folder / "log",
        folder=folder,
        environment=_ENVIRONMENT,
        record=recorded.append,
    )
    assert recorded == [ref]
    return ref


def test_a_process_runs_in_its_folder_with_its_environment_and_writes_its_log(
    tmp_path: Path,
) -> None:
    script = "pwd; env; cat; umask; echo broken >&2"
    ref = _start(tmp_path, "/bin/sh", "-c", script)
    assert ref.wait(10)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == str(tmp_path)
    assert lines[-2:] == ["0077", "broken"]
    names = {line.partition("=")[0] for line in lines[1:-2]}
    assert names <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}


def test_arguments_arrive_as_they_are(tmp_path: Path) -> None:
    odd = ["", "a b", "$HOME", "*", "-n", "'", '"', "line\nbreak"]
    ref = _start(tmp_path, sys.executable, "-c", "import sys; print(sys.argv[1:])", *odd)
    assert ref.wait(10)
    assert (tmp_path / "log").read_text() == f"{odd}\n"


def test_it_is_stopped_by_sigterm_or_else_by_sigkill(tmp_path: Path) -> None:
    ref = _start(tmp_path, "/bin/sleep", "1000")
    assert ref.alive
    began = time.monotonic()
    ref.stop(grace=10)
    assert time.monotonic() - began < 5
    assert not ref.alive

    stubborn = _start(
        tmp_path, "/bin/sh", "-c", "trap '' TERM; echo set; while :; do sleep 1; done"
    )
    eventually(lambda: (tmp_path / "log").read_text() == "set\n")
    began = time.monotonic()
    stubborn.stop(grace=0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert not stubborn.alive
    eventually(lambda: not mentioning(tmp_path))


def test_a_process_that_ends_by_itself_is_not_alive_even_before_its_parent_knows(
    tmp_path: Path,
) -> None:
    ref = _start(tmp_path, "/bin/true")
    assert ref.wait(10)
    assert not ref.alive
    ref.stop(grace=1)


def test_waiting_ends_with_the_deadline(tmp_path: Path) -> None:
    ref = _start(tmp_path, "/bin/sleep", "1000")
    try:
        began = time.monotonic()
        assert not ref.wait(0.2)
        assert 0.2 <= time.monotonic() - began < 5
    finally:
        ref.stop(grace=0)


def test_another_process_of_the_same_id_is_not_touched(tmp_path: Path) -> None:
    ref = _start(tmp_path, "/bin/sleep", "1000")
    try:
        for other in (replace(ref, started=ref.started - 1), replace(ref, boot="another")):
            assert not other.alive
            other.stop(grace=0)
            other.signal(signal.SIGKILL)
        assert ref.alive
    finally:
        ref.stop(grace=0)


def test_nothing_runs_that_its_starter_could_not_record(tmp_path: Path) -> None:
    """A starter that is killed between making a process and recording it."""
    script = f"""
import os, signal
from pathlib import Path
from devcluster.processes import spawn
spawn(
    ["/bin/sh", "-c", "echo ran > ran; sleep 1000"],
    log=Path("log"),
    folder=Path({str(tmp_path)!r}),
    environment={{}},
    record=lambda ref: os.kill(os.getpid(), signal.SIGKILL),
)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, check=False, timeout=30
    )
    assert killed.returncode == -signal.SIGKILL
    eventually(lambda: not mentioning(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_lock_is_waited_for_and_the_wait_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    told: list[str] = []
    said = f"process {os.getpid()} is at work on"
    with locked(path), pytest.raises(DevclusterError, match=said):  # noqa: SIM117 - one at a time
        with locked(path, seconds=0.3, waiting=told.append):
            pass
    assert told == [f"waiting for process {os.getpid()}, which is at work on {tmp_path}"]
    with locked(path):
        pass


def test_a_lock_that_its_holder_deletes_still_excludes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside = []
    overlapped = []

    def work() -> None:
        for _ in range(20):
            with locked(path, seconds=30):
                inside.append(1)
                if len(inside) > 1:
                    overlapped.append(1)
                inside.pop()
                path.unlink()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not overlapped
    assert not path.exists()


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from devcluster.locks import locked
with locked(Path({str(tmp_path / "lock")!r})):
    print("held", flush=True)
    time.sleep(1000)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(DevclusterError, match=f"process {holder.pid}"),
            locked(tmp_path / "lock"),
        ):
            pass
        holder.kill()
        with locked(tmp_path / "lock", seconds=10):
            pass


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    port = free_port()
    assert is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
    assert is_free(port)
    assert free_port(frozenset({port})) != port
