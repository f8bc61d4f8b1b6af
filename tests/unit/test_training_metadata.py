from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaptain_zen.exceptions import ConfigurationError, ModelValidationException, StorageError
from kaptain_zen.model.metrics import parse_line
from kaptain_zen.platform.metadata_util import MetadataUtil as SdkMetadataUtil
from kaptain_zen.training.export import UPLOAD_PATH
from kaptain_zen.training.metadata import MetadataUtil


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "trained" / "1"
    for name in ("RANK", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(UPLOAD_PATH, folder.as_uri())
    yield folder
    assert not list(tmp_path.rglob(".kaptain-zen-*"))


def test_the_kaptain_sdk_has_it_under_its_own_path() -> None:
    assert SdkMetadataUtil is MetadataUtil


def test_metrics_are_printed_one_to_a_line_and_kept(
    target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MetadataUtil.record_metrics({"accuracy": 0.9688, "epoch": 3})
    MetadataUtil().record_metrics({"epoch": 4, "val|f-1": 1e-05})
    assert capsys.readouterr().out == "accuracy=0.9688\nepoch=3.0\nepoch=4.0\nval|f-1=1e-05\n"
    kept = json.loads((target / "metrics.json").read_text())
    assert kept == {"accuracy": 0.9688, "epoch": 4.0, "val|f-1": 1e-05}


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    metrics=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_|-]{1,10}", fullmatch=True),
        st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_printed_is_read_again_exactly(
    capsys: pytest.CaptureFixture[str], target: Path, metrics: dict[str, float]
) -> None:
    MetadataUtil.record_metrics(metrics)
    lines = capsys.readouterr().out.splitlines()
    assert [parse_line(line) for line in lines] == [{n: v} for n, v in metrics.items()]
    kept = json.loads((target / "metrics.json").read_text())
    assert {name: kept[name] for name in metrics} == metrics


@pytest.mark.parametrize(
    "value", [1, 0.5, np.float32(0.5), np.int64(3), np.float64(2.5), Decimal("0.5"), Fraction(1, 2)]
)
def test_any_kind_of_number_will_do(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    MetadataUtil.record_metrics({"m": value})
    assert capsys.readouterr().out == f"m={float(value)!r}\n"


@pytest.mark.parametrize(
    "value",
    ["0.9", b"1", None, True, math.nan, math.inf, -math.inf, [1], {}, 1j, 10**400, object()],
)
def test_what_is_no_finite_number_is_refused(
    value: Any, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelValidationException, match=r"Metric 'bad' is .*finite number"):
        MetadataUtil.record_metrics({"good": 1.0, "bad": value})
    assert capsys.readouterr().out == ""
    assert not target.exists()


@pytest.mark.parametrize("name", ["", "val/accuracy", "top 5", "a=b", "f1.score", "é", 3, None])
def test_names_that_collectors_misread_are_refused(name: Any) -> None:
    with pytest.raises(ModelValidationException, match="cannot be the name of a metric"):
        MetadataUtil.record_metrics({name: 1.0})


@pytest.mark.parametrize("metrics", [{}, None, [("a", 1)], "accuracy=1"])
def test_no_metrics_at_all_are_refused(metrics: Any) -> None:
    with pytest.raises(ModelValidationException, match="No metrics were given"):
        MetadataUtil.record_metrics(metrics)


def test_by_hand_they_are_only_printed(
    monkeypatch: pytest.MonkeyPatch, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(UPLOAD_PATH)
    MetadataUtil.record_metrics({"m": 1})
    assert capsys.readouterr().out == "m=1.0\n"
    assert not target.exists()


def test_other_workers_print_but_do_not_write(
    monkeypatch: pytest.MonkeyPatch, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    MetadataUtil.record_metrics({"m": 1})
    assert capsys.readouterr().out == "m=1.0\n"
    assert not target.exists()


@pytest.mark.parametrize("text", ["", "[]", "{broken", "null", "\xff"])
def test_a_file_that_holds_something_else_is_left_as_it_is(target: Path, text: str) -> None:
    target.mkdir(parents=True)
    (target / "metrics.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StorageError, match=r"metrics\.json could not be written.*Remove it"):
        MetadataUtil.record_metrics({"m": 1})
    assert (target / "metrics.json").read_bytes() == text.encode("latin-1")


def test_a_target_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(UPLOAD_PATH, (tmp_path / "file").as_uri())
    with pytest.raises(StorageError, match=r"file/metrics\.json"):
        MetadataUtil.record_metrics({"m": 1})
    monkeypatch.setenv(UPLOAD_PATH, "nowhere")
    with pytest.raises(ConfigurationError, match="nowhere"):
        MetadataUtil.record_metrics({"m": 1})
