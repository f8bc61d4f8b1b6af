"""The digits model without ZenML: a Model object, as in a notebook.

python plain.py
"""

from pathlib import Path

from description import DIGITS
from sklearn.datasets import load_digits

from kaptain_zen import Model
from kaptain_zen.hyperparameter.domains import Double
from kaptain_zen.platform.platform import local


def main() -> None:
    model = Model.from_spec(DIGITS, platform=local(base_dir=Path(__file__).parent))

    model.train(hyperparameters={"gamma": 0.001, "c": 1.0})
    print(f"trained: accuracy {model.metrics['accuracy']['latest']:.4f}")

    model.tune(
        hyperparameters={"gamma": Double(0.0001, 0.001), "c": Double(0.01, 1.0)},
        objectives=["accuracy"],
        objective_goal=0.99,
        trials=12,
        parallel_trials=2,
    )
    print(f"tuned:   accuracy {model.metrics['accuracy']['latest']:.4f} {model.hyperparameters}")

    model.deploy(replace=True)
    digits = load_digits()
    print(f"the eighth digit is a {model.predict(digits.data[7:8])[0]}")

    model.undeploy()


if __name__ == "__main__":
    main()
