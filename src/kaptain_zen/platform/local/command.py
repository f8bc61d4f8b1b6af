"""The contract between a training script and whatever runs it: arguments and environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from kaptain_zen.platform.local.rendezvous import VARIABLES, variables
from kaptain_zen.platform.local.runs import Plan

UPLOAD_VARIABLE = "TRAINED_MODEL_UPLOAD_PATH"
_NOT_SECRET = frozenset(
    {
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "KAPTAIN_S3_SIGNATURE_VERSION",
        "KAPTAIN_S3_FORCE_PATH_STYLE",
    }
)
_ENDPOINTS = frozenset({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"})
_ALWAYS_SECRET = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def script_arguments(
    args: Iterable[str],
    hyperparameters: Mapping[str, bool | int | float | str],
    kwargs: Mapping[str, str],
) -> tuple[str, ...]:
    """What the script finds in `sys.argv[1:]`.

    Args:
        args: As they are.
        hyperparameters: Become `--name value`; a name that begins with a hyphen stays as it is.
        kwargs: Become `--key=value`.

    Returns:
        All of them in this order.
    """
    arguments = list(args)
    for name, value in hyperparameters.items():
        arguments += [name if name.startswith("-") else f"--{name}", str(value)]
    for key, value in kwargs.items():
        arguments.append(f"{key if key.startswith('-') else f'--{key}'}={value}")
    return tuple(arguments)


def training_environment(
    inherited: Mapping[str, str], storage: Mapping[str, str], threads: Mapping[str, str]
) -> dict[str, str]:
    """What all workers of a run have in common.

    Args:
        inherited: The client's environment.
        storage: The storage's credentials.
        threads: Limits on threads.
    """
    kept = {key: value for key, value in inherited.items() if key not in VARIABLES}
    return {**kept, **storage, **threads, "PYTHONUNBUFFERED": "1"}


def worker_environment(
    common: Mapping[str, str], plan: Plan, rank: int, ports: Sequence[int]
) -> dict[str, str]:
    """What one worker gets: where its model goes, what it may import, how it finds the others."""
    path = [plan.import_path, *filter(None, [common.get("PYTHONPATH")])]
    return {
        **common,
        UPLOAD_VARIABLE: plan.upload_uri,
        "PYTHONPATH": os.pathsep.join(path),
        **variables(plan.rendezvous, rank, ports),
    }


def secret_variables(storage: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the variables whose values must never be written down.

    Args:
        storage: The storage's credentials: all of it, but for what only says where the storage is.
    """
    secret = {
        name
        for name, value in storage.items()
        # An endpoint is secret only when it holds a password.
        if name not in _NOT_SECRET and not (name in _ENDPOINTS and "@" not in value)
    }
    return tuple(sorted(secret.union(_ALWAYS_SECRET)))
