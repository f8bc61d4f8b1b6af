"""What MLServer is told: which runtime serves a framework, where its model is, under which name.

One table says all that differs between frameworks. A `model-settings.json` that comes with the
model is kept, except for what ties the model to this server: its name, version and place.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaptain_zen.exceptions import ModelValidationException, UnsupportedModelDeploymentException
from kaptain_zen.model.frameworks import ModelFramework
from kaptain_zen.model.record import Served

HOST = "127.0.0.1"
PROTOCOL = "v2"
MODEL_SETTINGS = "model-settings.json"
SETTINGS = "settings.json"
KNOWN_CONFIG = ("protocol_version", "requirements_file")
_NAMES_SHOWN = 10


@dataclass(frozen=True)
class Runtime:
    """What serves the models of one framework.

    Attributes:
        package: What to install.
        module: What it is imported as.
        implementation: MLServer's class for it.
        files: Names that a model's file has by custom.
        suffixes: What another name must end with.
        preload: Modules that nearly every model of the framework needs.
    """

    package: str
    module: str
    implementation: str
    files: tuple[str, ...]
    suffixes: tuple[str, ...]
    preload: tuple[str, ...] = ()


RUNTIMES: dict[ModelFramework, Runtime] = {
    ModelFramework.SKLEARN: Runtime(
        package="mlserver-sklearn",
        module="mlserver_sklearn",
        implementation="mlserver_sklearn.SKLearnModel",
        files=("model.joblib", "model.pickle", "model.pkl"),
        suffixes=(".joblib", ".pickle", ".pkl"),
        preload=("sklearn.linear_model", "sklearn.svm", "sklearn.tree"),
    ),
    ModelFramework.XGBOOST: Runtime(
        package="mlserver-xgboost",
        module="mlserver_xgboost",
        implementation="mlserver_xgboost.XGBoostModel",
        files=("model.bst", "model.json", "model.ubj"),
        suffixes=(".bst", ".ubj"),
        preload=("xgboost",),
    ),
    ModelFramework.LIGHTGBM: Runtime(
        package="mlserver-lightgbm",
        module="mlserver_lightgbm",
        implementation="mlserver_lightgbm.LightGBMModel",
        files=("model.bst", "model.txt"),
        suffixes=(".bst",),
        preload=("lightgbm",),
    ),
}


def runtime_for(framework: ModelFramework) -> Runtime:
    """The runtime for a framework's models.

    Raises:
        UnsupportedModelDeploymentException: There is none, or it is not installed.
    """
    runtime = RUNTIMES.get(framework)
    if runtime is None:
        known = ", ".join(f.value for f in RUNTIMES)
        raise UnsupportedModelDeploymentException(
            f"The local platform cannot serve {framework.value} models; it serves {known}. Export "
            f"the model in one of these, or deploy it on Kubernetes."
        )
    missing = [
        package
        for module, package in (("mlserver", "mlserver"), (runtime.module, runtime.package))
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise UnsupportedModelDeploymentException(
            f"Serving {framework.value} models needs what is not installed in this environment: "
            f"pip install {' '.join(missing)}"
        )
    return runtime


def check_config(config: dict[str, Any], *, where: str) -> list[str]:
    """Check how a revision is to be served.

    Args:
        config: The revision's `serving_config`.
        where: Whose it is, for the error.

    Returns:
        What will not have an effect here, as sentences.

    Raises:
        ModelValidationException: It asks for what MLServer cannot do.
    """
    protocol = config.get("protocol_version", PROTOCOL)
    if str(protocol).strip().lower() not in (PROTOCOL, "2"):
        raise ModelValidationException(
            f"{where}: protocol_version is {protocol!r}, but the local platform speaks "
            f"{PROTOCOL!r} only (the Open Inference Protocol). Set it to {PROTOCOL!r} or leave it "
            f"out."
        )
    warnings = []
    if config.get("requirements_file"):
        warnings.append(
            f"{where}: requirements_file {config['requirements_file']!r} is not installed on the "
            f"local platform; the model is served in the environment of this process."
        )
    unknown = sorted(set(config) - set(KNOWN_CONFIG))
    if unknown:
        warnings.append(
            f"{where}: serving_config {', '.join(map(repr, unknown))} has no effect on the local "
            f"platform; it knows {', '.join(map(repr, KNOWN_CONFIG))}."
        )
    return warnings


def write_settings(
    folder: Path, artifact: Path, *, name: str, served: Served, runtime: Runtime, uri: str
) -> None:
    """Write the settings of one revision's server.

    Args:
        folder: Where to.
        artifact: The model's files.
        name: Of the model in requests.
        served: The revision.
        runtime: What serves it.
        uri: Where the files came from, for errors.

    Raises:
        ModelValidationException: The files are not those of one model.
    """
    own = _own_settings(artifact, uri)
    parameters = own.get("parameters") or {}
    file = _named_file(artifact, parameters.get("uri"), uri) or find_model_file(
        artifact, runtime, uri=uri
    )
    model_settings = {
        "implementation": runtime.implementation,
        **own,
        "name": name,
        "parameters": {**parameters, "uri": str(file), "version": served.revision},
    }
    settings = {
        "host": HOST,
        # Any port; nobody is told of it. MLServer cannot be started without gRPC.
        "grpc_port": 0,
        "debug": False,
        "parallel_workers": 0,
        "metrics_endpoint": None,
        "model_repository_root": str(folder),
        "server_name": name,
    }
    (folder / MODEL_SETTINGS).write_text(json.dumps(model_settings, indent=1), encoding="utf-8")
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")


def find_model_file(artifact: Path, runtime: Runtime, *, uri: str) -> Path:
    """Find the one file that holds the model.

    A name by custom goes before other names, and the folder itself before its sub-folders.

    Args:
        artifact: The model's files.
        runtime: What is to read it.
        uri: Where the files came from, for errors.

    Raises:
        ModelValidationException: There is none, or more than one.
    """
    files = sorted(path for path in artifact.rglob("*") if path.is_file())
    top = [path for path in files if path.parent == artifact]
    for candidates in (
        [path for path in top if path.name in runtime.files],
        [path for path in top if path.suffix in runtime.suffixes],
        [path for path in files if path.name in runtime.files],
        [path for path in files if path.suffix in runtime.suffixes],
    ):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise ModelValidationException(
                f"{uri} holds {len(candidates)} files that may be the model: "
                f"{_shown(artifact, candidates)}. Keep one of them, or name it under "
                f"parameters.uri in a {MODEL_SETTINGS} beside it."
            )
    expected = ", ".join(runtime.files)
    found = _shown(artifact, files) or "nothing"
    raise ModelValidationException(
        f"{uri} holds no model that {runtime.module} can load. It looks for {expected} (or another "
        f"name that ends with {' or '.join(runtime.suffixes)}); there is {found}."
    )


def _own_settings(artifact: Path, uri: str) -> dict[str, Any]:
    """The settings that came with the model."""
    file = artifact / MODEL_SETTINGS
    if not file.is_file():
        return {}
    try:
        own = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelValidationException(f"{uri}/{MODEL_SETTINGS} is no JSON: {error}.") from None
    parameters = own.get("parameters") if isinstance(own, dict) else None
    if not isinstance(own, dict) or not isinstance(parameters, dict | None):
        raise ModelValidationException(
            f"{uri}/{MODEL_SETTINGS} must be a JSON object, and so must its `parameters`."
        )
    return own


def _named_file(artifact: Path, name: Any, uri: str) -> Path | None:
    """The file that the model's own settings name."""
    if not name:
        return None
    file = (artifact / str(name)).resolve()
    if not file.is_relative_to(artifact.resolve()) or not file.exists():
        raise ModelValidationException(
            f"{uri}/{MODEL_SETTINGS} names {name!r} under parameters.uri, which is not among the "
            f"model's files. Give a path relative to the settings, or leave it out."
        )
    return file


def _shown(artifact: Path, files: list[Path]) -> str:
    names = [path.relative_to(artifact).as_posix() for path in files]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
