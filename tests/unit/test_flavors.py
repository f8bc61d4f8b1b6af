"""The flavors: what they cost to import, and which configurations they take."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from zenml.enums import StackComponentType
from zenml.stack.flavor import validate_flavor_source

from kaptain_zen import flavors
from kaptain_zen.flavors.local import (
    KaptainLocalModelDeployerConfig,
    KaptainLocalTrainerConfig,
    KaptainLocalTunerConfig,
)

HEAVY = ["kubernetes", "boto3", "optuna", "mlserver", "sklearn", "torch", "plotly"]
CONFIGS = [KaptainLocalTrainerConfig, KaptainLocalTunerConfig, KaptainLocalModelDeployerConfig]
ZENMLS_OWN = {
    "step_operator": {"kubernetes", "sagemaker", "vertex", "azureml", "spark-kubernetes", "modal"},
    "model_deployer": {"mlflow", "seldon", "bentoml", "huggingface", "databricks", "vllm"},
}


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after some code."""
    script = (
        f"{code}\nimport json, sys\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_of_flavors_loads_not_even_zenml() -> None:
    assert loaded_after("import kaptain_zen.flavors").isdisjoint({*HEAVY, "zenml", "pydantic"})


def test_importing_every_flavor_loads_nothing_heavy() -> None:
    names = ", ".join(flavors.__all__)
    loaded = loaded_after(f"from kaptain_zen.flavors import {names}")
    assert "zenml" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_every_implementation_loads_nothing_heavy() -> None:
    code = "import kaptain_zen.flavors as f\n" + "\n".join(
        f"f.{name}().implementation_class" for name in flavors.__all__
    )
    assert loaded_after(code).isdisjoint(HEAVY)


@pytest.mark.parametrize(("path", "kind"), flavors.FLAVORS.items())
def test_a_flavor_is_what_zenml_registers_by_its_path(path: str, kind: str) -> None:
    cls, flavor = validate_flavor_source(path, StackComponentType(kind))
    assert f"{cls.__module__}.{cls.__name__}" == path
    assert getattr(flavors, cls.__name__) is cls
    assert flavor.name.startswith("kaptain_")
    assert flavor.name not in ZENMLS_OWN[kind]
    assert len(json.dumps(flavor.config_schema)) < 65_535


def test_names_of_flavors_that_there_are_not_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="KaptainMoonFlavor"):
        _ = flavors.KaptainMoonFlavor


@pytest.mark.parametrize("config", CONFIGS)
def test_a_local_component_needs_no_server_that_others_can_reach(config: type) -> None:
    made = config()
    assert made.is_local
    assert not made.is_remote


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"home": "runs"}, "absolute"),
        ({"home": " "}, "absolute"),
        ({"storage_uri": "gs://bucket/models"}, "s3://bucket/folder or file:///folder"),
        ({"storage_uri": "file:///"}, "s3://bucket/folder or file:///folder"),
        ({"storage_uri": "/models"}, "s3://bucket/folder or file:///folder"),
    ],
)
def test_a_wrong_place_is_refused_with_what_is_right(
    config: type, wrong: dict[str, str], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        config(**wrong)


@pytest.mark.parametrize("field", ["timeout", "parallel_trials"])
@pytest.mark.parametrize("value", [0, -1, "many"])
def test_a_limit_is_a_number_above_zero(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        KaptainLocalTunerConfig(**{field: value})


def test_values_from_the_command_line_are_texts() -> None:
    config = KaptainLocalTunerConfig(warm_start="false", parallel_trials="3", timeout="1.5")
    assert (config.warm_start, config.parallel_trials, config.timeout) == (False, 3, 1.5)


@given(st.from_regex(r"/[a-z ]{1,20}(/[a-z]{1,9}){0,3}", fullmatch=True))
def test_any_absolute_home_is_taken(home: str) -> None:
    assert KaptainLocalTrainerConfig(home=home).home == home.strip()


@given(
    st.sampled_from(["s3://", "file:///"]),
    st.from_regex(r"[a-z0-9]{1,12}(/[a-z0-9]{1,12}){0,3}/{0,2}", fullmatch=True),
)
def test_a_storage_uri_is_kept_without_slashes_at_its_end(scheme: str, rest: str) -> None:
    config = KaptainLocalTrainerConfig(storage_uri=scheme + rest)
    assert config.storage_uri == (scheme + rest).rstrip("/")
