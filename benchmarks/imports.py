"""What `import kaptain_zen.flavors` costs, against `import zenml`, measured side by side.

    python benchmarks/imports.py [--rounds 10]

Every measurement is a fresh interpreter. The kinds take turns, so that whatever else the machine
does disturbs all of them alike; of each kind the fastest counts. CPU time is shown beside the time
on the clock, because it says the same on a busy machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

BASE = "import zenml"
KINDS = {
    BASE: "import zenml",
    "import kaptain_zen.flavors": "import kaptain_zen.flavors",
    "all flavors loaded, zenml included": (
        "from kaptain_zen.flavors import (\n"
        "    KaptainLocalModelDeployerFlavor, KaptainLocalTrainerFlavor, KaptainLocalTunerFlavor\n"
        ")"
    ),
}
GOAL = 1.05


def measure(code: str) -> tuple[float, float]:
    """Seconds on the clock, and of CPU, that a fresh interpreter takes for some code."""
    timed = (
        "import time; clock, cpu = time.perf_counter(), time.process_time()\n"
        f"{code}\nprint(time.perf_counter() - clock, time.process_time() - cpu)"
    )
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    clock, cpu = done.stdout.split()[-2:]
    return float(clock), float(cpu)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    for code in KINDS.values():
        measure(code)  # compiles what has not been compiled yet, and fills the disk's cache
    turns = [{name: measure(code) for name, code in KINDS.items()} for _ in range(rounds)]
    best = {
        name: tuple(min(turn[name][kind] for turn in turns) for kind in (0, 1)) for name in KINDS
    }
    print(f"{'':36}{'clock':>10}{'ratio':>8}{'cpu':>12}{'ratio':>8}")
    for name, (clock, cpu) in best.items():
        clocks, cpus = clock / best[BASE][0], cpu / best[BASE][1]
        print(f"{name:36}{clock * 1000:7.0f} ms{clocks:8.3f}{cpu * 1000:9.0f} ms{cpus:8.3f}")
    print(f"goal: at most {GOAL} ({rounds} rounds)")


if __name__ == "__main__":
    main()
