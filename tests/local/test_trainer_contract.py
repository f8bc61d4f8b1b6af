"""A script finds the same interpreter in a training, warm or not, as when it is run by hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.local.training_support import PRELOADED, Bench, bench_at

from kaptain_zen.model.ports import RunState

SCRIPTS = {
    "prints": "print('hello')",
    "prints without an end": "import sys; sys.stdout.write('no newline')",
    "writes bytes": r"import sys; sys.stdout.buffer.write(b'a\xffb\n'); print('after')",
    "both streams in order": """
import sys
for i in range(50):
    print('out', i)
    print('err', i, file=sys.stderr)
""",
    "exit 0": "import sys; sys.exit(0)",
    "exit 3": "import sys; sys.exit(3)",
    "exit with a message": "import sys; sys.exit('what went wrong')",
    "exit None": "import sys; sys.exit(None)",
    "exit 256": "import sys; sys.exit(256)",
    "exit with an object": "raise SystemExit([1, 2])",
    "exit in a thread": """
import sys, threading
t = threading.Thread(target=lambda: sys.exit(5)); t.start(); t.join()
print('still here')
""",
    "uncaught": """
def deep(n):
    if not n:
        raise ValueError('bad input')
    deep(n - 1)
deep(3)
""",
    "uncaught with a cause": """
try:
    1 / 0
except ZeroDivisionError as error:
    raise RuntimeError('while computing') from error
""",
    "uncaught group": "raise ExceptionGroup('several', [ValueError(1), TypeError('two')])",
    "uncaught with notes": "e = ValueError('x'); e.add_note('look here'); raise e",
    "uncaught in a thread": """
import threading
t = threading.Thread(target=lambda: 1 / 0, name='background'); t.start(); t.join()
""",
    "syntax error": "print('never')\ndef (:\n",
    "syntax error that only a compiler sees": "print('never')\nreturn 1\n",
    "syntax error elsewhere": "exec(compile('1 +', 'other', 'exec'))",
    "null byte in the source": "x = 1\0\n",
    "wrong encoding": "# -*- coding: klingon -*-\n",
    "interrupted": "raise KeyboardInterrupt('stop')",
    "own excepthook": """
import sys
sys.excepthook = lambda kind, error, tb: print('hook', kind.__name__, tb.tb_lineno, tb.tb_next)
raise ValueError('x')
""",
    "broken excepthook": """
import sys
def hook(*_):
    raise TypeError('broken')
sys.excepthook = hook
raise ValueError('x')
""",
    "os._exit": "import os; print('before'); os._exit(7)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupted by a signal": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "broken pipe is an error": """
import os
r, w = os.pipe(); os.close(r)
os.write(w, b'x')
""",
    "argparse error": """
import argparse
parser = argparse.ArgumentParser(); parser.add_argument('--n', type=int, required=True)
parser.parse_args(['--n', 'x'])
""",
    "argparse help": """
import argparse
argparse.ArgumentParser(description='Trains').parse_args(['--help'])
""",
    "missing module": "import there_is_no_such_module",
    "main guard": "print(__name__)\nif __name__ == '__main__':\n    print('main')",
    "docstring": "'''Of the script.'''\nprint(__doc__)",
    "names": """
print(sorted(name for name in globals() if name != 'psutil'), __spec__, __package__, __file__)
""",
    "loader": "print(type(__loader__).__name__, __loader__.name, __builtins__.__name__)",
    "main module": "import sys; print(sys.modules['__main__'].__dict__ is globals())",
    "future annotations off": "def f(x: int): ...\nprint(f.__annotations__)",
    "arguments": "import sys; print(sys.argv, sys.orig_argv[1:])",
    "search path": "import sys; print(sys.path)",
    "folder": "import os; print(os.getcwd(), sorted(os.listdir()))",
    "environment": """
import os
for name, value in sorted(os.environ.items()):
    print(name, value)
""",
    "environment of children": """
import os, subprocess
child = subprocess.run(['/usr/bin/env', '-0'], capture_output=True, text=True).stdout
print(dict(v.split('=', 1) for v in child.split('\\0') if v) == dict(os.environ))
""",
    "standard streams": """
import os, sys
for s in (sys.stdin, sys.stdout, sys.stderr):
    print(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(),
          type(s.buffer).__name__, s.fileno(), s is getattr(sys, f'__{s.name[1:-1]}__'))
print(repr(sys.stdin.read()), os.readlink('/proc/self/fd/0'))
""",
    "descriptors": """
import os
found = os.listdir('/proc/self/fd')
print(sorted(int(n) for n in found if os.path.exists(f'/proc/self/fd/{n}')))
""",
    "signals": """
import signal
for number in sorted(signal.valid_signals()):
    print(number, signal.getsignal(number))
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1), signal.getitimer(0))
""",
    "process": """
import os, resource, threading, sys, gc
print(os.getsid(0) == os.getpid() == os.getpgid(0), os.umask(0o22), os.nice(0))
print([resource.getrlimit(n) for n in range(16)], sorted(os.sched_getaffinity(0)))
print(threading.active_count(), threading.main_thread() is threading.current_thread())
print(threading.current_thread().name, threading.get_native_id() == os.getpid())
print(sys.flags, sys.executable, sys.prefix, gc.isenabled(), gc.get_threshold())
print(sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile())
print(os.popen('ps -o comm= -p %d' % os.getpid()).read() and 'has a name')
""",
    "recursion": """
import sys
def down(n):
    try:
        return down(n + 1)
    except RecursionError:
        return n
print(down(0) > sys.getrecursionlimit() - 20)
""",
    "locale and time": """
import locale, time, sys
print(locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(), sys.getfilesystemencoding())
print(time.tzname, sys.getdefaultencoding(), sys.flags.utf8_mode)
""",
    "logging": """
import logging
print(logging.getLogger().handlers, logging.getLogger().level)
logging.warning('careful')
logging.basicConfig(level='INFO', force=True)
logging.getLogger('x').info('noted')
""",
    "warnings": """
import warnings
warnings.warn('this is old', DeprecationWarning)
warnings.warn('this is odd')
""",
    "atexit in order": """
import atexit, threading, time
atexit.register(print, 'registered first')
atexit.register(print, 'registered last')
threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()
print('end of script')
""",
    "atexit after an error": """
import atexit
atexit.register(print, 'clean-up')
raise ValueError('x')
""",
    "atexit that exits": "import atexit, os; atexit.register(os._exit, 9)",
    "destructor at the end": """
class Thing:
    def __del__(self):
        print('gone')
thing = Thing()
loop = Thing(); loop.itself = loop
""",
    "unclosed file": """
file = open('written.txt', 'w')
file.write('kept')
import atexit
atexit.register(lambda: print(open('written.txt').read() or 'not flushed yet'))
""",
    "temporary folder": """
import tempfile, os
kept = tempfile.TemporaryDirectory()
print(os.path.isdir(kept.name))
""",
    "weak finalizer": """
import weakref
class Thing: pass
thing = Thing()
weakref.finalize(thing, print, 'finalized')
""",
    "daemon thread": """
import threading, time
def forever():
    while True:
        time.sleep(0.01)
threading.Thread(target=forever, daemon=True).start()
print('done')
""",
    "asyncio": """
import asyncio
async def work():
    await asyncio.sleep(0.01)
    process = await asyncio.create_subprocess_exec('true')
    return await process.wait()
print(asyncio.run(work()))
""",
    "pickle of main": """
import pickle
class Model:
    def __init__(self, n): self.n = n
    def __eq__(self, other): return self.n == other.n
data = pickle.dumps(Model(3))
print(pickle.loads(data) == Model(3), b'__main__' in data, Model.__module__)
""",
    "inspect": """
import inspect
def f():
    return 1
print(inspect.getsource(f), inspect.getfile(f), inspect.getmodule(f).__name__)
""",
    "fork": """
import os, sys
pid = os.fork()
if not pid:
    print('child'); sys.exit(4)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
    **{
        f"multiprocessing by {method}": f"""
import multiprocessing as mp, os
def work(n):
    return n * n, __name__
def speak():
    print('child', __name__, os.getcwd(), flush=True)
if __name__ == '__main__':
    context = mp.get_context({method!r})
    print(mp.get_start_method())
    process = context.Process(target=speak); process.start(); process.join()
    print(process.exitcode)
    with context.Pool(2) as pool:
        print(pool.map(work, range(4)))
    queue = context.Queue(); queue.put(3); print(queue.get())
    with context.Manager() as manager:
        print(list(manager.list([1, 2])))
"""
        for method in ("fork", "spawn", "forkserver")
    },
    "multiprocessing's own folder": """
import multiprocessing.process
print(multiprocessing.process.ORIGINAL_DIR)
""",
    "process pool": """
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
if __name__ == '__main__':
    with ProcessPoolExecutor(2) as pool, ThreadPoolExecutor(2) as threads:
        print(list(pool.map(abs, [-1, -2])), list(threads.map(abs, [-3])))
""",
    "subprocess": """
import subprocess, sys
print(subprocess.run([sys.executable, '-c', 'import sys; print(sys.argv, sys.path[0])', 'x'],
                     capture_output=True, text=True).stdout)
subprocess.run(['sh', '-c', 'echo from the shell; echo to the error >&2; exit 3'])
""",
    "crash with faulthandler": """
import faulthandler, os, signal, resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faulthandler.enable()
print(faulthandler.is_enabled())
signal.raise_signal(signal.SIGSEGV)
""",
    "big output": """
for i in range(20000):
    print(i, 'x' * 100)
""",
    "import of itself": """
import training, sys
print(training.__name__, training is sys.modules['__main__'])
""",
    "sys.path changed late": """
import sys, os
os.makedirs('more'); open('more/late.py', 'w').write('VALUE = 5')
sys.path.insert(0, 'more')
import late
print(late.VALUE)
""",
    "closed output": "import sys; sys.stdout.close(); sys.exit(0)",
    "replaced output": """
import io, sys
old, sys.stdout = sys.stdout, io.StringIO()
print('hidden')
sys.stdout = old
print('shown')
""",
}
_PASSED = ("first argument", "--rate", "0.5", "--deep", "True", "--key=a b", "--empty=")


def by_hand(bench: Bench, folder: Path) -> tuple[int, list[str]]:
    """Run the script as a person would, under the same variables and in a session of its own."""
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "TRAINED_MODEL_UPLOAD_PATH": (bench.folder / "models").as_uri(),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(bench.files), os.environ.get("PYTHONPATH")])
        ),
    }
    done = subprocess.run(
        [sys.executable, str(folder / "training.py"), *_PASSED],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace").splitlines()


def comparable(lines: list[str]) -> list[str]:
    """Without what differs between runs of a script: addresses, and stacks that are not Python's.

    `faulthandler` walks the real stack, on which a warm start has frames below the script's.
    """
    kept = [line for line in lines if line and not re.match(r'  File ".*", line \d+ in ', line)]
    return [re.sub(r"0x[0-9a-f]{8,}", "0x", line) for line in kept]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_training_is_like_a_run_by_hand(tmp_path: Path, name: str) -> None:
    with bench_at(tmp_path / "exec", warm=False) as cold, bench_at(tmp_path / "warm") as warm:
        handles = {
            bench: bench.submit(
                SCRIPTS[name],
                args=("first argument",),
                hyperparameters={"rate": 0.5, "deep": True},
                kwargs={"key": "a b", "empty": ""},
            )
            for bench in (cold, warm)
        }
        for bench, handle in handles.items():
            status, lines = bench.finish(handle)
            # In the same folder, so that every path that is printed is the same.
            folder = bench.run_folder(handle.name).worker(0)
            assert (folder / "training.py").read_text() == PRELOADED + SCRIPTS[name]
            empty(folder)
            code, expected = by_hand(bench, folder)
            assert comparable(lines) == comparable(expected)
            assert status.exit_codes == {"worker-0": code}
            assert (code == 0) == (status.state is RunState.SUCCEEDED)


def empty(folder: Path) -> None:
    """Remove what the script made."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "training.py":
            path.unlink()
