"""What workers print: bytes of any kind, cut into lines, without secrets."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from urllib.parse import quote

MAX_LINE = 64 * 1024
"""Bytes of a line at most; what is longer becomes several lines."""
_END = re.compile(rb"\r\n|\n|\r")
_CONTINUATION = range(0x80, 0xC0)
"""Bytes that continue a character of UTF-8."""
_LONG_SECRET = 12
_HIDDEN = b"***"


class LineSplitter:
    """Cuts a stream into lines at LF, CR LF and CR.

    A lone CR ends a line, because that is how progress bars overwrite themselves; it never makes
    an empty one.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came.

        Args:
            data: Any bytes.

        Returns:
            The lines that are complete now, without their ends.
        """
        data = self._rest + data
        lines: list[bytes] = []
        start = 0
        for end in _END.finditer(data):
            if end.end() == len(data) and end.group() == b"\r":
                break  # the second half of an end of line may still come
            line = data[start : end.start()]
            start = end.end()
            if line or end.group() != b"\r":
                lines.extend(_pieces(line))
        rest = data[start:]
        if len(rest) > MAX_LINE:
            *long, rest = _pieces(rest)
            lines.extend(long)
        self._rest = rest
        return lines

    def close(self) -> list[bytes]:
        """The stream has ended.

        Returns:
            What came after the last end of line, if anything.
        """
        rest, self._rest = self._rest.removesuffix(b"\r"), b""
        return list(_pieces(rest)) if rest else []


def _pieces(line: bytes) -> Iterable[bytes]:
    """Cut a line that is too long, not inside a character of UTF-8."""
    while len(line) > MAX_LINE:
        cut = MAX_LINE
        while cut > MAX_LINE - 4 and line[cut] in _CONTINUATION:
            cut -= 1
        yield line[:cut]
        line = line[cut:]
    yield line


class Redactor:
    """Replaces secrets in what is about to be written down.

    A short secret is replaced only where it stands alone, so that a key such as `test` does not
    spoil a metric named `test_accuracy`.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        """Learn what is secret.

        Args:
            secrets: Values; as they are used in URLs they are secret as well.
        """
        forms = {
            form.encode("utf-8", "surrogateescape"): len(secret) < _LONG_SECRET
            for secret in secrets
            if secret.strip()
            for form in (secret, *(quote(secret, s, errors="surrogateescape") for s in ("", "/")))
        }
        # The longest first: one secret may be the beginning of another.
        patterns = [
            rb"(?<![\w-])" + re.escape(form) + rb"(?![\w-])" if short else re.escape(form)
            for form, short in sorted(forms.items(), key=lambda item: -len(item[0]))
        ]
        self._pattern = re.compile(b"|".join(patterns)) if patterns else None

    def __call__(self, line: bytes) -> bytes:
        """The line without secrets."""
        return self._pattern.sub(_HIDDEN, line) if self._pattern else line


class Tail:
    """The last lines that a worker printed."""

    def __init__(self, lines: int = 20) -> None:
        self._lines: deque[str] = deque(maxlen=lines)

    def add(self, line: bytes) -> None:
        """Take a line."""
        if line.strip():
            self._lines.append(line[:500].decode("utf-8", "replace"))

    def text(self) -> str:
        """The lines, from the last traceback on if there is one among them."""
        lines = list(self._lines)
        for index in range(len(lines) - 1, -1, -1):
            if lines[index].startswith("Traceback (most recent call last)"):
                return "\n".join(lines[index:])
        return "\n".join(lines[-10:])
