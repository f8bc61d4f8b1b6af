"""Ctrl-C in the middle of a training step, in the pipeline's process and in a step operator's."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

TRAINING = """
    import time
    from pathlib import Path

    print("training begins", flush=True)
    Path("begun").touch()
    time.sleep(300)
"""
PIPELINE = """
    import sys
    from pathlib import Path

    from zenml import pipeline

    from kaptain_zen.model.spec import ModelSpec
    from kaptain_zen.steps import train_model

    spec = ModelSpec(
        id="dev/slow", name="slow", description="d", version="1", framework="sklearn",
        framework_version="1", main_file="train.py", image_name="i", base_image="b",
    )
    operator = sys.argv[1] if len(sys.argv) > 1 else None

    @pipeline(enable_cache=False)
    def slow():
        train_model.with_options(step_operator=operator)(spec)

    if __name__ == "__main__":
        slow()
"""


def processes_of(home: Path) -> list[list[str]]:
    """Command lines and folders of processes that have to do with a home, the ended left out."""
    found = []
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                words = [*process.cmdline(), process.cwd()]
                if process.status() != psutil.STATUS_ZOMBIE and any(
                    str(home) in word for word in words
                ):
                    found.append(words)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "train.py").write_text(textwrap.dedent(TRAINING))
    (folder / "run.py").write_text(textwrap.dedent(PIPELINE))
    return folder


@pytest.fixture
def start(
    work: Path, process_environment: Callable[..., dict[str, str]]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "run.py", *arguments],
                cwd=work,
                env=process_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize("where", ["", "_trainer"])
def test_ctrl_c_ends_the_training_and_leaves_nothing(
    where: str, local_stack: str, local_home: Path, start: Callable[..., Any]
) -> None:
    process = start(*([local_stack + where] if where else []))
    deadline = time.monotonic() + 120
    while not list(local_home.glob("runs/*/worker-0/begun")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert [path.name for path in (local_home / "runs").glob("[!.]*")] == []
    assert processes_of(local_home) == []
    assert not list((local_home / "models").rglob("trained"))
