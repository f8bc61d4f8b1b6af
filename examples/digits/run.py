"""Run the digits pipeline and say what came out.

    python run.py                  # on the active stack
    python run.py --fresh .demo    # on a new local stack, everything below one folder

With `--fresh`, nothing outside the folder is touched, and the service is removed at the end.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", type=Path, help="folder for a stack and a home of its own")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    started = time.monotonic()
    if options.fresh:
        begin_fresh(options.fresh.absolute())

    # Only now, because ZenML reads its environment when it is imported.
    from pipeline import digits_pipeline

    if options.fresh:
        from kaptain_zen.components.registration import register_flavors, register_local_stack

        register_flavors()
        register_local_stack("digits", activate=True)
    run = digits_pipeline(trials=options.trials, requests=options.requests)
    problems = report(run, options.trials)
    if options.fresh:
        problems += clean_up()
    print(f"\nAll of it took {time.monotonic() - started:.0f} s.")
    for problem in problems:
        print(f"PROBLEM: {problem}", file=sys.stderr)
    return 1 if problems else 0


def begin_fresh(folder: Path) -> None:
    """Point ZenML and the local platform to a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.update(
        ZENML_CONFIG_PATH=str(folder / "zenml"),
        ZENML_LOCAL_STORES_PATH=str(folder / "stores"),
        ZENML_ANALYTICS_OPT_IN="false",
        KAPTAIN_ZEN_HOME=str(folder / "home"),
    )
    folder.mkdir(parents=True)
    os.chdir(Path(__file__).parent)


def report(run: object, trials: int) -> list[str]:
    """Print what the pipeline did, and return what is not as it should be."""
    from pipeline import bounds

    def output(step: str, name: str) -> object:
        return run.steps[step].outputs[name][0].load()

    trained = output("train_model", "model_record")
    tuned = output("tune_model", "model_record")
    canary = output("deploy_canary", "model_record").deployment
    promoted = output("promote_canary", "model_record").deployment
    answers = output("measure_shares", "answers_by_revision")
    after = output("after_promotion", "answers_by_revision")
    prediction = int(output("predict", "predictions")[0])

    accuracy = trained.metrics["accuracy"].latest
    total, shared = sum(answers.values()), answers.get(canary.canary.revision, 0)
    low, high = bounds(total, canary.canary_percentage)
    taken = after.get(promoted.baseline.revision, 0)
    best = tuned.metrics["accuracy"].latest
    print(f"\ntrained     accuracy {accuracy:.6f} with {trained.hyperparameters}")
    print(f"tuned       accuracy {best:.6f}, the best of {len(tuned.trials)} trials,")
    print(f"            with {tuned.hyperparameters}")
    print(f"canary      answered {shared} of {total} requests: {shared / total:.1%},")
    print(f"            where {low:.0f} to {high:.0f} were expected")
    print(f"promoted    answered {taken} of {sum(after.values())} requests")
    print(f"prediction  {prediction} for the eighth digit")
    checks = {
        f"the trained model's accuracy is {accuracy:.6f}, not 0.9688": 0.9688 <= accuracy < 0.9689,
        f"{len(tuned.trials)} trials ran, not {trials}": len(tuned.trials) == trials,
        "the canary's share is outside its bounds": low <= shared <= high,
        "not all requests went to the promoted model": taken == sum(after.values()) > 0,
        f"the eighth digit was taken for a {prediction}": prediction == 7,
    }
    return [problem for problem, fine in checks.items() if not fine]


def clean_up() -> list[str]:
    """Remove the service and the runs, and return what is left of them."""
    import psutil
    from description import DIGITS

    from kaptain_zen import Model
    from kaptain_zen.platform.platform import from_active_stack

    platform = from_active_stack()
    Model.load(DIGITS.id, platform=platform).undeploy()
    home = os.environ["KAPTAIN_ZEN_HOME"]
    command = [str(Path(sys.executable).parent / "kaptain-zen"), "cleanup"]
    subprocess.run(command, check=True)
    left = [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if any(home in word for word in process.info["cmdline"] or [])
    ]
    print(f"cleaned up: {len(left)} processes left")
    return [f"still runs: {command}" for command in left]


if __name__ == "__main__":
    raise SystemExit(main())
