"""What MLServer is told about a model, and which files are taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.exceptions import ModelValidationException, UnsupportedModelDeploymentException
from kaptain_zen.model.frameworks import ModelFramework
from kaptain_zen.model.record import Served
from kaptain_zen.platform.local.mlserver_settings import (
    MODEL_SETTINGS,
    RUNTIMES,
    SETTINGS,
    check_config,
    find_model_file,
    runtime_for,
    write_settings,
)

SKLEARN = RUNTIMES[ModelFramework.SKLEARN]
XGBOOST = RUNTIMES[ModelFramework.XGBOOST]
LIGHTGBM = RUNTIMES[ModelFramework.LIGHTGBM]


def _files(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    return folder


@pytest.mark.parametrize(
    ("runtime", "names", "expected"),
    [
        (SKLEARN, ["model.joblib"], "model.joblib"),
        (SKLEARN, ["model.pkl", "metrics.json", "notes.txt"], "model.pkl"),
        (SKLEARN, ["digits.joblib"], "digits.joblib"),
        (SKLEARN, ["model.joblib", "scaler.joblib"], "model.joblib"),
        (SKLEARN, ["exported/model.pickle"], "exported/model.pickle"),
        (SKLEARN, ["model.joblib", "old/model.joblib"], "model.joblib"),
        (SKLEARN, ["a/b/digits.pkl"], "a/b/digits.pkl"),
        (XGBOOST, ["model.json", "metrics.json"], "model.json"),
        (XGBOOST, ["digits.ubj"], "digits.ubj"),
        (LIGHTGBM, ["model.bst"], "model.bst"),
        (LIGHTGBM, ["model.txt"], "model.txt"),
    ],
)
def test_the_one_file_that_holds_the_model_is_found(
    tmp_path: Path, runtime: Any, names: list[str], expected: str
) -> None:
    _files(tmp_path, *names)

    assert find_model_file(tmp_path, runtime, uri="s3://b/m") == tmp_path / expected


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "there is nothing"),
        (["readme.md"], "readme.md"),
        (["model.bst"], "model.joblib, model.pickle, model.pkl"),
        (["model.joblib", "model.pkl"], "2 files that may be the model: model.joblib, model.pkl"),
        (["a.pkl", "b.pkl"], "a.pkl, b.pkl"),
        (["x/model.pkl", "y/model.pkl"], "x/model.pkl, y/model.pkl"),
        ([f"{n:02}.txt" for n in range(15)], "and 5 more"),
    ],
)
def test_no_file_or_too_many_are_named(tmp_path: Path, names: list[str], said: str) -> None:
    _files(tmp_path, *names)

    with pytest.raises(ModelValidationException) as caught:
        find_model_file(tmp_path, SKLEARN, uri="s3://b/m")

    assert said in str(caught.value)
    assert "s3://b/m" in str(caught.value)


def _written(folder: Path, own: object = None, runtime: Any = SKLEARN) -> tuple[Any, Any, Served]:
    artifact = _files(folder / "model", "model.joblib", "extra/second.joblib")
    if own is not None:
        text = own if isinstance(own, str) else json.dumps(own)
        (artifact / MODEL_SETTINGS).write_text(text)
    served = Served(revision=uuid4().hex, uri="s3://b/m")
    write_settings(
        folder, artifact, name="dev-mnist", served=served, runtime=runtime, uri=served.uri
    )
    model_settings = json.loads((folder / MODEL_SETTINGS).read_text())
    return json.loads((folder / SETTINGS).read_text()), model_settings, served


def test_a_model_gets_the_settings_of_its_framework(tmp_path: Path) -> None:
    settings, model_settings, served = _written(tmp_path)

    assert model_settings == {
        "name": "dev-mnist",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {
            "uri": str(tmp_path / "model" / "model.joblib"),
            "version": served.revision,
        },
    }
    assert settings["host"] == "127.0.0.1"
    assert settings["parallel_workers"] == 0
    assert settings["metrics_endpoint"] is None


def test_settings_that_came_with_the_model_are_kept_but_for_its_place(tmp_path: Path) -> None:
    own = {
        "name": "another",
        "implementation": "my_runtime.Mine",
        "max_batch_size": 8,
        "parameters": {
            "uri": "extra/second.joblib",
            "version": "v9",
            "extra": {"predict_fn": "predict_proba"},
        },
    }

    _, model_settings, served = _written(tmp_path, own)

    assert model_settings == {
        "name": "dev-mnist",
        "implementation": "my_runtime.Mine",
        "max_batch_size": 8,
        "parameters": {
            "uri": str(tmp_path / "model" / "extra" / "second.joblib"),
            "version": served.revision,
            "extra": {"predict_fn": "predict_proba"},
        },
    }


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("{", "no JSON"),
        ([1], "JSON object"),
        ({"parameters": 7}, "JSON object"),
        ({"parameters": {"uri": "missing.joblib"}}, "'missing.joblib'"),
        ({"parameters": {"uri": "../settings.json"}}, "not among the model's files"),
        ({"parameters": {"uri": "/etc/passwd"}}, "not among the model's files"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tmp_path: Path, own: object, said: str) -> None:
    (tmp_path / "settings.json").write_text("{}")

    with pytest.raises(ModelValidationException, match=said):
        _written(tmp_path, own)


def test_a_framework_without_a_runtime_is_refused() -> None:
    with pytest.raises(UnsupportedModelDeploymentException, match="sklearn, xgboost, lightgbm"):
        runtime_for(ModelFramework.PYTORCH)


@pytest.mark.parametrize("config", [{}, {"protocol_version": "v2"}, {"protocol_version": "V2"}])
def test_the_protocol_of_mlserver_is_accepted(config: dict[str, Any]) -> None:
    assert check_config(config, where="Model 'm'") == []


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    config = {"requirements_file": "r.txt", "min_replicas": 2, "protocol_version": "v2"}

    requirements, unknown = check_config(config, where="Model 'm'")

    assert "r.txt" in requirements
    assert "'min_replicas'" in unknown
    assert "protocol_version' has" not in unknown


@given(st.one_of(st.text(), st.integers(), st.none(), st.lists(st.text())))
def test_any_other_protocol_is_refused(protocol: object) -> None:
    if str(protocol).strip().lower() in ("v2", "2"):
        return
    with pytest.raises(ModelValidationException, match="protocol_version"):
        check_config({"protocol_version": protocol}, where="Model 'm'")
