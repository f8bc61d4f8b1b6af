"""The digits model as a ZenML pipeline of reusable steps.

Any stack with components of a kaptain flavor will do: the same pipeline, unchanged, runs where the
active stack says.
"""

from math import sqrt
from pathlib import Path
from typing import Annotated

from description import DIGITS
from sklearn.datasets import load_digits
from zenml import pipeline, step

from kaptain_zen import Model, ModelRecord
from kaptain_zen.hyperparameter.domains import Double
from kaptain_zen.platform.platform import from_active_stack
from kaptain_zen.steps import (
    build_model,
    deploy_canary,
    deploy_model,
    predict,
    promote_canary,
    train_model,
    tune_model,
)

HERE = str(Path(__file__).parent)
# Real counts lie this many standard deviations around their mean in all but one of 1,700 runs.
SPREAD = 3.45


def bounds(requests: int, percentage: int) -> tuple[float, float]:
    """Between which counts the canary's share of some requests must lie."""
    mean = requests * percentage / 100
    deviation = SPREAD * sqrt(mean * (1 - percentage / 100))
    return mean - deviation, mean + deviation


@step(enable_cache=False)
def measure_shares(
    model: ModelRecord, requests: int
) -> Annotated[dict[str, int], "answers_by_revision"]:
    """Send requests through the service's one URL, and count which revision answered."""
    opened = Model.from_record(model, platform=from_active_stack())
    digits = load_digits().data
    before = opened.status().requests
    for number in range(requests):
        opened.predict(digits[number % len(digits)][None])
    after = opened.status().requests
    return {revision: count - before.get(revision, 0) for revision, count in after.items()}


@step(enable_cache=False)
def check_shares(
    model: ModelRecord, answers: dict[str, int], percentage: int
) -> Annotated[bool, "as_expected"]:
    """Whether the canary answered its share, neither less nor more."""
    canary = model.deployment.canary
    answered = answers.get(canary.revision, 0) if canary else 0
    total = sum(answers.values())
    low, high = bounds(total, percentage)
    print(f"the canary answered {answered} of {total} requests; expected {low:.0f} to {high:.0f}")
    return low <= answered <= high


@pipeline(enable_cache=False)
def train_tune_deploy(trials: int = 12, parallel_trials: int = 2) -> None:
    """The short way: train, tune, deploy, predict."""
    trained = train_model(DIGITS, hyperparameters={"gamma": 0.001, "c": 1.0}, base_dir=HERE)
    tuned, _ = tune_model(
        trained,
        hyperparameters={"gamma": Double(0.0001, 0.001), "c": Double(0.01, 1.0)},
        objectives=["accuracy"],
        objective_goal=0.99,
        trials=trials,
        parallel_trials=parallel_trials,
        base_dir=HERE,
    )
    deployed = deploy_model(tuned)
    predict(deployed, inputs=load_digits().data[7:8].tolist())


@pipeline(enable_cache=False)
def digits_pipeline(trials: int = 12, percentage: int = 30, requests: int = 1000) -> None:
    """The whole way: the tuned model is tried on a share of the traffic before it takes it all."""
    built = build_model(DIGITS, base_dir=HERE)
    trained = train_model(built, hyperparameters={"gamma": 0.001, "c": 1.0}, base_dir=HERE)
    serving = deploy_model(trained)
    tuned, _ = tune_model(
        serving,
        hyperparameters={"gamma": Double(0.0001, 0.001), "c": Double(0.01, 1.0)},
        objectives=["accuracy"],
        objective_goal=0.99,
        trials=trials,
        parallel_trials=2,
        base_dir=HERE,
    )
    canary = deploy_canary(tuned, percentage=percentage)
    answers = measure_shares(canary, requests=requests)
    as_expected = check_shares(canary, answers, percentage=percentage)
    promoted = promote_canary(canary, promote=as_expected)
    after = measure_shares(promoted, requests=100, id="after_promotion")
    predict(promoted, inputs=load_digits().data[7:8].tolist(), after=[after])
