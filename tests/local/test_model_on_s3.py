"""The way of a model when its storage speaks S3: trained, tuned, deployed, and no key anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sklearn.datasets import load_digits
from tests.models import tiny_model
from tests.processes import eventually_none, mentioning
from tests.s3_server import S3Server

from kaptain_zen.config import Config
from kaptain_zen.hyperparameter.domains import Double
from kaptain_zen.model.models import Model
from kaptain_zen.platform.platform import local

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


def test_a_model_lives_in_s3_and_its_keys_nowhere(
    s3_server: S3Server, s3_folder: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    shutil.copytree(EXAMPLE, tmp_path / "code")
    config = Config(
        base_dir=str(tmp_path / "code"),
        base_model_storage_uri=s3_folder,
        storage_config_provider=s3_server.provider,
    )
    platform = local(config, home=str(tmp_path / "home"))
    model = tiny_model(platform, id="dev/s3")
    assert model.train(hyperparameters={"gamma": 0.001}, verbose=True)
    assert model.tune(
        hyperparameters={"c": Double(0.5, 1.0)}, objectives=["accuracy"], trials=2, gamma="0.001"
    )
    assert model.deploy()
    try:
        digits = load_digits().data
        assert Model.load("dev/s3", platform=platform).predict(digits[7:8]).tolist() == [7]
        names = sorted(
            info.uri.removeprefix(f"{s3_folder}/dev/s3/").split("/")[0]
            for info in platform.store.list(f"{s3_folder}/dev/s3")
        )
        assert names == ["deploy", "record.json", "trained", "trained", "tuned"]
        left = [
            path
            for path in (tmp_path / "home").rglob("*")
            if path.is_file() and holds(path.read_bytes(), s3_server)
        ]
        assert left == []
        captured = capfd.readouterr()
        assert "precision" in captured.out + captured.err
        assert not holds((captured.out + captured.err + repr(model)).encode(), s3_server)
        assert not holds(model.record.to_json().encode(), s3_server)
    finally:
        model.undeploy()
    eventually_none(lambda: mentioning(tmp_path / "home"))


def holds(data: bytes, server: S3Server) -> bool:
    """Whether the server's secret key is in some bytes."""
    return server.environment["AWS_SECRET_ACCESS_KEY"].encode() in data
