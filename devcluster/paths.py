"""Where things are kept."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
STATE_ROOT = PACKAGE.parent / ".devcluster"
DEFAULT_STATE = STATE_ROOT / "default"


def cache_folder() -> Path:
    """What is built once per user: `kaptain-zen-devcluster` in the XDG cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of XDG has relative paths ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"  # noqa: PTH117 - of a str
    return root / "kaptain-zen-devcluster"


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner can read, and replace an older one in one step.

    Args:
        path: Where to; its folder exists.
        content: What.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with open(temporary, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
        file.write(data)
    temporary.replace(path)
