"""Steps that run as processes of this machine: real pipelines, real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psutil
import pytest

from kaptain_zen.components.step_operators.step_runs import StepRuns
from kaptain_zen.exceptions import ModelValidationException, RunNotFoundError
from kaptain_zen.model.ports import RunState
from kaptain_zen.model.resources import Resources
from kaptain_zen.platform.local.home import LocalHome

PYTHON = sys.executable


def eventually(what: Callable[[], Any], *, timeout: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def runs_still(pid: int) -> bool:
    """Whether a process runs; a zombie has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_folders(home: Path) -> list[str]:
    return [path.name for path in (home / "runs").glob("[!.]*")] if home.exists() else []


@pytest.fixture
def runs(local_home: Path) -> StepRuns:
    return StepRuns(LocalHome(local_home))


def submit(runs: StepRuns, command: list[str], **more: Any) -> Any:
    step = uuid4()
    runs.submit(
        step,
        command,
        **{
            "cwd": Path.cwd(),
            "environment": dict(os.environ),
            "resources": Resources(),
            "labels": {},
            **more,
        },
    )
    return step


def test_a_command_runs_where_and_with_what_it_was_told(runs: StepRuns, tmp_path: Path) -> None:
    code = (
        "import os; print(os.getcwd(), os.environ['GIVEN'], "
        "'TRAINED_MODEL_UPLOAD_PATH' in os.environ)"
    )
    step = submit(
        runs, [PYTHON, "-c", code], cwd=tmp_path, environment={**os.environ, "GIVEN": "value"}
    )
    lines: list[str] = []
    status = runs.wait(step, on_log=lambda line: lines.append(line.text))
    assert status.state is RunState.SUCCEEDED
    assert lines == [f"{tmp_path} value False"]


def test_the_environment_is_on_no_disk_and_in_no_command_line(
    runs: StepRuns, local_home: Path
) -> None:
    secret = uuid4().hex
    step = submit(
        runs,
        [
            PYTHON,
            "-c",
            "import os, time; print(os.environ['STORE_TOKEN'], flush=True); time.sleep(60)",
        ],
        environment={**os.environ, "STORE_TOKEN": secret},
        secrets=["STORE_TOKEN"],
    )
    log = local_home / "runs" / f"step-{step}" / "log"
    assert eventually(lambda: log.exists() and log.read_text()) == "worker-0\t***\n"
    commands = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if secret in command]
    files = [path for path in local_home.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    runs.delete(step)
    assert run_folders(local_home) == []


def test_the_end_of_a_command_is_noticed_at_once(runs: StepRuns) -> None:
    step = submit(runs, [PYTHON, "-c", "import time; time.sleep(1.2)"])
    status = runs.wait(step)
    assert status.ended_at is not None
    assert (datetime.now(UTC) - status.ended_at).total_seconds() < 0.5


def test_what_a_step_deploys_outlives_it_and_nothing_else_does(
    runs: StepRuns, tmp_path: Path
) -> None:
    code = """
        import subprocess, sys
        for name, own in (("service", True), ("helper", False)):
            child = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=own
            )
            print(child.pid)
    """
    step = submit(runs, [PYTHON, "-c", textwrap.dedent(code)])
    lines: list[str] = []
    assert runs.wait(step, on_log=lambda line: lines.append(line.text)).state is RunState.SUCCEEDED
    service, helper = (int(line) for line in lines)
    assert runs_still(service)
    eventually(lambda: not runs_still(helper))
    psutil.Process(service).kill()


def test_a_program_that_there_is_not_is_refused_before_anything_is_started(
    runs: StepRuns, local_home: Path
) -> None:
    with pytest.raises(ModelValidationException, match=r"'no-such-program'.*not found"):
        submit(runs, ["no-such-program"])
    assert run_folders(local_home) == []


def pipeline_of(command: list[str], operator: str, **settings: Any) -> Callable[[], Any]:
    from zenml import pipeline
    from zenml.steps import CommandStep

    @pipeline(enable_cache=False)
    def commands() -> None:
        CommandStep(command, step_operator=operator, name="command", settings=settings)()

    return commands


def test_a_command_step_runs_on_the_operator_that_it_names(
    local_stack: str, local_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pipeline_of(["python", "-c", "print('six times', 7)"], f"{local_stack}_tuner")()
    step = run.steps["command"]
    assert step.status.value == "completed"
    assert step.run_metadata["kaptain_step_run"]["name"] == f"step-{step.id}"
    assert "[command] six times 7" in "".join(capsys.readouterr())
    assert run_folders(local_home) == []


def test_a_command_step_that_fails_says_why_and_stays_to_be_looked_at(
    local_stack: str, local_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commands = pipeline_of(
        ["python", "-c", "raise SystemExit('no data')"], f"{local_stack}_trainer"
    )
    with pytest.raises(RuntimeError, match="command"):
        commands()
    assert "no data" in caplog.text
    assert len(run_folders(local_home)) == 1


def test_a_timeout_is_a_setting_of_the_named_operator(
    local_stack: str, caplog: pytest.LogCaptureFixture
) -> None:
    operator = f"{local_stack}_tuner"
    commands = pipeline_of(
        ["python", "-c", "import time; time.sleep(60)"],
        operator,
        **{f"step_operator:{operator}": {"timeout": 1.0}},
    )
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="command"):
        commands()
    assert time.monotonic() - began < 20
    assert "Step command failed" in caplog.text


def test_a_client_that_is_interrupted_while_it_submits_leaves_no_run(
    local_stack: str, local_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaptain_zen.components.step_operators import base

    seen: list[list[str]] = []

    def interrupt(*_: Any, **__: Any) -> None:
        seen.append(run_folders(local_home))
        raise KeyboardInterrupt

    monkeypatch.setattr(base.publish_utils, "publish_step_run_metadata", interrupt)
    commands = pipeline_of(
        ["python", "-c", "import time; time.sleep(60)"], f"{local_stack}_trainer"
    )
    with pytest.raises(KeyboardInterrupt):
        commands()
    assert [len(folders) for folders in seen] == [1]
    assert run_folders(local_home) == []


@pytest.mark.usefixtures("local_stack")
def test_an_unknown_step_is_never_called_failed() -> None:
    from zenml.client import Client

    operator = Client().active_stack.step_operator
    assert operator is not None
    unknown: Any = SimpleNamespace(
        id=uuid4(), name="unknown", config=SimpleNamespace(step_operator=True, command=None)
    )
    with pytest.raises((RunNotFoundError, KeyError)):
        operator.get_status(unknown)
    operator.cancel(unknown)
    operator.cleanup_step_submission(unknown)


def test_a_question_about_a_step_of_another_operator_is_passed_on(
    local_stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zenml.client import Client
    from zenml.enums import ExecutionStatus

    operators = Client().active_stack.step_operators
    trainer, tuner = operators[f"{local_stack}_trainer"], operators[f"{local_stack}_tuner"]
    asked: list[tuple[str, object]] = []

    def answer(method: str) -> Callable[[Any, Any], ExecutionStatus]:
        def record(self: Any, step_run: Any) -> ExecutionStatus:
            asked.append((self.name, method))
            return ExecutionStatus.RUNNING

        return record

    for method in ("get_status", "cancel", "cleanup_step_submission", "wait"):
        original = getattr(type(tuner), method)
        monkeypatch.setattr(type(tuner), method, answer(method), raising=True)
        step: Any = SimpleNamespace(id=uuid4(), config=SimpleNamespace(step_operator=tuner.name))
        original(trainer, step)
    assert asked == [
        (tuner.name, method)
        for method in ("get_status", "cancel", "cleanup_step_submission", "wait")
    ]


SCRIPT = """
    import json, os, sys, time
    from pathlib import Path
    from zenml import pipeline, step

    TRAINER, TUNER = sys.argv[1] + "_trainer", sys.argv[1] + "_tuner"

    @step(step_operator=TRAINER, enable_cache=False)
    def facts(number: int) -> dict:
        return {"pid": os.getpid(), "cwd": os.getcwd(), "number": number}

    @step(step_operator=TRAINER, enable_cache=False)
    def slow() -> None:
        Path("slow.pid").write_text(str(os.getpid()))
        print("slow begins", flush=True)
        while not Path("go").exists():
            time.sleep(0.05)
        Path("slow.done").touch()

    @step(step_operator=TUNER, enable_cache=False)
    def on_the_tuner() -> int:
        return 42

    @pipeline(enable_cache=False)
    def waiting():
        slow()

    @pipeline(dynamic=True, enable_cache=False)
    def concurrent():
        futures = [on_the_tuner.submit(), facts.submit(7)]
        values = [future.load() for future in futures]
        Path("values.json").write_text(json.dumps(values))

    if __name__ == "__main__":
        {"waiting": waiting, "concurrent": concurrent}[sys.argv[2]]()
"""


@pytest.fixture
def start(
    local_stack: str,
    tmp_path: Path,
    process_environment: Callable[..., dict[str, str]],
) -> Any:
    """Starts a pipeline of the script in a process of its own, in a folder of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "script.py").write_text(
        textwrap.dedent(SCRIPT).replace("sys.argv[1]", repr(local_stack))
    )
    started: list[subprocess.Popen[str]] = []

    def start(pipeline: str) -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [PYTHON, "script.py", local_stack, pipeline],
            cwd=folder,
            env=process_environment(ZENML_DYNAMIC_PIPELINE_MONITORING_INTERVAL="0.5"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process, folder

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def finished(process: subprocess.Popen[str], *, timeout: float = 120) -> str:
    output, _ = process.communicate(timeout=timeout)
    return output


def test_steps_at_the_same_time_on_two_operators_run_in_processes_of_their_own(start: Any) -> None:
    process, folder = start("concurrent")
    output = finished(process)
    assert process.returncode == 0, output
    on_the_tuner, facts = json.loads((folder / "values.json").read_text())
    assert (on_the_tuner, facts["number"], facts["cwd"]) == (42, 7, str(folder))
    assert facts["pid"] != process.pid


def test_ctrl_c_leaves_no_process_and_no_folder(start: Any, local_home: Path) -> None:
    process, folder = start("waiting")
    pid = int(eventually(lambda: _text(folder / "slow.pid")))
    process.send_signal(signal.SIGINT)
    output = finished(process)
    assert process.returncode != 0, output
    assert not runs_still(pid)
    assert run_folders(local_home) == []
    assert not _processes_of(local_home)


def test_a_step_goes_on_when_its_client_is_killed(start: Any, local_home: Path) -> None:
    from zenml.client import Client

    process, folder = start("waiting")
    eventually(lambda: _text(folder / "slow.pid"))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (folder / "go").touch()
    eventually((folder / "slow.done").exists)
    step = Client().list_run_steps(name="slow", sort_by="desc:created").items[0]
    eventually(lambda: Client().get_run_step(step.id).status.value == "completed")
    eventually(lambda: StepRuns(LocalHome(local_home)).status(step.id).state is RunState.SUCCEEDED)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _processes_of(home: Path) -> list[list[str]]:
    commands = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    return [command for command in commands if any(str(home) in part for part in command)]
