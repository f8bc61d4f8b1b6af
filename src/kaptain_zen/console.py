"""What is shown while something happens: log lines, the progress of a search, a service's table.

Log lines and progress go to standard error, so that standard output stays free for results; the
table of a service is such a result. Everything that is written ends with its line.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from kaptain_zen import envs

if TYPE_CHECKING:
    from kaptain_zen.model.ports import LogLine, ServiceProgress, TuneStatus

LOGGER = "kaptain_zen"
_TICK, _WIDTH = 1.0, 120
_COLUMNS = (("NAME", 20), ("READY", 10), ("PREV", 8), ("LATEST", 8), ("URL", 0))
_setup = threading.Lock()


def configure_logging() -> logging.Logger:
    """Show this package's log lines, unless the application has its own idea of logging.

    A handler is attached to the package's own logger, once, if neither that logger nor the root
    logger has one. When the application configures the root logger later on, that takes over.

    Returns:
        The package's logger.
    """
    logger = logging.getLogger(LOGGER)
    with _setup:
        if not logger.handlers and not logging.getLogger().handlers:
            handler = _Handler()
            handler.setFormatter(_Formatter())
            handler.addFilter(lambda _: not logging.getLogger().handlers)
            logger.addHandler(handler)
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.INFO)
    return logger


class _Formatter(logging.Formatter):
    """`<time> kaptain-zen[INFO]: message`; the format of the time can be changed at any moment."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s kaptain-zen[%(levelname)s]: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - the signature is logging's
        moment = time.strftime(envs.LOG_TIMEFORMAT, time.localtime(record.created))
        return f"{moment},{int(record.msecs):03d}"


class _Handler(logging.Handler):
    """Writes to whatever standard error is at the moment, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Looked up every time: a notebook or a test replaces standard error now and then.
            _write(sys.stderr, self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)


def print_line(line: LogLine) -> None:
    """Show a line that a worker printed, above a progress bar if there is one."""
    _write(sys.stderr, f"[{line.source}] {line.text}\n")


@contextmanager
def search_bar(objective: str, *, stream: TextIO | None = None) -> Iterator[SearchProgress]:
    """Show the progress of a search: a bar in terminals and notebooks, else a line per change.

    Args:
        objective: The main metric.
        stream: Where to; standard error if None.

    Yields:
        What wants to know of every change.
    """
    stream = stream or sys.stderr
    if _in_notebook() or stream.isatty():
        bar = _Bar(objective, stream)
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield _Lines(objective, stream)


@contextmanager
def watch_table(*, stream: TextIO | None = None) -> Iterator[ServiceTable]:
    """Show how a service gets ready: a header, then a row at every change.

    Args:
        stream: Where to; standard output if None.

    Yields:
        What wants to know of every change.
    """
    yield ServiceTable(stream)


class SearchProgress(Protocol):
    """Shows the progress of a search."""

    def update(self, status: TuneStatus) -> None:
        """Show a search's status."""
        ...


class _Bar:
    """A progress bar that is redrawn; it appears with the first status, which knows its length."""

    def __init__(self, objective: str, stream: TextIO) -> None:
        self._objective = objective
        self._stream = stream
        self._began = time.time()
        self._bar: Any = None
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def update(self, status: TuneStatus) -> None:
        if self._bar is None:
            self._bar = self._make(status.total)
            self._ticker.start()
        self._bar.n = len(status.trials)
        self._bar.set_postfix_str(_figures(status, self._objective), refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        self._over.set()
        if self._bar is not None:
            try:
                self._ticker.join()
            finally:
                self._bar.close()

    def _make(self, total: int) -> Any:
        if _in_notebook() and find_spec("ipywidgets"):
            from tqdm.notebook import tqdm
        else:
            from tqdm import tqdm
        bar = tqdm(
            desc="Progress",
            file=self._stream,
            total=total,
            # A terminal that does not know its size would get a bar of no width at all.
            ncols=None if _columns(self._stream) else _WIDTH,
            dynamic_ncols=bool(_columns(self._stream)),
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
            "[time: {elapsed}{postfix}]",
        )
        bar.start_t = self._began
        return bar

    def _tick(self) -> None:
        # A trial may take long; the clock shows that something still goes on.
        while not self._over.wait(_TICK):
            self._bar.refresh()


class _Lines:
    """A line for every change, where a bar cannot be redrawn."""

    def __init__(self, objective: str, stream: TextIO) -> None:
        self._objective = objective
        self._stream = stream
        self._began = time.monotonic()
        self._shown = ("", "")

    def update(self, status: TuneStatus) -> None:
        shown = (f"{len(status.trials)}/{status.total}", _figures(status, self._objective))
        if shown == self._shown:
            return
        self._shown = shown
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        clock = f"{minutes:02d}:{seconds:02d}"
        _write(self._stream, f"Progress: {shown[0]} [time: {clock}, {shown[1]}]\n")


class ServiceTable:
    """Shows how a service gets ready."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._shown: tuple[str, ...] = ()
        self._widths = [width for _, width in _COLUMNS]

    def update(self, progress: ServiceProgress) -> None:
        """Show a row, unless it is the same as the one before."""
        row = (progress.name, progress.ready, progress.prev, progress.latest, progress.url)
        if row == self._shown:
            return
        rows: list[tuple[str, ...]] = [row]
        if not self._shown:
            self._widths[0] = max(self._widths[0], len(progress.name))
            rows.insert(0, tuple(title for title, _ in _COLUMNS))
        self._shown = row
        _write(self._stream or sys.stdout, "".join(map(self._aligned, rows)))

    def _aligned(self, cells: tuple[str, ...]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        return "  ".join(padded).rstrip() + "\n"


def _figures(status: TuneStatus, objective: str) -> str:
    metric = status.metrics.get(objective)
    found = "-" if metric is None else f"{metric.latest:.4g}"
    return (
        f"{objective}: {found}, trials running: {status.running}, pending: {status.pending}, "
        f"failed: {status.count('failed')}, killed: {status.count('killed')}"
    )


def _write(stream: TextIO, text: str) -> None:
    """Write whole lines in one piece, so that an interrupt cannot leave half a line."""
    # Nobody can have drawn a bar without this.
    tqdm = sys.modules.get("tqdm")
    without_bars = tqdm.tqdm.external_write_mode(file=stream) if tqdm else nullcontext()
    # What is shown is a courtesy: a reader that went away must not end a training.
    with suppress(OSError, ValueError), without_bars:
        stream.write(text)
        stream.flush()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
