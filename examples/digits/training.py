"""Train a support-vector classifier on scikit-learn's handwritten digits.

Runs by hand (`python training.py --gamma 0.001`), as a training, and as a trial of a search: the
same script, unchanged.
"""

from argparse import ArgumentParser

from joblib import dump
from sklearn.datasets import load_digits
from sklearn.metrics import classification_report
from sklearn.svm import SVC

from kaptain_zen.platform.metadata_util import MetadataUtil
from kaptain_zen.platform.model_export_util import ModelExportUtil


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--gamma", type=float, default=0.001, help="width of the kernel")
    parser.add_argument("--c", type=float, default=1.0, help="strength of the regularisation")
    options = parser.parse_args()

    digits = load_digits()
    pixels = digits.images.reshape(len(digits.images), -1)
    half = len(pixels) // 2  # the first half is for training, the second for testing

    classifier = SVC(C=options.c, gamma=options.gamma).fit(pixels[:half], digits.target[:half])
    print(classification_report(digits.target[half:], classifier.predict(pixels[half:])))
    accuracy = classifier.score(pixels[half:], digits.target[half:])

    dump(classifier, "model.joblib")
    ModelExportUtil().upload_model("model.joblib")
    MetadataUtil.record_metrics({"accuracy": accuracy})


if __name__ == "__main__":
    main()
