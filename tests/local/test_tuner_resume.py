"""Searches whose client dies: killed at any moment, interrupted, or replaced by another one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.tuner_support import Laptop
from tests.processes import eventually, mentioning

from kaptain_zen.hyperparameter.domains import Double, Integer
from kaptain_zen.model.ports import RunState, TuneStatus
from kaptain_zen.model.record import RunHandle

ROOT = Path(__file__).parents[2]


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    laptop = Laptop(tmp_path)
    yield laptop
    eventually(lambda: not mentioning(tmp_path), seconds=10)


def client(laptop: Laptop, handle: RunHandle, body: str) -> subprocess.Popen[str]:
    """Another process with the same platform; it has `tuner`, `handle`, `laptop`."""
    code = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from kaptain_zen.model.record import RunHandle
        from tests.local.tuner_support import Laptop
        laptop = Laptop(Path(sys.argv[1]))
        tuner, trainer, store = laptop.tuner, laptop.trainer, laptop.store
        handle = RunHandle.model_validate_json(sys.argv[2])
        """
    ) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(laptop.root), handle.model_dump_json()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def each_ran_once(laptop: Laptop, trials: int) -> None:
    assert sorted(laptop.noted("start")) == sorted(f"tiny-tune-{n}" for n in range(trials))


def test_a_killed_client_loses_nothing_and_starts_nothing_twice(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=6, kwargs={"seconds": "0.4"}))
    process = client(laptop, handle, "tuner.wait(handle)")
    eventually(lambda: laptop.tuner.status(handle).trials)
    killed(process)
    left = laptop.tuner.status(handle)
    assert left.state is RunState.RUNNING
    assert "Nobody waits" in left.reason

    seen: list[TuneStatus] = []
    status = laptop.tuner.wait(handle, on_progress=seen.append)
    assert len(seen[0].trials) >= len(left.trials)
    assert status.state is RunState.SUCCEEDED
    assert [t.number for t in status.trials] == list(range(6))
    assert all(trial in status.trials for trial in left.trials)
    each_ran_once(laptop, 6)
    assert laptop.stored() == {"tuned/1/model.txt": str(status.hyperparameters["x"])}
    assert laptop.runs() == []


@pytest.mark.parametrize("seed", range(3))
def test_clients_killed_at_any_moment(laptop: Laptop, seed: int) -> None:
    moments = random.Random(seed)
    handle = laptop.tuner.submit(laptop.request(trials=8, kwargs={"seconds": "0.1"}))
    for _ in range(4):
        process = client(laptop, handle, "tuner.wait(handle)")
        time.sleep(moments.uniform(0.5, 1.6))
        killed(process)
    status = laptop.tuner.wait(handle, timeout=60)
    assert status.state is RunState.SUCCEEDED, status.reason
    assert [t.number for t in status.trials] == list(range(8))
    assert {t.state for t in status.trials} == {"succeeded"}
    each_ran_once(laptop, 8)
    assert laptop.stored() == {"tuned/1/model.txt": str(status.hyperparameters["x"])}
    assert laptop.runs() == []


MORTAL = """
calls = 0
def mortal(what, name):
    inner = getattr(what, name)
    def outer(*args, **kwargs):
        global calls
        mine = calls = calls + 1
        if mine == {deadly} and not {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        result = inner(*args, **kwargs)
        if mine == {deadly} and {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return outer
class Mortal:
    def __init__(self, what, *names):
        self.what = what
        for name in names:
            setattr(self, name, mortal(what, name))
    def __getattr__(self, name):
        return getattr(self.what, name)
tuner._store = Mortal(store, "list", "copy", "delete")
tuner._trainer = Mortal(trainer, "delete")
print(tuner.wait(handle).state)
"""


# list, copy, delete of the trials' models, delete of two runs
@pytest.mark.parametrize("deadly", range(1, 6))
@pytest.mark.parametrize("after", [False, True])
def test_a_client_killed_while_it_tidies_up(laptop: Laptop, deadly: int, after: bool) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=2))
    process = client(laptop, handle, MORTAL.format(deadly=deadly, after=after))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    status = laptop.tuner.wait(handle)
    assert status.state is RunState.SUCCEEDED, status.reason
    each_ran_once(laptop, 2)
    assert laptop.stored() == {"tuned/1/model.txt": str(status.hyperparameters["x"])}
    assert laptop.runs() == []


def test_a_client_killed_while_it_starts_a_trial(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=2))
    body = """
    def hook(event, _):
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    tuner.wait(handle)
    """
    process = client(laptop, handle, body)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    assert laptop.runs() != []
    status = laptop.tuner.wait(handle)
    assert [t.state for t in status.trials] == ["succeeded", "succeeded"]
    each_ran_once(laptop, 2)


def test_a_client_killed_while_it_asks_for_a_trial(laptop: Laptop) -> None:
    domains = {"x": Double(0, 1), "n": Integer(1, 3)}
    handle = laptop.tuner.submit(laptop.request(trials=2, hyperparameters=domains))
    body = """
    import optuna
    optuna.Trial.suggest_int = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    tuner.wait(handle)
    """
    process = client(laptop, handle, body)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    status = laptop.tuner.wait(handle)
    assert [t.state for t in status.trials] == ["succeeded", "succeeded"]
    assert all(list(t.parameters) == ["x", "n"] for t in status.trials)
    each_ran_once(laptop, 2)


def test_a_search_killed_in_its_last_moment_can_still_be_cancelled(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=2))
    process = client(laptop, handle, MORTAL.format(deadly=2, after=True))
    process.communicate(timeout=60)
    assert len(laptop.stored()) == 3
    laptop.tuner.cancel(handle)
    assert laptop.tuner.status(handle).state is RunState.CANCELLED
    assert laptop.stored() == {}


def test_a_line_that_was_not_written_to_its_end_is_forgotten(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=4, kwargs={"seconds": "0.3"}))
    process = client(laptop, handle, "tuner.wait(handle)")
    eventually(lambda: len(laptop.noted("end")) >= 2)
    killed(process)
    with (laptop.home.runs / "tiny-tune" / "journal.log").open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"x","trial')
    status = laptop.tuner.wait(handle)
    assert status.state is RunState.SUCCEEDED
    each_ran_once(laptop, 4)


def test_one_of_two_who_wait_takes_over_when_the_other_dies(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=6, kwargs={"seconds": "0.4"}))
    first = client(laptop, handle, "tuner.wait(handle)")
    eventually(lambda: len(laptop.noted("start")) >= 1)
    second = client(
        laptop,
        handle,
        """
        seen = []
        def show(status):
            seen.append(status)
            print(status.state.value, len(status.trials), flush=True)
        status = tuner.wait(handle, on_progress=show)
        """,
    )
    eventually(lambda: len(laptop.noted("end")) >= 2)
    assert second.poll() is None
    killed(first)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    lines = output.splitlines()
    assert lines[-1] == "succeeded 6"
    counts = [int(line.split()[1]) for line in lines]
    assert counts == sorted(counts)
    each_ran_once(laptop, 6)
    assert laptop.tuner.status(handle).state is RunState.SUCCEEDED


def test_who_only_watches_sees_the_end(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(trials=3, kwargs={"seconds": "0.3"}))
    process = client(laptop, handle, "tuner.wait(handle)")
    eventually(lambda: laptop.noted("start"))
    seen: list[TuneStatus] = []
    status = laptop.tuner.wait(handle, on_progress=seen.append)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert status.state is RunState.SUCCEEDED
    assert seen[-1] == status
    each_ran_once(laptop, 3)


def test_cancel_ends_a_search_that_another_process_drives(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(kwargs={"hang": "True"}))
    process = client(laptop, handle, "print(tuner.wait(handle).state.value)")
    eventually(lambda: len(laptop.noted("start")) == 2)
    started = time.monotonic()
    laptop.tuner.cancel(handle)
    assert time.monotonic() - started < 10
    output, _ = process.communicate(timeout=10)
    assert output.strip() == "cancelled"
    assert laptop.stored() == {}
    assert not mentioning(laptop.root)


def test_an_interrupt_is_passed_on_and_cancelling_then_takes_seconds(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(kwargs={"hang": "True"}))
    process = client(
        laptop,
        handle,
        """
        import time
        try:
            tuner.wait(handle)
        except KeyboardInterrupt:
            started = time.monotonic()
            tuner.delete(handle)
            print("deleted", time.monotonic() - started < 10)
        """,
    )
    eventually(lambda: len(laptop.noted("start")) == 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=15)
    assert output.strip() == "deleted True"
    assert process.returncode == 0
    assert not mentioning(laptop.root)
    assert laptop.runs() == []
    assert laptop.stored() == {}


def test_an_interrupt_alone_ends_the_client_promptly(laptop: Laptop) -> None:
    handle = laptop.tuner.submit(laptop.request(kwargs={"hang": "True"}))
    process = client(laptop, handle, "tuner.wait(handle)")
    eventually(lambda: len(laptop.noted("start")) == 2)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=15)
    assert time.monotonic() - started < 5
    assert output.rstrip().endswith("KeyboardInterrupt")
    assert len(mentioning(laptop.root)) > 0
    laptop.tuner.delete(handle)
    assert not mentioning(laptop.root)
