"""Reports metrics from a training script."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaptain_zen.exceptions import ModelValidationException, StorageError
from kaptain_zen.training import files, s3, s3_errors
from kaptain_zen.training.export import UPLOAD_PATH
from kaptain_zen.training.ranks import is_chief
from kaptain_zen.training.uris import join, parse

METRICS_FILE = "metrics.json"
# What Katib's collector takes for a name; it would report any other under a wrong one.
_NAME = re.compile(r"[A-Za-z0-9_|-]+")


class MetadataUtil:
    """Reports what a training has achieved.

    Example:
        >>> MetadataUtil.record_metrics({"accuracy": 0.97})
        accuracy=0.97
    """

    @staticmethod
    def record_metrics(metrics: Mapping[str, Any]) -> None:
        """Print metrics as `name=value`, one to a line, and keep them beside the model.

        The lines are what Katib's collector reads; the file `metrics.json` below
        `$TRAINED_MODEL_UPLOAD_PATH` gets the latest value of each metric, so that a script need not
        wait for anybody to read the lines. Of several workers all print, and the one of rank 0
        writes the file.

        Args:
            metrics: Finite numbers by name; anything that `float` takes but text.

        Raises:
            ModelValidationException: There are none, or a name or value is not legal. Nothing was
                printed.
            ConfigurationError: A variable of the training contract is wrong.
            StorageError: The file cannot be written.
        """
        values = _checked(metrics)
        sys.stdout.write("".join(f"{name}={value!r}\n" for name, value in values.items()))
        sys.stdout.flush()
        folder = os.environ.get(UPLOAD_PATH, "").strip()
        if folder and is_chief(os.environ):
            _keep(join(folder, METRICS_FILE), values)


def _checked(metrics: Mapping[str, Any]) -> dict[str, float]:
    if not isinstance(metrics, Mapping) or not metrics:
        raise ModelValidationException(
            "No metrics were given. Give a mapping such as {'accuracy': 0.97}."
        )
    values: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ModelValidationException(
                f"{name!r} cannot be the name of a metric. Use letters, digits, '_', '-' and '|' "
                f"only, such as 'validation-accuracy'."
            )
        try:
            number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise ModelValidationException(
                f"Metric {name!r} is {value!r}; it must be a finite number."
            )
        values[name] = number
    return values


def _keep(uri: str, values: dict[str, float]) -> None:
    location = parse(uri)
    if location.scheme == "s3":
        client = s3.shared_client(os.environ)
        target = {"Bucket": location.bucket, "Key": location.path}
        with s3_errors.explained("written", uri, client):
            data = _merged(_get(client, target), values, uri)
            client.put_object(**target, Body=data, ContentType="application/json")
        return
    path = Path(location.path)
    with files.explained("written", uri), files.made(path.parent):
        before = path.read_bytes() if path.exists() else None
        files.write_atomically(path, _merged(before, values, uri))


def _get(client: Any, target: dict[str, str]) -> bytes | None:
    try:
        return bytes(client.get_object(**target)["Body"].read())
    except client.exceptions.NoSuchKey:
        return None


def _merged(before: bytes | None, values: dict[str, float], uri: str) -> bytes:
    try:
        known = json.loads(before) if before is not None else {}
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise StorageError(
            f"{uri} could not be written: what is there is no JSON object of metrics. Remove it."
        )
    return json.dumps(known | values, indent=1, sort_keys=True).encode()
