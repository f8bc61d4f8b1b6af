"""What the person in front of the terminal sees: one line per step with its time, and tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Writes lines as they happen.

    Args:
        stream: Where to; standard error unless given. None is nowhere.
    """

    def __init__(self, stream: TextIO | None = sys.stderr) -> None:
        self._stream = stream

    def note(self, text: str) -> None:
        """Say something that has no duration."""
        self._line(f"{'':>9}  {text}")

    @contextmanager
    def step(self, done: str, *, starting: str = "") -> Iterator[None]:
        """Say that something is done, and how long it took, if it ends well.

        Args:
            done: What is said then.
            starting: What is said at its beginning, for what takes long.
        """
        if starting:
            self.note(f"{starting} ...")
        before = time.monotonic()
        yield
        self._line(f"{time.monotonic() - before:7.2f} s  {done}")

    def _line(self, text: str) -> None:
        if self._stream:
            self._stream.write(text + "\n")
            self._stream.flush()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines with aligned columns; the first row is the heading.

    Every row has as many cells as the first.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
