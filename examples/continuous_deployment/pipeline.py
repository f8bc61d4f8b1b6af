"""Train, decide, deploy: run again, it replaces what is deployed only with something better."""

from pathlib import Path

from zenml import pipeline

from kaptain_zen import ModelSpec
from kaptain_zen.steps import deploy_model, deployment_trigger, train_model

# The digits example's script, trained with other hyperparameters each time.
CODE = str(Path(__file__).parent.parent / "digits")

MODEL = ModelSpec(
    id="prod/digits",
    name="Digits",
    description="Recognises handwritten digits, always in its best version so far",
    version="1.0",
    framework="sklearn",
    framework_version="1.9",
    main_file="training.py",
    requirements="requirements.txt",
    image_name="example/digits",
    base_image="python:3.11-slim",
)


@pipeline(enable_cache=False)
def continuous_deployment(gamma: float, c: float) -> None:
    """Deploy a newly trained model if it is good enough and better than what is deployed."""
    trained = train_model(MODEL, hyperparameters={"gamma": gamma, "c": c}, base_dir=CODE)
    good = deployment_trigger(trained, metric="accuracy", min_value=0.8, better="higher")
    deploy_model(trained, deploy=good)
