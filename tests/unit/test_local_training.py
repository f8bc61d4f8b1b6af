"""The pure parts of local trainings: arguments, variables, rendezvous, reasons, plans on disk."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.platform.local import limits, reasons, wire
from kaptain_zen.platform.local.command import (
    script_arguments,
    secret_variables,
    training_environment,
    worker_environment,
)
from kaptain_zen.platform.local.pids import alive, kill_session, started
from kaptain_zen.platform.local.rendezvous import Reservations, variables
from kaptain_zen.platform.local.runs import Plan, Process, Progress, RunFolder

PLAN = Plan(
    name="run",
    uid="1",
    submitted_at="2024-01-01T00:00:00+00:00",
    python=sys.executable,
    script="training.py",
    arguments=("a",),
    import_path="/model",
    workers=2,
    rendezvous="pytorch",
    upload_uri="s3://bucket/model",
)


def test_arguments_come_in_the_order_of_the_contract() -> None:
    assert script_arguments(
        ("train", "--fast"),
        {"gamma": 0.1, "--c": 2, "-n": True, "name": "x y"},
        {"key": "v", "e": ""},
    ) == (
        *("train", "--fast"),
        *("--gamma", "0.1", "--c", "2", "-n", "True", "--name", "x y"),
        *("--key=v", "--e="),
    )


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True),
        st.one_of(st.floats(allow_nan=False, min_value=0), st.integers(min_value=0)),
        max_size=4,
    ),
    st.dictionaries(st.from_regex(r"[A-Z][A-Z_]{0,8}", fullmatch=True), st.text(), max_size=4),
)
def test_argparse_reads_back_what_was_given(
    hyperparameters: dict[str, float], kwargs: dict[str, str]
) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name, value in hyperparameters.items():
        parser.add_argument(f"--{name}", type=type(value))
    for name in kwargs:
        parser.add_argument(f"--{name}")
    parsed = parser.parse_args(script_arguments((), hyperparameters, kwargs))
    assert vars(parsed) == {**hyperparameters, **kwargs}


def test_a_training_inherits_no_rendezvous_of_its_client() -> None:
    client = {
        "RANK": "3",
        "MASTER_PORT": "1",
        "TF_CONFIG": "{}",
        "HOME": "/h",
        "OMP_NUM_THREADS": "8",
    }
    found = training_environment(client, {"AWS_REGION": "r"}, {"OMP_NUM_THREADS": "1"})
    assert found == {
        "HOME": "/h",
        "AWS_REGION": "r",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def test_a_worker_may_import_from_the_model_s_folder_first() -> None:
    found = worker_environment({"PYTHONPATH": "/other"}, PLAN, 1, [20000, 20001])
    assert found["PYTHONPATH"] == os.pathsep.join(["/model", "/other"])
    assert found["TRAINED_MODEL_UPLOAD_PATH"] == "s3://bucket/model"
    assert found["RANK"] == "1"
    assert worker_environment({}, PLAN, 0, [1, 2])["PYTHONPATH"] == "/model"


def test_pytorch_finds_the_master_by_variables() -> None:
    assert variables("pytorch", 1, [20000, 20001]) == {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "20000",
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
    }
    assert variables("none", 0, [0]) == {}


def test_tensorflow_gets_the_same_cluster_everywhere() -> None:
    configs = [json.loads(variables("tensorflow", r, [20000, 20001])["TF_CONFIG"]) for r in (0, 1)]
    assert [c["task"] for c in configs] == [{"type": "worker", "index": r} for r in (0, 1)]
    expected = {"worker": ["127.0.0.1:20000", "127.0.0.1:20001"]}
    assert [c["cluster"] for c in configs] == [expected, expected]


def test_only_what_says_where_the_storage_is_is_no_secret() -> None:
    assert secret_variables(
        {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_REGION": "r",
            "AWS_ENDPOINT_URL_S3": "http://host:9000",
            "KAPTAIN_S3_FORCE_PATH_STYLE": "true",
            "OTHER_TOKEN": "t",
        }
    ) == ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OTHER_TOKEN")
    assert "AWS_ENDPOINT_URL_S3" in secret_variables({"AWS_ENDPOINT_URL_S3": "http://u:p@host"})


def test_reservations_of_two_processes_do_not_overlap(tmp_path: Path) -> None:
    file = tmp_path / "reservations"
    mine = Reservations(file)
    cpus = [*mine.cpus(2, [0, 1, 2, 3]), *mine.cpus(1, [0, 1, 2, 3])]
    ports = mine.ports(3)
    assert len(set(ports)) == 3
    # Locks belong to a process, so the other one is one.
    script = (
        "import sys, pathlib\nfrom kaptain_zen.platform.local.rendezvous import Reservations\n"
        "r = Reservations(pathlib.Path(sys.argv[1])); print(*r.cpus(1, [0, 1, 2, 3]))\n"
        f"print([r._take((1 << 20) + port) for port in {ports}], len(r.ports(2)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    other, taken = done.stdout.splitlines()
    assert sorted([*cpus, int(other)]) == [0, 1, 2, 3]
    assert taken == "[False, False, False] 2"
    os.close(mine.descriptor)


def test_a_port_in_use_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr("kaptain_zen.platform.local.rendezvous._FIRST_PORT", port)
        monkeypatch.setattr("kaptain_zen.platform.local.rendezvous._LAST_PORT", port)
        reservations = Reservations(tmp_path / "reservations")
        with pytest.raises(OSError, match="no 1 free ports"):
            reservations.ports(1)
        os.close(reservations.descriptor)


def test_more_cpus_than_there_are_are_all_of_them(tmp_path: Path) -> None:
    reservations = Reservations(tmp_path / "reservations")
    assert sorted(reservations.cpus(8, [3, 5])) == [3, 5]
    assert reservations.cpus(1, []) == []
    os.close(reservations.descriptor)


@pytest.mark.parametrize(("cores", "cpus"), [(None, None), (0.0, 1), (0.5, 1), (1.0, 1), (1.2, 2)])
def test_cores_come_to_whole_cpus(cores: float | None, cpus: int | None) -> None:
    assert limits.cpus_of(cores) == cpus


def test_threads_follow_the_cpus() -> None:
    assert limits.thread_variables(None) == {}
    assert set(limits.thread_variables(3).values()) == {"3"}


@pytest.mark.parametrize(
    ("code", "tail", "memory", "expected"),
    [
        (3, "no data", None, "worker-1 ended with exit code 3. Its last lines:\nno data"),
        (1, "", None, "worker-1 ended with exit code 1. It printed nothing."),
        (-9, "", None, "worker-1 was killed by SIGKILL (the machine may have run out of memory)."),
        (-34, "", None, "worker-1 was killed by SIGRTMIN"),
        (-40, "", None, "worker-1 was killed by signal 40"),
        (1, "MemoryError", None, "It ran out of memory."),
        (1, "MemoryError", 10, "Its memory limit is 10 bytes"),
        (-11, "", 10, "Its memory limit is 10 bytes"),
    ],
)
def test_reasons_name_the_worker_and_what_to_do(
    code: int, tail: str, memory: int | None, expected: str
) -> None:
    assert expected in reasons.worker_failed("worker-1", code, tail, memory)


def test_plans_and_progress_come_back_from_disk(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.plan() is None
    assert folder.progress() is None
    folder.write_plan(PLAN)
    assert folder.plan() == PLAN
    progress = Progress(
        supervisor=Process(1, 2.5),
        workers={"worker-0": Process(3, 4.0)},
        exit_codes={"worker-0": -9},
    )
    folder.write_progress(progress)
    assert folder.progress() == progress
    folder.write_progress(progress.ended("failed", "why"))
    found = folder.progress()
    assert found is not None
    assert (found.final, found.reason, found.workers) == (True, "why", progress.workers)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"kind": "train"}', '{"kind": "tune"}'])
def test_what_is_no_plan_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert RunFolder(tmp_path).plan() is None


def test_what_is_half_written_is_no_progress(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "runn')
    assert RunFolder(tmp_path).progress() is None


def test_a_run_has_one_owner_and_one_supervisor(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    lock = folder.make_lock()
    assert folder.owns(lock)
    assert folder.take_over() is None
    os.close(lock)
    taken = folder.take_over()
    assert taken is not None
    assert folder.take_over() is None
    os.close(taken)
    assert folder.claim()
    assert not folder.claim()
    folder.lock.unlink()
    assert folder.take_over() is None


def test_a_process_is_not_taken_for_a_later_one_of_its_id() -> None:
    sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        since = started(sleeper.pid)
        assert alive(sleeper.pid, since)
        assert not alive(sleeper.pid, since - 1)
        kill_session(sleeper.pid, since=since - 1)
        assert sleeper.poll() is None
        kill_session(sleeper.pid, since=since)
        assert sleeper.wait(timeout=10) == -signal.SIGKILL
        assert not alive(sleeper.pid, since)
        with pytest.raises(ProcessLookupError):
            started(sleeper.pid)
    finally:
        sleeper.kill()
        sleeper.wait()


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers())))
def test_messages_arrive_with_their_descriptor(message: dict[str, object]) -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with ours, theirs:
        wire.send(ours, message, writing)
        wire.send(ours, [message])
        received = wire.receive(theirs)
        assert received is not None
        assert received[0] == message
        assert received[1] is not None
        assert os.path.sameopenfile(received[1], writing)
        assert not os.get_inheritable(received[1])
        os.close(received[1])
        assert wire.receive(theirs) == ([message], None)
        ours.close()
        assert wire.receive(theirs) is None
    os.close(reading)
    os.close(writing)


def test_half_a_message_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"\0\0\0\x10{")
        assert wire.receive(theirs) is None
