"""Which of several workers speaks for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kaptain_zen.exceptions import ConfigurationError

_CHIEFS = ("chief", "master")


def is_chief(environ: Mapping[str, str]) -> bool:
    """Whether this process is the one that uploads.

    It is the process of rank 0 where there is a `RANK`, and otherwise the chief of `TF_CONFIG`:
    the task of type `chief` or `master`, or the first worker where there is no such task. A process
    with neither variable is alone.

    Args:
        environ: The process's environment.

    Raises:
        ConfigurationError: A variable is broken.
    """
    rank = environ.get("RANK", "").strip()
    if rank:
        if not rank.isdecimal():
            raise ConfigurationError(f"RANK is {rank!r}; it must be a whole number from 0.")
        return int(rank) == 0
    text = environ.get("TF_CONFIG", "").strip()
    return _is_tensorflow_chief(text) if text else True


def _is_tensorflow_chief(text: str) -> bool:
    try:
        config: Any = json.loads(text)
        cluster = config.get("cluster") or {}
        task = config.get("task") or {}
        kind, index = task.get("type"), int(task.get("index", 0))
        has_chief = any(cluster.get(chief) for chief in _CHIEFS)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ConfigurationError(
            "TF_CONFIG is not a JSON object with the objects 'cluster' and 'task' in it."
        ) from None
    if kind is None:
        return True
    return index == 0 and (kind in _CHIEFS or (kind == "worker" and not has_chief))
