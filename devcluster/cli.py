"""The command line: `python -m devcluster up | down | status | doctor | build`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from types import FrameType

from devcluster.cluster import Cluster
from devcluster.doctor import examine
from devcluster.errors import DevclusterError
from devcluster.paths import DEFAULT_STATE
from devcluster.progress import Progress, table
from devcluster.sizes import DEFAULT_SIZE, SIZES
from devcluster.state import Phase
from devcluster.status import Row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name; those of the process unless given.

    Returns:
        The exit code: 0 when all is well, 1 when not, 130 and 143 after Ctrl-C and SIGTERM.
    """
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(_COMMANDS[options.command](options))
    except (DevclusterError, OSError) as error:
        sys.stderr.write(f"devcluster: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("devcluster: interrupted; what was started has been stopped\n")
        return 130


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
    # Once: what is done about it must come to its end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _up(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    if not cluster.up(options.size, dict(options.port)):
        sys.stderr.write("already running, nothing to do\n")
    _print_table(cluster)
    sys.stdout.write(f"\nexport KUBECONFIG={cluster.kubeconfig}\n")
    return 0


def _down(options: argparse.Namespace) -> int:
    if not _cluster(options).down():
        sys.stderr.write(f"there is no cluster in {options.state}\n")
    return 0


def _status(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    rows = cluster.status()
    if not rows:
        sys.stderr.write(f"there is no cluster in {options.state}\n")
        return 1
    _print_table(cluster)
    if cluster.phase is not Phase.UP:
        sys.stdout.write("\nbeing started or stopped, or interrupted while it was\n")
        return 1
    sys.stdout.write(f"\nexport KUBECONFIG={cluster.kubeconfig}\n")
    return 1 if any(row.has_ended for row in rows) else 0


def _build(options: argparse.Namespace) -> int:
    built = _cluster(options).build(options.size)
    names = [c.name for c in SIZES[options.size] if c.name not in built]
    if names:
        sys.stderr.write(f"in the cache already: {', '.join(names)}\n")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    findings = examine(_cluster(options), options.size)
    for finding in findings:
        sys.stdout.write(f"{'ok  ' if finding.well else 'NOT '} {finding.text}\n")
    return 0 if all(finding.well for finding in findings) else 1


_COMMANDS = {"up": _up, "down": _down, "status": _status, "build": _build, "doctor": _doctor}


def _cluster(options: argparse.Namespace) -> Cluster:
    return Cluster(options.state, Progress())


def _print_table(cluster: Cluster) -> None:
    heading = [field.name for field in fields(Row)]
    sys.stdout.write(table([heading, *(astuple(row) for row in cluster.status())]) + "\n")


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER")
    return name, int(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m devcluster",
        description="A real Kubernetes for tests, built from packages and run on loopback.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in {
        "up": "build what is missing and start the cluster; does nothing if it runs",
        "down": "stop it and delete all that it has written",
        "status": "what runs",
        "build": "build only",
        "doctor": "what this machine has and lacks",
    }.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--state",
            type=Path,
            default=DEFAULT_STATE,
            metavar="FOLDER",
            help="the cluster's folder (default: %(default)s)",
        )
        if name in {"up", "build", "doctor"}:
            command.add_argument("--size", choices=list(SIZES), default=DEFAULT_SIZE)
        if name == "up":
            command.add_argument(
                "--port",
                type=_port,
                action="append",
                default=[],
                metavar="NAME=NUMBER",
                help="a port of 127.0.0.1 (apiserver, etcd); chosen unless given",
            )
    return parser
