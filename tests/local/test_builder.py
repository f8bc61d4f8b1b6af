"""The local builder: no image, but the same checks, names and checksums as with one."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.training_support import model

from kaptain_zen.exceptions import (
    ConfigurationError,
    InvalidModelProperty,
    ModelValidationException,
)
from kaptain_zen.model.record import Image
from kaptain_zen.platform.local.builder import LocalBuilder, image_name
from kaptain_zen.platform.local.home import LocalHome

LEGAL = re.compile(r"[a-z0-9./:_-]+:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "training.py").write_text("print(1)")
    (folder / "helper.py").write_text("x = 1")
    (folder / "requirements.txt").write_text("numpy")
    return folder


@pytest.fixture
def builder(tmp_path: Path) -> LocalBuilder:
    return LocalBuilder(LocalHome(tmp_path / "home"))


def test_a_second_build_of_the_same_content_is_skipped(
    builder: LocalBuilder, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = model(extra_files=["helper.py"], requirements="requirements.txt", image_name="repo/x:1")
    with caplog.at_level(logging.INFO, logger="kaptain_zen"):
        first = builder.build(spec, base_dir=base)
        assert "skipping" not in caplog.text
        assert builder.build(spec, base_dir=base) == first
        assert "repo/x:1 holds the same content already; skipping" in caplog.text
    assert first == Image(name="repo/x:1", checksum=first.checksum, digest=None)
    assert re.fullmatch("[0-9a-f]{64}", first.checksum)


@pytest.mark.parametrize(
    "change",
    [
        {"base_image": "other"},
        {"framework": "xgboost"},
        {"framework_version": "2"},
        {"extra_files": []},
        {"requirements": ["numpy"]},
        {"requirements": None},
        {"main_file": "helper.py"},
    ],
)
def test_whatever_would_go_into_the_image_is_in_the_checksum(
    builder: LocalBuilder, base: Path, change: dict[str, object]
) -> None:
    known = {"extra_files": ["helper.py"], "requirements": "requirements.txt", "image_name": "x:1"}
    before = builder.build(model(**known), base_dir=base)
    assert builder.build(model(**{**known, **change}), base_dir=base).checksum != before.checksum


@pytest.mark.parametrize("name", ["training.py", "helper.py", "requirements.txt"])
def test_a_changed_file_changes_the_checksum(builder: LocalBuilder, base: Path, name: str) -> None:
    spec = model(extra_files=["helper.py"], requirements="requirements.txt")
    before = builder.build(spec, base_dir=base)
    (base / name).write_text("y = 2")
    assert builder.build(spec, base_dir=base).checksum != before.checksum


def test_what_does_not_go_into_the_image_is_not_in_the_checksum(
    builder: LocalBuilder, base: Path, tmp_path: Path
) -> None:
    before = builder.build(model(), base_dir=base)
    moved = base.rename(tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("not listed")
    after = builder.build(model(labels=["x"], description="other"), base_dir=moved)
    assert after.checksum == before.checksum


def test_files_in_folders_belong_to_it(builder: LocalBuilder, base: Path) -> None:
    (base / "data" / "deep").mkdir(parents=True)
    (base / "data" / "deep" / "a.csv").write_text("1")
    spec = model(extra_files=["data"])
    before = builder.build(spec, base_dir=base)
    (base / "data" / "deep" / "a.csv").rename(base / "data" / "a.csv")
    assert builder.build(spec, base_dir=base).checksum != before.checksum


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"main_file": "nowhere.py"}, r"nowhere\.py \(main_file: 'nowhere\.py', base_dir: .*exist"),
        ({"main_file": "folder"}, r"folder.* is not a file"),
        ({"extra_files": ["helper.py", "../gone.csv"]}, r"gone\.csv.*extra_files.* does not exist"),
        ({"requirements": "gone.txt"}, r"gone\.txt.*requirements.* does not exist"),
        ({"requirements": "folder"}, r"folder.*requirements.* is not a file"),
        ({"main_file": "broken.py"}, r"broken\.py is not Python: .*line 2"),
        ({"main_file": "binary.py"}, r"binary\.py is not Python"),
        (
            {"extra_files": ["folder/helper.py", "../helper.py", "helper.py"]},
            r"both become helper\.py",
        ),
    ],
)
def test_a_model_that_cannot_be_built_is_explained_and_nothing_is_written(
    builder: LocalBuilder, base: Path, properties: dict[str, object], problem: str
) -> None:
    (base / "folder").mkdir()
    (base / "folder" / "helper.py").write_text("")
    (base.parent / "helper.py").write_text("")
    (base / "broken.py").write_text("x = 1\ndef broken(:\n")
    (base / "binary.py").write_bytes(b"\0\xff")
    with pytest.raises(ModelValidationException, match=problem):
        builder.build(model(**properties), base_dir=base)
    assert not (base.parent / "home").exists()


def test_a_main_file_outside_its_folder_is_refused() -> None:
    with pytest.raises(InvalidModelProperty, match="must not leave"):
        model(main_file="../training.py")


def test_a_home_that_cannot_be_written_to_is_named(base: Path) -> None:
    builder = LocalBuilder(LocalHome(base / "training.py" / "home"))
    with pytest.raises(ConfigurationError, match="KAPTAIN_ZEN_HOME"):
        builder.build(model(), base_dir=base)


def test_a_broken_note_is_written_anew(builder: LocalBuilder, base: Path, tmp_path: Path) -> None:
    image = builder.build(model(), base_dir=base)
    note = next((tmp_path / "home" / "images").iterdir())
    note.write_text("{")
    assert builder.build(model(), base_dir=base) == image
    assert image.checksum in note.read_text()


def test_verbose_names_the_files(
    builder: LocalBuilder, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="kaptain_zen"):
        builder.build(model(extra_files=["helper.py"]), base_dir=base, verbose=True)
    assert "training.py (sha256 " in caplog.text
    assert "helper.py (sha256 " in caplog.text


@pytest.mark.parametrize("given", ["repo:1", "host:5000/repo:1", "repo@sha256:abc", "a/b/c:x-y"])
def test_a_name_with_a_tag_stays(given: str) -> None:
    assert image_name(model(image_name=given)) == given


@pytest.mark.parametrize("given", ["repo", "host:5000/repo", "a/b"])
def test_a_name_without_a_tag_gets_one_that_says_what_it_is(given: str) -> None:
    spec = model(image_name=given, id="dev/mnist", framework_version="0.24.2")
    assert image_name(spec) == f"{given}:dev-mnist-sklearn-0.24.2"


@given(
    st.text(
        st.characters(exclude_characters='/\\?#%*:"<>|', exclude_categories=["C", "Z"]), min_size=1
    ),
    st.text(min_size=1).filter(str.strip),
)
def test_every_tag_is_legal(model_id: str, version: str) -> None:
    if model_id not in (".", ".."):
        spec = model(id=model_id, framework_version=version, image_name="repo/name")
        assert LEGAL.fullmatch(image_name(spec))
