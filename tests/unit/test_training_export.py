from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kaptain_zen.exceptions import ConfigurationError, ModelValidationException, StorageError
from kaptain_zen.platform.model_export_util import ModelExportUtil as SdkModelExportUtil
from kaptain_zen.training.export import UPLOAD_PATH, ModelExportUtil
from kaptain_zen.training.ranks import is_chief


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "the models" / "trained" / "1"


@pytest.fixture
def environ(target: Path) -> dict[str, str]:
    return {UPLOAD_PATH: target.as_uri()}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights")
    return folder


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_kaptain_sdk_has_it_under_its_own_path() -> None:
    assert SdkModelExportUtil is ModelExportUtil


def test_a_file_keeps_its_name(environ: dict[str, str], target: Path, model: Path) -> None:
    uri = ModelExportUtil(environ).upload_model(model / "saved_model.pb")
    assert uri == f"{target.as_uri()}/saved_model.pb"
    assert everything_below(target) == {"saved_model.pb": b"graph"}


def test_a_relative_path_is_one_of_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], target: Path, model: Path
) -> None:
    monkeypatch.chdir(model)
    monkeypatch.setenv(UPLOAD_PATH, environ[UPLOAD_PATH])
    assert ModelExportUtil().upload_model("saved_model.pb") is not None
    assert everything_below(target) == {"saved_model.pb": b"graph"}


def test_the_content_of_a_folder_goes_without_its_name(
    environ: dict[str, str], target: Path, model: Path
) -> None:
    assert ModelExportUtil(environ).upload_model(str(model)) == target.as_uri()
    assert everything_below(target) == {"saved_model.pb": b"graph", "variables/data": b"weights"}


def test_a_second_upload_adds_and_replaces(
    environ: dict[str, str], target: Path, model: Path
) -> None:
    export = ModelExportUtil(environ)
    export.upload_model(model)
    (model / "saved_model.pb").write_bytes(b"better")
    (model / "labels.txt").write_bytes(b"0-9")
    export.upload_model(model / "saved_model.pb")
    export.upload_model(model / "labels.txt")
    assert everything_below(target) == {
        "labels.txt": b"0-9",
        "saved_model.pb": b"better",
        "variables/data": b"weights",
    }


def test_by_hand_nothing_happens_but_a_message(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for environ in ({}, {UPLOAD_PATH: "  "}):
        assert ModelExportUtil(environ).upload_model(model) is None
        said = capsys.readouterr()
        assert f"{UPLOAD_PATH} is not set" in said.err
        assert str(model) in said.err
        assert said.out == ""


def test_what_is_not_there_cannot_be_uploaded(environ: dict[str, str], target: Path) -> None:
    with pytest.raises(ModelValidationException, match=r"no file or folder nope\.joblib.*Save"):
        ModelExportUtil(environ).upload_model("nope.joblib")
    assert not target.exists()


@pytest.mark.parametrize("path", [None, 7, ["model.joblib"]])
def test_what_is_no_path_cannot_be_uploaded(environ: dict[str, str], path: Any) -> None:
    with pytest.raises(ModelValidationException, match="path of a file or folder"):
        ModelExportUtil(environ).upload_model(path)


def test_an_empty_folder_is_no_model(environ: dict[str, str], target: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "er").mkdir(parents=True)
    with pytest.raises(ModelValidationException, match="holds no file"):
        ModelExportUtil(environ).upload_model(tmp_path / "empty")
    assert not target.exists()


def test_a_link_in_the_folder_is_refused(
    environ: dict[str, str], target: Path, model: Path
) -> None:
    (model / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(StorageError, match=r"passwords.* is a symbolic link"):
        ModelExportUtil(environ).upload_model(model)
    assert not target.exists()


def test_a_failed_upload_leaves_nothing(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").touch()
    environ = {UPLOAD_PATH: (tmp_path / "file" / "models").as_uri()}
    with pytest.raises(StorageError, match="A part of the path is a file"):
        ModelExportUtil(environ).upload_model(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "work"]


@pytest.mark.parametrize("uri", ["models", "/var/models", "gs://b/m", "file://host/m", "s3://"])
def test_a_target_that_is_no_uri_is_refused(model: Path, uri: str) -> None:
    with pytest.raises(ConfigurationError, match=uri):
        ModelExportUtil({UPLOAD_PATH: uri}).upload_model(model)


def test_only_the_chief_uploads_and_all_know_where(
    environ: dict[str, str], target: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ModelExportUtil(environ | {"RANK": "1"})
    assert other.upload_model(model) == target.as_uri()
    assert not target.exists()
    assert "rank 0" in capsys.readouterr().err
    chief = ModelExportUtil(environ | {"RANK": "0"})
    assert chief.upload_model(model / "saved_model.pb") == (
        other.upload_model(model / "saved_model.pb")
    )
    assert target.exists()


CLUSTER = {"worker": ["a:1", "b:1"], "ps": ["c:1"]}


def tf_config(cluster: dict[str, list[str]], kind: str, index: int | str) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"RANK": ""}, True),
        ({"RANK": "0"}, True),
        ({"RANK": "3"}, False),
        ({"TF_CONFIG": "{}"}, True),
        ({"TF_CONFIG": tf_config(CLUSTER, "worker", 0)}, True),
        ({"TF_CONFIG": tf_config(CLUSTER, "worker", "0")}, True),
        ({"TF_CONFIG": tf_config(CLUSTER, "worker", 1)}, False),
        ({"TF_CONFIG": tf_config(CLUSTER, "ps", 0)}, False),
        ({"TF_CONFIG": tf_config(CLUSTER, "evaluator", 0)}, False),
        ({"TF_CONFIG": tf_config(CLUSTER | {"chief": ["d:1"]}, "worker", 0)}, False),
        ({"TF_CONFIG": tf_config(CLUSTER | {"chief": ["d:1"]}, "chief", 0)}, True),
        ({"TF_CONFIG": tf_config(CLUSTER | {"master": ["d:1"]}, "master", 0)}, True),
        ({"RANK": "1", "TF_CONFIG": tf_config(CLUSTER, "worker", 0)}, False),
    ],
)
def test_one_worker_is_the_chief(environ: dict[str, str], expected: bool) -> None:
    assert is_chief(environ) is expected


@pytest.mark.parametrize(
    "environ",
    [
        {"RANK": "first"},
        {"RANK": "-1"},
        {"TF_CONFIG": "{broken"},
        {"TF_CONFIG": "[]"},
        {"TF_CONFIG": '{"task": "worker"}'},
        {"TF_CONFIG": '{"cluster": {}, "task": {"type": "worker", "index": "x"}}'},
        {"TF_CONFIG": '{"cluster": [1], "task": {"type": "worker", "index": null}}'},
        {"TF_CONFIG": "[" * 100_000},
    ],
)
def test_a_broken_rank_is_named(environ: dict[str, str]) -> None:
    (name,) = environ
    with pytest.raises(ConfigurationError, match=name):
        is_chief(environ)
