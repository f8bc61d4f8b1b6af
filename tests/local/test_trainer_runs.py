"""What a training promises to whoever submits it, by either way to start it."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.local.training_support import Bench, at_work_in, bench, bench_at, model
from tests.processes import eventually

from kaptain_zen.exceptions import (
    ConfigurationError,
    ModelValidationException,
    RunNotFoundError,
    WorkloadDeploymentError,
    WorkloadTimeoutError,
)
from kaptain_zen.model.ports import LogLine, RunState
from kaptain_zen.model.resources import Resources
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.starting import Starter
from kaptain_zen.platform.local.trainer import LocalTrainer

__all__ = ["bench"]
FOR_EVER = "import time\nprint('ready')\ntime.sleep(600)\n"


def test_a_run_reports_its_life(bench: Bench) -> None:
    status, lines = bench.run(
        "print('loss=0.5'); print('loss=0.25 accuracy=0.9'); print('loss = 0.3')",
        annotation='{"a": 1}',
    )
    assert lines == ["loss=0.5", "loss=0.25 accuracy=0.9", "loss = 0.3"]
    assert status.state is RunState.SUCCEEDED
    assert status.reason == ""
    assert status.exit_codes == {"worker-0": 0}
    assert status.annotation == '{"a": 1}'
    assert status.metrics["loss"].model_dump() == {"latest": 0.3, "min": 0.25, "max": 0.5}
    assert status.metrics["accuracy"]["latest"] == 0.9
    assert status.submitted_at
    assert status.started_at
    assert status.ended_at
    assert status.submitted_at <= status.started_at <= status.ended_at
    assert status.handle.namespace == str(bench.home.root)
    assert bench.trainer.status(status.handle) == status
    assert bench.trainer.runs() == [status]


def test_metrics_and_state_are_seen_while_a_run_goes_on(bench: Bench) -> None:
    handle = bench.submit("print('loss=1'); " + FOR_EVER.replace("\n", "; "))
    bench.until(handle, "ready")
    status = bench.trainer.status(handle)
    assert status.state is RunState.RUNNING
    assert status.metrics["loss"]["latest"] == 1
    assert status.started_at
    assert not status.ended_at


def test_the_model_s_files_are_there_and_its_folder_can_be_imported_from(bench: Bench) -> None:
    (bench.files / "data").mkdir()
    (bench.files / "data" / "table.csv").write_text("1,2")
    (bench.files / "helper.py").write_text("VALUE = 'helped'")
    (bench.files / "unlisted.py").write_text("VALUE = 'found'")
    (bench.files / "requirements.txt").write_text("numpy")
    spec = model(
        main_file="src/training.py",
        extra_files=["helper.py", "data"],
        requirements="requirements.txt",
    )
    bench.files.joinpath("training.py").write_text("")
    status, lines = bench.run(
        "import unlisted, helper, os\n"
        "print(helper.VALUE, unlisted.VALUE, open('data/table.csv').read())\n"
        "print(sorted(os.listdir()), os.path.dirname(helper.__file__) == os.getcwd())\n"
        "open('data/table.csv', 'w').write('changed')",
        spec=spec,
    )
    assert status.state is RunState.SUCCEEDED, status.reason
    assert lines == [
        "helped found 1,2",
        "['data', 'helper.py', 'requirements.txt', 'src'] False",
    ]
    assert (bench.files / "data" / "table.csv").read_text() == "1,2"


@pytest.mark.parametrize(
    "properties",
    [
        {"main_file": "nowhere.py"},
        {"extra_files": ["nowhere.csv"]},
        {"requirements": "nowhere.txt"},
    ],
)
def test_a_missing_file_is_named_and_nothing_is_made(
    tmp_path: Path, properties: dict[str, object]
) -> None:
    with bench_at(tmp_path) as bench:
        request = bench.request("").model_copy(update={"spec": model(**properties)})
        with pytest.raises(ModelValidationException, match=r"nowhere.*base_dir: .*does not exist"):
            bench.trainer.submit(request)
        assert not bench.home.root.exists()


def test_a_failing_script_is_explained(bench: Bench) -> None:
    status, _ = bench.run(
        "import sys\nprint('reading')\nprint('no such table', file=sys.stderr)\nsys.exit(3)"
    )
    assert status.state is RunState.FAILED
    assert status.exit_codes == {"worker-0": 3}
    assert "worker-0 ended with exit code 3" in status.reason
    assert "no such table" in status.reason


def test_a_traceback_is_the_reason_whatever_is_printed_before(bench: Bench) -> None:
    status, _ = bench.run("for i in range(9):\n    print(i)\nraise ValueError('bad column')")
    assert "ValueError: bad column" in status.reason
    assert status.reason.count("\n") == 4  # and nothing of what stands above it


def test_a_signal_is_named(bench: Bench) -> None:
    status, _ = bench.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert status.exit_codes == {"worker-0": -9}
    assert "killed by SIGKILL (the machine may have run out of memory)" in status.reason


def test_secrets_are_neither_in_the_log_nor_on_disk_nor_in_arguments(tmp_path: Path) -> None:
    secret, key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "test"
    environment = {
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_REGION": "us-east-1",
    }
    for warm in (False, True):
        with bench_at(tmp_path / str(warm), warm=warm, **environment) as bench:
            handle = bench.submit(
                "import os, time, sys\n"
                "s = os.environ['AWS_SECRET_ACCESS_KEY']\n"
                "print('secret', s, len(s), f'x{s}y', os.environ['AWS_ACCESS_KEY_ID'])\n"
                "print('test_accuracy=0.5 us-east-1')\n"
                "print('ready')\n"
                "while not os.path.exists('go'): time.sleep(0.01)\n"
                "sys.exit(f'cannot log in with {s}')"
            )
            bench.until(handle, "ready")
            for process in psutil.process_iter():
                if process.pid != os.getpid():
                    try:
                        assert not any(secret in word for word in process.cmdline())
                    except psutil.Error:
                        continue
            (bench.run_folder(handle.name).worker(0) / "go").touch()
            status, lines = bench.finish(handle)
            assert lines[:2] == [
                f"secret *** {len(secret)} x***y ***",
                "test_accuracy=0.5 us-east-1",
            ]
            assert "cannot log in with ***" in status.reason
            assert status.metrics["test_accuracy"]["latest"] == 0.5
            for path in bench.folder.rglob("*"):
                assert not path.is_file() or secret not in path.read_text()
            assert secret not in repr(bench.trainer)


def test_a_run_that_takes_too_long_is_stopped(bench: Bench) -> None:
    status, _ = bench.run(FOR_EVER, timeout=0.7)
    assert status.state is RunState.FAILED
    assert "did not end within its 0.7 s" in status.reason
    assert "`timeout`" in status.reason
    assert status.exit_codes == {"worker-0": -signal.SIGTERM}


def test_waiting_gives_up_and_the_run_goes_on(bench: Bench) -> None:
    handle = bench.submit(FOR_EVER)
    started = time.monotonic()
    with pytest.raises(WorkloadTimeoutError, match="goes on"):
        bench.trainer.wait(handle, timeout=0.5)
    assert 0.5 <= time.monotonic() - started < 3
    bench.until(handle, "ready")
    assert bench.trainer.status(handle).state is RunState.RUNNING


def test_the_end_and_each_line_are_seen_at_once(bench: Bench) -> None:
    handle = bench.submit(
        "import time\ntime.sleep(1)\nfor i in range(5):\n    print(time.time()); time.sleep(0.1)\n"
    )
    seen: list[tuple[float, float]] = []
    status = bench.trainer.wait(
        handle, timeout=60, on_log=lambda line: seen.append((time.time(), float(line.text)))
    )
    over = time.time()
    assert len(seen) == 5
    # Other programs run on this machine, so a single late line proves nothing.
    delays = sorted(heard - said for heard, said in seen)
    assert delays[2] < 0.3
    assert status.ended_at is not None
    assert over - status.ended_at.timestamp() < 0.5


def test_every_line_is_heard_once_by_everyone_who_waits(bench: Bench) -> None:
    handle = bench.submit("for i in range(3000):\n    print(i, 'x' * (i % 200))")

    def listen(_: int) -> list[LogLine]:
        lines: list[LogLine] = []
        bench.trainer.wait(handle, timeout=60, on_log=lines.append)
        return lines

    with ThreadPoolExecutor(3) as threads:
        heard = list(threads.map(listen, range(3)))
    heard.append(listen(0))  # and by one who comes late
    expected = [
        LogLine(source=f"{handle.name}/worker-0", text=f"{i} {'x' * (i % 200)}")
        for i in range(3000)
    ]
    assert all(lines == expected for lines in heard)


def test_progress_bars_long_lines_and_strange_bytes_become_lines(bench: Bench) -> None:
    status, lines = bench.run(
        r"""
import sys, time
out = sys.stdout.buffer
for part in (b'\r10%', b'\r20%\n', b'dos\r\n', b'\n', b'half', b' and half\n', b'caf\xc3',
             b'\xa9\n'):
    out.write(part); time.sleep(0.02)
out.write(b'\xff\xfe\0 bytes\n' + b'y' * 200_000 + b'\nlast=1')
"""
    )
    assert lines[:6] == ["10%", "20%", "dos", "", "half and half", "café"]
    assert lines[6] == "\ufffd\ufffd\0 bytes"
    assert "".join(lines[7:-1]) == "y" * 200_000
    assert status.metrics["last"]["latest"] == 1


def test_submitting_a_name_again_finds_the_run(bench: Bench) -> None:
    request = bench.request("print('once')", name="again")
    with ThreadPoolExecutor(8) as threads:
        handles = list(threads.map(lambda _: bench.trainer.submit(request), range(8)))
    assert len(set(handles)) == 1
    _, lines = bench.finish(handles[0])
    assert lines == ["once"]
    assert bench.trainer.submit(request) == handles[0]
    bench.trainer.delete(handles[0])
    assert bench.trainer.submit(request).uid != handles[0].uid


def test_runs_are_found_by_handle_only_while_they_exist(bench: Bench) -> None:
    request = bench.request("print('x')", name="short")
    old = bench.trainer.submit(request)
    bench.trainer.wait(old, timeout=30)
    bench.trainer.delete(old)
    new = bench.trainer.submit(request)
    for call in (bench.trainer.status, bench.trainer.wait, bench.trainer.cancel):
        with pytest.raises(RunNotFoundError, match="short"):
            call(old)
    bench.trainer.delete(old)  # nothing happens
    assert bench.trainer.wait(new, timeout=30).state is RunState.SUCCEEDED
    assert bench.trainer.wait(new.model_copy(update={"uid": ""})).state is RunState.SUCCEEDED
    with pytest.raises(RunNotFoundError):
        bench.trainer.status(new.model_copy(update={"kind": "tune"}))


def test_a_deleted_run_ends_every_wait(bench: Bench) -> None:
    handle = bench.submit(FOR_EVER)
    bench.until(handle, "ready")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(bench.trainer.wait, handle, timeout=30)
        time.sleep(0.2)
        bench.trainer.delete(handle)
        # It saw either the end of the run or that it is gone.
        with suppress(RunNotFoundError):
            assert waiting.result(timeout=10).state is RunState.CANCELLED
    assert not bench.run_folder(handle.name).path.exists()


def test_a_wait_ends_when_the_run_s_folder_vanishes(bench: Bench) -> None:
    handle = bench.submit(FOR_EVER)
    bench.until(handle, "ready")
    path = bench.run_folder(handle.name).path
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(bench.trainer.wait, handle, timeout=30)
        time.sleep(0.2)
        path.rename(path.with_name("elsewhere"))
        with pytest.raises(RunNotFoundError):
            waiting.result(timeout=10)
    path.with_name("elsewhere").rename(path)


def test_a_cancelled_run_is_over_within_seconds(bench: Bench) -> None:
    handle = bench.submit(FOR_EVER)
    bench.until(handle, "ready")
    started = time.monotonic()
    bench.trainer.cancel(handle)
    assert time.monotonic() - started < 3
    status = bench.trainer.status(handle)
    assert status.state is RunState.CANCELLED
    assert status.exit_codes == {"worker-0": -signal.SIGTERM}
    eventually(lambda: not at_work_in(bench.folder), seconds=3)
    bench.trainer.cancel(handle)
    assert bench.trainer.status(handle) == status


def test_a_run_that_is_cancelled_at_once_never_ends_otherwise(bench: Bench) -> None:
    handles = [bench.submit(FOR_EVER) for _ in range(6)]
    for handle in handles:
        bench.trainer.cancel(handle)
    assert {bench.trainer.status(h).state for h in handles} == {RunState.CANCELLED}
    eventually(lambda: not at_work_in(bench.folder), seconds=10)


def test_cancelling_what_has_ended_changes_nothing(bench: Bench) -> None:
    status, _ = bench.run("print('done')")
    bench.trainer.cancel(status.handle)
    assert bench.trainer.status(status.handle) == status


def test_a_script_may_clean_up_when_it_is_stopped(bench: Bench) -> None:
    handle = bench.submit(
        "import signal, sys, time\n"
        "def stop(*_):\n    print('saved a checkpoint'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\nprint('ready')\ntime.sleep(600)"
    )
    bench.until(handle, "ready")
    bench.trainer.cancel(handle)
    status, lines = bench.finish(handle)
    assert status.state is RunState.CANCELLED
    assert lines[-1] == "saved a checkpoint"


def test_a_script_that_will_not_stop_is_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = bench.submit(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready')\nwhile True: time.sleep(1)"
    )
    bench.until(handle, "ready")
    started = time.monotonic()
    bench.trainer.cancel(handle)
    assert 4 < time.monotonic() - started < 9
    status = bench.trainer.status(handle)
    assert (status.state, status.exit_codes) == (RunState.CANCELLED, {"worker-0": -9})


def test_nothing_that_a_worker_started_outlives_it(bench: Bench) -> None:
    status, _ = bench.run(
        """
import os, subprocess, sys
subprocess.Popen(['sleep', '600'])
subprocess.Popen(['sleep', '600'], process_group=0, stdout=subprocess.DEVNULL)
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execvp('sleep', ['sleep', '600'])
    os._exit(0)
os.wait()
print('leaves')
"""
    )
    assert status.state is RunState.SUCCEEDED
    assert at_work_in(bench.folder) == []


def test_output_of_children_is_the_worker_s(bench: Bench) -> None:
    _, lines = bench.run("import subprocess\nsubprocess.run(['echo', 'from a child'])")
    assert lines == ["from a child"]


def test_a_worker_that_closes_its_output_is_still_waited_for(bench: Bench) -> None:
    status, _ = bench.run("import os, time\nos.close(1); os.close(2)\ntime.sleep(0.5)\nos._exit(4)")
    assert status.exit_codes == {"worker-0": 4}


def test_memory_is_limited(bench: Bench) -> None:
    status, _ = bench.run(
        "print('starts')\nx = bytearray(400_000_000)\nprint('never')",
        resources=Resources(memory_limit="300M"),
    )
    assert status.state is RunState.FAILED
    assert "MemoryError" in status.reason
    assert "memory limit is 300000000 bytes" in status.reason
    status, lines = bench.run(
        "x = bytearray(200_000_000)\nprint('fits')", resources=Resources(memory_limit="300M")
    )
    assert lines == ["fits"]


def test_threads_and_cpus_are_limited(bench: Bench) -> None:
    _, lines = bench.run(
        "import os\nprint(len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'],"
        " os.environ['OPENBLAS_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])",
        resources=Resources(cpu_limit="0.5"),
    )
    assert lines == ["1 1 1 1"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_runs_of_one_cpu_share_out_the_cpus(bench: Bench) -> None:
    script = (
        "import os, time\nprint(*os.sched_getaffinity(0), flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.01)"
    )
    handles = [bench.submit(script, resources=Resources(cpu_limit="1")) for _ in range(2)]
    for handle in handles:
        bench.until(handle, "\n")
    for handle in handles:
        (bench.run_folder(handle.name).worker(0) / "go").touch()
    assert len({bench.finish(handle)[1][0] for handle in handles}) == 2


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_gpus_that_are_not_there_are_refused(bench: Bench) -> None:
    with pytest.raises(WorkloadDeploymentError, match=r"asks for 1 GPU.* has 0 NVIDIA"):
        bench.submit("", resources=Resources(gpu_limit=1))
    assert not bench.home.root.exists()


def test_frameworks_that_train_alone_get_one_worker(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="kaptain_zen"):
        status, lines = bench.run(
            "import os\n"
            "print([n for n in ('RANK', 'MASTER_PORT', 'TF_CONFIG') if n in os.environ])",
            workers=3,
        )
    assert "one worker instead of 3" in caplog.text
    assert lines == ["[]"]
    assert status.exit_codes == {"worker-0": 0}


MEET = """
import os, socket, time
rank, size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
place = (os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']))
if rank == 0:
    server = socket.create_server(place)
    met = [server.accept()[0].recv(10).decode() for _ in range(size - 1)]
    print('met', sorted(met), 'sum=%d' % sum(map(int, met)))
else:
    while True:
        try:
            socket.create_connection(place).sendall(str(rank).encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
print(rank, size, os.environ['LOCAL_RANK'], os.environ['LOCAL_WORLD_SIZE'], os.getcwd()[-1])
open('result', 'w').write(str(rank))
"""


def test_workers_of_pytorch_find_each_other(bench: Bench) -> None:
    handle = bench.submit(MEET, spec=model("pytorch"), workers=3)
    heard: list[LogLine] = []
    status = bench.trainer.wait(handle, timeout=60, on_log=heard.append)
    assert status.state is RunState.SUCCEEDED, status.reason
    assert status.exit_codes == {f"worker-{rank}": 0 for rank in range(3)}
    # Metrics are the first worker's.
    assert status.metrics["sum"]["latest"] == 3
    by_worker = {
        rank: [line.text for line in heard if line.source == f"{handle.name}/worker-{rank}"]
        for rank in range(3)
    }
    assert by_worker == {
        0: ["met ['1', '2'] sum=3", "0 3 0 3 0"],
        1: ["1 3 1 3 1"],
        2: ["2 3 2 3 2"],
    }


def test_workers_of_tensorflow_get_a_cluster(bench: Bench) -> None:
    handle = bench.submit(
        "import os; print(os.environ['TF_CONFIG'])", spec=model("tensorflow"), workers=2
    )
    _, lines = bench.finish(handle)
    configs = [json.loads(line) for line in lines]
    assert sorted(c["task"]["index"] for c in configs) == [0, 1]
    assert {c["task"]["type"] for c in configs} == {"worker"}
    assert configs[0]["cluster"] == configs[1]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 2


def test_trainings_at_the_same_time_have_ports_of_their_own(bench: Bench) -> None:
    handles = [bench.submit(MEET, spec=model("pytorch"), workers=2) for _ in range(4)]
    for handle in handles:
        status, _ = bench.finish(handle)
        assert status.state is RunState.SUCCEEDED, status.reason


def test_one_failing_worker_stops_the_others(bench: Bench) -> None:
    handle = bench.submit(
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1':\n    time.sleep(0.2); sys.exit('worker 1 lost its data')\n"
        "time.sleep(600)",
        spec=model("pytorch"),
        workers=3,
    )
    status, _ = bench.finish(handle)
    assert status.state is RunState.FAILED
    assert status.exit_codes == {"worker-0": -15, "worker-1": 1, "worker-2": -15}
    assert status.reason.startswith("worker-1 ended with exit code 1")
    assert "lost its data" in status.reason
    eventually(lambda: not at_work_in(bench.folder), seconds=3)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "x" * 201, "a\0"])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with bench_at(tmp_path) as bench:
        with pytest.raises(ModelValidationException, match="name of a run"):
            bench.submit("", name=name)
        assert not bench.home.root.exists()


def test_arguments_that_no_process_can_have_are_refused(tmp_path: Path) -> None:
    with bench_at(tmp_path) as bench:
        with pytest.raises(ModelValidationException, match="NUL"):
            bench.submit("", hyperparameters={"text": "a\0b"})
        assert not bench.home.root.exists()


def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trainer = LocalTrainer(LocalHome(tmp_path / "file" / "home"), environment={})
    (tmp_path / "training.py").write_text("")
    request = Bench(tmp_path / "bench", warm=False).request("")
    with pytest.raises(ConfigurationError, match="KAPTAIN_ZEN_HOME"):
        trainer.submit(request)


def test_a_name_that_something_else_has_is_refused(bench: Bench) -> None:
    (bench.home.runs / "search").mkdir(parents=True)
    (bench.home.runs / "search" / "search.json").write_text("{}")
    with pytest.raises(ModelValidationException, match="is no training"):
        bench.submit("", name="search")
    assert [path.name for path in bench.home.runs.iterdir()] == ["search"]
    assert bench.trainer.runs() == []
    (bench.home.runs / "search" / "search.json").unlink()
    (bench.home.runs / "search").rmdir()


def test_what_a_killed_client_left_in_the_making_is_swept_away(bench: Bench) -> None:
    status, _ = bench.run("")
    for name in (".new-1", ".trash-1"):
        (bench.home.runs / name).mkdir()
        (bench.home.runs / name / "lock").touch()
        os.utime(bench.home.runs / name, (0, 0))
    (bench.home.runs / ".new-2").mkdir()  # somebody is at it
    bench.trainer.delete(status.handle)
    assert sorted(path.name for path in bench.home.runs.iterdir()) == [".new-2", ".reservations"]


@pytest.mark.parametrize("after_it_started", [False, True])
def test_an_interrupted_submission_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, after_it_started: bool
) -> None:
    start = Starter.start

    def interrupted(*args: object, **options: object) -> None:
        if after_it_started:
            start(*args, **options)  # type: ignore[arg-type] - passed on as it came
        raise KeyboardInterrupt

    monkeypatch.setattr(Starter, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.submit(FOR_EVER)
    assert [path.name for path in bench.home.runs.iterdir() if path.name[0] != "."] == []
    eventually(lambda: not at_work_in(bench.folder))


def test_waiting_in_threads_leaves_no_descriptors(bench: Bench) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    bench.run("")
    before = count()
    for _ in range(3):
        status, _ = bench.run("print('x')")
        bench.trainer.delete(status.handle)
    assert count() == before
    assert not [t for t in threading.enumerate() if "trial" in t.name]
