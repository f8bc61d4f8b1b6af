"""What is shown while something happens."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pytest

from kaptain_zen import envs
from kaptain_zen.console import configure_logging, print_line, search_bar, watch_table
from kaptain_zen.model.metrics import Metric
from kaptain_zen.model.ports import LogLine, RunState, ServiceProgress, TuneStatus
from kaptain_zen.model.record import RunHandle, Trial


def status(ended: int, running: int = 0, **changes: Any) -> TuneStatus:
    trials = tuple(
        Trial(number=n, name=f"t-{n}", state="succeeded", parameters={}) for n in range(ended)
    )
    values: dict[str, Any] = {
        "handle": RunHandle(backend="local", kind="tune", namespace="/x", name="t"),
        "state": RunState.RUNNING,
        "trials": trials,
        "total": 12,
        "running": running,
        "pending": 12 - ended - running,
        "metrics": {"accuracy": Metric.first(0.96664)} if ended else {},
        **changes,
    }
    return TuneStatus(**values)


class Terminal:
    """A terminal, and what was written to it."""

    def __init__(self, columns: int = 120) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        self._data = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._ours, 4096):
                self._data += data

    def close(self) -> str:
        self.stream.close()
        self._reader.join(5)
        os.close(self._ours)
        return self._data.decode()


@contextmanager
def fresh() -> Iterator[logging.Logger]:
    """The package's logger and the root logger as in a fresh interpreter."""
    ours, root = logging.getLogger("kaptain_zen"), logging.getLogger()
    before = ours.handlers[:], ours.level, root.handlers[:]
    ours.handlers[:], root.handlers[:] = [], []
    ours.setLevel(logging.NOTSET)
    try:
        yield ours
    finally:
        ours.handlers[:], root.handlers[:] = before[0], before[2]
        ours.setLevel(before[1])


def test_a_log_line_has_time_name_level_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    with fresh():
        configure_logging()
        logging.getLogger("kaptain_zen.platform").info("Model %s is ready.", "dev/mnist")
        output = capsys.readouterr()
        assert output.out == ""
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\d [\d:]{8},\d{3} kaptain-zen\[INFO\]: Model dev/mnist is ready\.\n",
            output.err,
        )


def test_the_format_of_the_time_can_be_changed_at_any_moment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh() as logger:
        monkeypatch.setenv("KAPTAIN_SDK_LOG_TIMEFORMAT", "")
        configure_logging()
        envs.LOG_TIMEFORMAT = "at %H"
        logger.warning("now")
        assert re.fullmatch(r"at \d\d,\d{3} kaptain-zen\[WARNING\]: now\n", capsys.readouterr().err)


def test_logging_is_set_up_once(capsys: pytest.CaptureFixture[str]) -> None:
    with fresh() as logger:
        threads = [threading.Thread(target=configure_logging) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        logger.info("once")
        assert capsys.readouterr().err.count("once") == 1
        assert logging.getLogger().handlers == []


def test_an_application_that_configured_logging_keeps_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with fresh() as logger:
        theirs = io.StringIO()
        logging.getLogger().addHandler(logging.StreamHandler(theirs))
        configure_logging()
        assert logger.handlers == []
        assert logger.level == logging.NOTSET
        logger.warning("hello")
        assert theirs.getvalue() == "hello\n"
        assert capsys.readouterr().err == ""


def test_an_application_may_configure_logging_later(capsys: pytest.CaptureFixture[str]) -> None:
    with fresh() as logger:
        configure_logging()
        theirs = io.StringIO()
        logging.getLogger().addHandler(logging.StreamHandler(theirs))
        logger.info("hello")
        assert theirs.getvalue() == "hello\n"
        assert capsys.readouterr().err == ""


def test_a_level_that_was_chosen_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with fresh() as logger:
        logger.setLevel(logging.ERROR)
        configure_logging()
        logger.info("quiet")
        assert capsys.readouterr().err == ""


def test_importing_attaches_nothing_and_loads_nothing_heavy() -> None:
    code = """
    import logging, sys
    import kaptain_zen.console
    assert logging.getLogger("kaptain_zen").handlers == []
    assert logging.getLogger().handlers == []
    assert not {"tqdm", "pydantic", "rich", "IPython"} & set(sys.modules), sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_without_a_terminal_every_change_is_a_line() -> None:
    stream = io.StringIO()
    with search_bar("accuracy", stream=stream) as bar:
        bar.update(status(0, 2))
        bar.update(status(0, 2))
        bar.update(status(1, 2))
        bar.update(status(12))
    figures = "trials running: {}, pending: {}, failed: 0, killed: 0]"
    assert stream.getvalue().splitlines() == [
        f"Progress: 0/12 [time: 00:00, accuracy: -, {figures.format(2, 10)}",
        f"Progress: 1/12 [time: 00:00, accuracy: 0.9666, {figures.format(2, 9)}",
        f"Progress: 12/12 [time: 00:00, accuracy: 0.9666, {figures.format(0, 0)}",
    ]


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    with search_bar("accuracy", stream=terminal.stream) as bar:
        bar.update(status(3, 2))
        bar.update(status(12))
    output = terminal.close()
    assert "\x1b[A" not in output
    last = output.rstrip().split("\r")[-1]
    assert re.fullmatch(
        r"Progress: 100%\|█+\| 12/12 \[time: 00:00, accuracy: 0\.9666, trials running: 0, "
        r"pending: 0, failed: 0, killed: 0\]",
        last,
    )
    assert len(last) <= 120
    assert " 25%|" in output
    assert output.endswith("\n")


def test_a_terminal_that_does_not_know_its_width_gets_a_bar() -> None:
    terminal = Terminal(columns=0)
    with search_bar("accuracy", stream=terminal.stream) as bar:
        bar.update(status(12))
    assert "12/12 [time: 00:00, accuracy: 0.9666" in terminal.close()


def test_a_bars_clock_goes_on_while_nothing_changes() -> None:
    terminal = Terminal()
    with search_bar("accuracy", stream=terminal.stream) as bar:
        bar.update(status(0, 2))
        time.sleep(2.2)
    assert "[time: 00:01, accuracy" in terminal.close()


def test_a_bar_ends_with_its_line_when_it_is_interrupted() -> None:
    terminal = Terminal()
    threads = threading.active_count()
    with (
        pytest.raises(KeyboardInterrupt),
        search_bar("accuracy", stream=terminal.stream) as bar,
    ):
        bar.update(status(3, 2))
        raise KeyboardInterrupt
    assert threading.active_count() == threads
    assert terminal.close().endswith("killed: 0]\r\n")


def test_other_output_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh() as logger:
        configure_logging()
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal.stream)
        with search_bar("accuracy") as bar:
            bar.update(status(3, 2))
            logger.info("a message")
            print_line(LogLine(source="t-1/worker-0", text="epoch=1"))
            bar.update(status(4, 2))
        monkeypatch.undo()
        shown = [line.split("\r")[-1] for line in terminal.close().split("\r\n")]
        assert shown[0].endswith("kaptain-zen[INFO]: a message")
        assert shown[1] == "[t-1/worker-0] epoch=1"
        assert shown[2].startswith("Progress:  33%")


def test_a_table_has_a_header_once_and_a_row_per_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def row(ready: Literal["True", "False", "Unknown"], latest: str, url: str) -> ServiceProgress:
        return ServiceProgress(name="dev-mnist", ready=ready, prev="0", latest=latest, url=url)

    with watch_table() as table:
        table.update(row("Unknown", "", ""))
        table.update(row("Unknown", "100", ""))
        table.update(row("Unknown", "100", ""))
        table.update(row("True", "100", "http://127.0.0.1:9000/dev-mnist"))
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.splitlines() == [
        "NAME                  READY       PREV      LATEST    URL",
        "dev-mnist             Unknown     0",
        "dev-mnist             Unknown     0         100",
        "dev-mnist             True        0         100       http://127.0.0.1:9000/dev-mnist",
    ]


def test_a_table_makes_room_for_a_long_name() -> None:
    stream = io.StringIO()
    name = "n" * 40
    with watch_table(stream=stream) as table:
        table.update(ServiceProgress(name=name, ready="True"))
    header, row = stream.getvalue().splitlines()
    assert header.index("READY") == row.index("True") == 42


def test_a_reader_that_went_away_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with search_bar("accuracy", stream=stream) as bar:
        bar.update(status(1))
    with watch_table(stream=stream) as table:
        table.update(ServiceProgress(name="x", ready="True"))
    with suppress(BrokenPipeError):
        stream.close()


def test_a_stream_that_cannot_show_a_letter_ends_nothing() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with watch_table(stream=stream) as table:
        table.update(ServiceProgress(name="größe", ready="True"))
