"""Runs a script in this process as a fresh interpreter would run it.

The process is a fork of one that has imported what the script imports. Whatever a script can see of
its interpreter is put into the state that it would have found: arguments, environment, search path,
`__main__`, random numbers. The interpreter's own end is left to the interpreter: this returns to
nobody, so that threads are joined, `atexit` runs, and exit codes come about as always.

What is still different: there are frames below the script's first one, more in `sys.modules`, and
another program in `/proc/self/cmdline`; what imports print or warn of is not in the run's log;
hashes of strings are salted alike in all runs of one template; and memory that the imports took
counts for a memory limit, but is not refused by one that is smaller.
"""

from __future__ import annotations

import builtins
import faulthandler
import importlib
import io
import os
import sys
import time
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn


def run_script(
    command: Sequence[str], environment: Mapping[str, str], search_path: Sequence[str]
) -> NoReturn:
    """Run a script; what calls this must have no clean-up of its own left to do.

    Args:
        command: Interpreter, script (absolute path), arguments.
        environment: All environment variables.
        search_path: `sys.path` as the interpreter made it, before the script's own folder.

    Raises:
        SystemExit: Always, if nothing else: the interpreter's way to end.
    """
    script = command[1]
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv[:] = command[1:]
    sys.orig_argv[:] = command
    sys.path[:] = _search_path(script, environment, search_path)
    importlib.invalidate_caches()
    if faulthandler.is_enabled():
        # Its handlers went with the others when signals were reset.
        faulthandler.disable()
        faulthandler.enable()
    _renew_randomness()
    _renew_multiprocessing()
    namespace = _main_namespace(script)
    try:
        with io.open_code(script) as file:
            source = file.read()
        exec(  # noqa: S102 - running the user's script is what this is for
            compile(source, script, "exec", dont_inherit=True), namespace
        )
    except SystemExit:
        raise
    except BaseException:
        _hide_frames(script)
        raise
    raise SystemExit(0)


def _search_path(script: str, environment: Mapping[str, str], found: Sequence[str]) -> list[str]:
    """`sys.path` with the folders of PYTHONPATH that were not there yet, and the script's own."""
    added = environment.get("PYTHONPATH", "").split(os.pathsep)
    first = [] if sys.flags.safe_path else [str(Path(script).resolve().parent)]
    absolute = [os.path.abspath(entry) for entry in added if entry]  # noqa: PTH100 - as `site` does
    return first + list(dict.fromkeys([*absolute, *found]))


def _main_namespace(script: str) -> dict[str, Any]:
    """Make `__main__` what it is at a script's first line."""
    # A new module: objects from before the fork are exempt from garbage collection, and with the
    # old one all that the script leaves behind would be.
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    namespace = main.__dict__
    namespace.update(
        __loader__=SourceFileLoader("__main__", script),
        __annotations__={},
        __builtins__=builtins,
        __file__=script,
        __cached__=None,
    )
    return namespace


def _renew_randomness() -> None:
    """Seed what libraries seeded when they were imported; `random` does so itself at a fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        # A library of another version may not have it; then it draws no numbers that way either.
        with suppress(AttributeError):
            torch.default_generator.seed()


def _renew_multiprocessing() -> None:
    """Renew what `multiprocessing` took from the process when it was imported."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.__dict__["ORIGINAL_DIR"] = os.getcwd()  # noqa: PTH109 - what that module does
        process.current_process().authkey = os.urandom(32)


def _hide_frames(script: str) -> None:
    """Have the interpreter print tracebacks that begin in the script.

    Only what walks the stack itself (`inspect.stack()`, `faulthandler`) sees the frames below it.
    """
    hook = sys.excepthook

    def once(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        sys.excepthook = hook
        while traceback is not None and traceback.tb_frame.f_code.co_filename != script:
            traceback = traceback.tb_next
        sys.last_traceback = traceback
        try:
            hook(kind, error.with_traceback(traceback), traceback)
        except Exception as broken:  # noqa: BLE001 - printed here, for the same reason
            print("Error in sys.excepthook:", file=sys.stderr)  # noqa: T201 - as Python itself
            own = broken.__traceback__.tb_next if broken.__traceback__ else None
            broken.__context__ = None
            sys.__excepthook__(type(broken), broken.with_traceback(own), own)
            print("\nOriginal exception was:", file=sys.stderr)  # noqa: T201 - as Python itself
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = once
