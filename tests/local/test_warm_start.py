"""Warm starts: what is shared between runs and what is not, and when there is none."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.local.training_support import Bench, bench_at, model
from tests.processes import eventually
from tests.s3_server import S3Server

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.model.ports import RunState
from kaptain_zen.model.record import RunHandle
from kaptain_zen.model.resources import Resources
from kaptain_zen.platform.local import warm


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench with warm starts and no warm server yet."""
    warm.SERVERS.close()
    with bench_at(tmp_path / "bench") as made:
        yield made
    warm.SERVERS.close()
    eventually(lambda: not _servers())


WAITS_FOR_A_FILE = """
import os, time
print('ready')
while not os.path.exists('go'):
    time.sleep(0.01)
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed modules."""
    folder = tmp_path / "library"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def _servers() -> list[psutil.Process]:
    """Warm servers and templates whose client is this process."""
    found = []
    for process in psutil.process_iter():
        try:
            if any("warm_server" in word for word in process.cmdline()) and (
                process.environ().get("PYTEST_CURRENT_TEST", "").split(" ")[0]
                == os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def start(bench: Bench, handle: RunHandle) -> str:
    bench.trainer.wait(handle, timeout=60)
    return bench.progress(handle.name).start


def run(bench: Bench, script: str, *, expect: str) -> list[str]:
    """Run a script and expect how it is started."""
    lines: list[str] = []
    handle = bench.submit(script)
    status = bench.trainer.wait(handle, timeout=60, on_log=lambda line: lines.append(line.text))
    assert status.state is RunState.SUCCEEDED, status.reason
    assert bench.progress(handle.name).start == expect
    return lines


def test_imports_are_done_once(bench: Bench, library: Path) -> None:
    (library / "slow.py").write_text(
        f"import time; time.sleep(0.5); open({str(library / 'count')!r}, 'a').write('.')"
    )
    began = time.monotonic()
    for _ in range(4):
        run(bench, "import slow", expect="fork")
    assert (library / "count").read_text() == "."
    assert time.monotonic() - began < 6


def test_what_one_run_changes_no_other_sees(bench: Bench, library: Path) -> None:
    (library / "state.py").write_text("values = []")
    script = (
        "import state, os, sys\nprint(state.values, 'LEAK' in os.environ, len(sys.argv))\n"
        "state.values.append(1); os.environ['LEAK'] = '1'; sys.argv.append('x')"
    )
    for _ in range(2):
        assert run(bench, script, expect="fork") == ["[] False 1"]


def test_random_numbers_differ_between_runs_and_workers(bench: Bench) -> None:
    script = (
        "import numpy.random, random, uuid, tempfile, multiprocessing\n"
        "print(random.random(), numpy.random.rand(), numpy.random.default_rng().random(),\n"
        "      uuid.uuid4(), tempfile.mktemp(), multiprocessing.current_process().authkey.hex())"
    )
    handles = [bench.submit(script, spec=model("pytorch"), workers=2) for _ in range(3)]
    rows = [line.split() for handle in handles for line in bench.finish(handle)[1]]
    assert len(rows) == 6
    for column in zip(*rows, strict=True):
        assert len(set(column)) == 6


def test_a_seeded_run_is_the_same_by_either_way(bench: Bench, tmp_path: Path) -> None:
    script = (
        "import numpy, random\nrandom.seed(1); numpy.random.seed(1)\n"
        "print(random.random(), numpy.random.rand(3).tolist())"
    )
    with bench_at(tmp_path / "exec", warm=False) as cold:
        assert cold.run(script)[1] == run(bench, script, expect="fork")


def test_blas_and_joblib_work_in_a_fork(bench: Bench) -> None:
    script = """
import joblib, numpy, scipy.linalg, sklearn.ensemble, sklearn.datasets
a = numpy.random.default_rng(0).random((400, 400))
print(round(float(numpy.linalg.norm(scipy.linalg.inv(a) @ a)), 6))
X, y = sklearn.datasets.load_iris(return_X_y=True)
forest = sklearn.ensemble.RandomForestClassifier(20, n_jobs=2, random_state=0).fit(X, y)
boost = sklearn.ensemble.HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, y)
print(forest.score(X, y) > 0.9, boost.score(X, y) > 0.9)
print(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(n) for n in (-1, -2)))
print(joblib.Parallel(n_jobs=2, backend='multiprocessing')(joblib.delayed(abs)(n) for n in (-3,)))
"""
    assert run(bench, script, expect="fork") == ["20.0", "True True", "[1, 2]", "[3]"]


def test_a_model_goes_to_s3_and_the_keys_to_nowhere_else(
    tmp_path: Path, s3_server: S3Server, s3_folder: str
) -> None:
    script = """
from kaptain_zen.platform.metadata_util import MetadataUtil
from kaptain_zen.platform.model_export_util import ModelExportUtil
open('model.txt', 'w').write('trained')
ModelExportUtil().upload_model('model.txt')
MetadataUtil.record_metrics({'accuracy': 0.5})
"""
    keys = [value for name, value in s3_server.environment.items() if "KEY" in name]
    for warm_start in (True, False):
        folder = f"{s3_folder}/{warm_start}"
        with bench_at(tmp_path / folder[-4:], warm=warm_start, **s3_server.environment) as bench:
            status, _ = bench.run(script, upload_uri=folder)
            assert status.state is RunState.SUCCEEDED, status.reason
            assert status.metrics["accuracy"]["latest"] == 0.5
            for path in bench.folder.rglob("*"):
                assert not path.is_file() or not any(key in path.read_text() for key in keys)
        found = s3_server.client().list_objects_v2(
            Bucket=s3_server.bucket, Prefix=folder.removeprefix(s3_server.uri()).strip("/")
        )
        names = sorted(item["Key"].rpartition("/")[2] for item in found["Contents"])
        assert names == ["metrics.json", "model.txt"]
        assert keys
    # No server was told the keys: another process of this user could read its environment.
    assert not [key for key in keys for p in _servers() if key in "".join(p.environ().values())]


def test_digits_are_learnt_with_the_limits_of_the_tutorial(bench: Bench) -> None:
    script = (Path(__file__).parents[2] / "examples" / "digits" / "training.py").read_text()
    status, _ = bench.run(script, resources=Resources.choose(None, cpu="0.5", memory="1G"))
    assert status.metrics["accuracy"]["latest"] > 0.96, status.reason
    assert (bench.folder / "models" / "model.joblib").stat().st_size > 0


def test_an_import_that_changes_the_environment_or_the_path_has_changed_it(
    bench: Bench, library: Path, tmp_path: Path
) -> None:
    (library / "setter.py").write_text(
        "import os, sys, signal\nos.environ['SET_BY_IMPORT'] = '1'; os.environ.pop('TO_GO', None)\n"
        "sys.path.append('/added/by/import')\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "kept = open(__file__)"
    )
    script = (
        "import setter, os, sys, signal\n"
        "print(os.environ['SET_BY_IMPORT'], sys.path[-1], signal.getsignal(signal.SIGHUP))\n"
        "print(setter.kept.read(6))"
    )
    with bench_at(tmp_path / "exec", warm=False) as cold:
        assert cold.run(script)[1] == run(bench, script, expect="fork")


def test_the_model_s_own_modules_are_read_anew(bench: Bench) -> None:
    for value in ("one", "two"):
        (bench.files / "helper.py").write_text(f"import sklearn\nVALUE = {value!r}")
        assert run(bench, "import helper; print(helper.VALUE)", expect="fork") == [value]


UNLESS_RUN = "import os, signal\nif not os.environ.get('TRAINED_MODEL_UPLOAD_PATH'):\n    "
NATIVE_THREAD = """
import ctypes, threading
libc, thread = ctypes.CDLL(None), ctypes.c_ulong()
libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
"""
UNSAFE = {
    "thread": """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
""",
    "native thread": NATIVE_THREAD,
    "process": "import subprocess; child = subprocess.Popen(['sleep', '600'])",
    "connection": "import socket; pair = socket.socketpair()",
    # Mapped under the name of CUDA's driver, as loading it would.
    "CUDA": """
import mmap, tempfile
file = open(tempfile.mkdtemp() + '/libcuda.so.1', 'wb+')
file.write(b'x')
file.flush()
driver = mmap.mmap(file.fileno(), 0)
""",
    "exit": UNLESS_RUN + "os._exit(3)",
    "crash": UNLESS_RUN + "os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("module", UNSAFE)
def test_imports_that_forbid_forking_lead_to_a_fresh_interpreter(
    bench: Bench,
    library: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
) -> None:
    monkeypatch.setenv("TMPDIR", str(library))
    (library / "unsafe.py").write_text(UNSAFE[module])
    with caplog.at_level(logging.DEBUG, logger="kaptain_zen"):
        handles = [bench.submit("import unsafe; print(1)") for _ in range(3)]
        for handle in handles:
            assert start(bench, handle) == "exec"
            assert bench.trainer.status(handle).state is RunState.SUCCEEDED
        # From now on the client does not even ask.
        run(bench, "import unsafe; print(1)", expect="exec")
    assert "No warm start" in caplog.text


def test_an_import_that_hangs_is_given_up(
    bench: Bench, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "_IMPORT_TIME", 0.5)
    (library / "stuck.py").write_text(
        "import os, time\nif not os.environ.get('TRAINED_MODEL_UPLOAD_PATH'): time.sleep(600)"
    )
    run(bench, "import stuck; print(1)", expect="exec")


def test_an_import_that_fails_fails_in_the_run(bench: Bench, library: Path) -> None:
    (library / "broken.py").write_text("raise RuntimeError('not for this machine')")
    status, lines = bench.run("import broken")
    assert status.state is RunState.FAILED
    assert "RuntimeError: not for this machine" in status.reason
    assert [line for line in lines if "training.py" in line] != []


@pytest.mark.parametrize("value", ["false", "0", "No", "off"])
def test_a_variable_turns_warm_starts_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("KAPTAIN_ZEN_WARM_START", value)
    run(bench, "print(1)", expect="exec")
    bench.trainer.prepare(model(), base_dir=bench.files)
    assert _servers() == []


def test_a_variable_that_says_neither_yes_nor_no_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPTAIN_ZEN_WARM_START", "perhaps")
    with pytest.raises(ConfigurationError, match="KAPTAIN_ZEN_WARM_START"):
        bench.submit("print(1)")
    assert [path for path in bench.home.runs.glob("*") if path.name[0] != "."] == []


def test_scripts_that_import_nothing_slow_need_no_server(bench: Bench) -> None:
    (bench.files / "training.py").write_text("import json")
    bench.trainer.prepare(model(), base_dir=bench.files)
    assert _servers() == []


def test_imports_can_begin_before_the_first_run(bench: Bench, library: Path) -> None:
    (library / "slow.py").write_text(f"open({str(library / 'done')!r}, 'w')")
    request = bench.request("import slow; print(1)")
    bench.trainer.prepare(request.spec, base_dir=bench.files)
    eventually((library / "done").exists)
    (library / "done").unlink()
    assert start(bench, bench.trainer.submit(request)) == "fork"
    assert not (library / "done").exists()


def test_preparing_a_model_that_cannot_be_trained_does_nothing(bench: Bench) -> None:
    bench.trainer.prepare(model(main_file="nowhere.py"), base_dir=bench.files)
    assert _servers() == []


def test_variables_that_change_imports_lead_to_another_server(
    bench: Bench, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library / "reader.py").write_text(
        "import os\nSEEN = os.environ.get('CHOICE'), os.environ.get('OMP_NUM_THREADS')"
    )
    script = "import reader; print(*reader.SEEN)"
    assert run(bench, script, expect="fork") == ["None None"]
    monkeypatch.setenv("CHOICE", "a")
    assert run(bench, script, expect="fork") == ["a None"]
    handle = bench.submit(script, resources=Resources(cpu_limit="1"))
    assert bench.finish(handle)[1] == ["a 1"]
    assert len(_servers()) <= 3 * 2
    # Not more than two are kept.
    eventually(lambda: len(_servers()) == 2 * 2)


def test_the_server_holds_nothing_of_its_client(bench: Bench, tmp_path: Path) -> None:
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        run(bench, "print(1)", expect="fork")
        assert len(_servers()) == 2
        for server in _servers():
            assert os.getsid(server.pid) != os.getsid(0)
            assert server.cwd() == "/"
            links = [Path(f"/proc/{server.pid}/fd/{number}") for number in range(3)]
            assert [str(link.readlink()) for link in links] == ["/dev/null"] * 3
            assert held.name not in [file.path for file in server.open_files()]


def test_the_server_ends_with_its_last_run_when_it_is_given_up(bench: Bench) -> None:
    handle = bench.submit(
        "import time, os\nprint('ready')\nwhile not os.path.exists('go'): time.sleep(0.01)"
    )
    bench.until(handle, "ready")
    assert len(_servers()) == 4  # server, template, supervisor, worker
    warm.SERVERS.close()
    eventually(lambda: len(_servers()) == 3)  # the template waits for its children
    (bench.run_folder(handle.name).worker(0) / "go").touch()
    assert bench.finish(handle)[0].state is RunState.SUCCEEDED
    eventually(lambda: not _servers())


@pytest.mark.parametrize("victim", [0, 1], ids=["server", "template"])
def test_a_killed_server_takes_no_run_along_and_is_replaced(bench: Bench, victim: int) -> None:
    handle = bench.submit(WAITS_FOR_A_FILE)
    bench.until(handle, "ready")
    os.kill(server_and_template()[victim], signal.SIGKILL)
    # The next one is started all the same, by a new server or by the old one without a template.
    status = bench.trainer.wait(bench.submit("print(1)"), timeout=60)
    assert status.state is RunState.SUCCEEDED
    (bench.run_folder(handle.name).worker(0) / "go").touch()
    assert bench.finish(handle)[0].state is RunState.SUCCEEDED


def test_a_run_that_a_killed_template_was_about_to_start_is_started(bench: Bench) -> None:
    run(bench, "print(1)", expect="fork")
    _, template = server_and_template()
    os.kill(template, signal.SIGSTOP)
    handle = bench.submit("print(1)")
    time.sleep(0.3)  # for the server to hand it over
    assert bench.trainer.status(handle).state is RunState.PENDING
    os.kill(template, signal.SIGKILL)
    assert start(bench, handle) == "exec"
    assert bench.trainer.status(handle).state is RunState.SUCCEEDED


def test_a_run_that_waits_for_imports_can_be_cancelled(bench: Bench, library: Path) -> None:
    (library / "slow.py").write_text("import time; time.sleep(2)")
    handle = bench.submit("import slow; print('never')")
    began = time.monotonic()
    bench.trainer.cancel(handle)
    assert time.monotonic() - began < 1
    assert bench.trainer.status(handle).state is RunState.CANCELLED
    gone = bench.submit("import slow; print('never')")
    bench.trainer.delete(gone)
    run(bench, "import slow; print(1)", expect="fork")
    assert not bench.run_folder(handle.name).log.exists()
    assert not bench.run_folder(gone.name).path.exists()


def server_and_template() -> tuple[int, int]:
    """Process ids of the one warm server and its template."""
    parents = {process.pid: process.ppid() for process in _servers()}
    server = next(pid for pid, parent in parents.items() if parent not in parents)
    return server, next(pid for pid, parent in parents.items() if parent == server)


def test_a_crashing_worker_does_no_harm(bench: Bench) -> None:
    crash = (
        "import ctypes, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "ctypes.string_at(0)"
    )
    status, _ = bench.run(crash)
    assert status.exit_codes == {"worker-0": -signal.SIGSEGV}
    run(bench, "print(1)", expect="fork")


def test_many_runs_at_once(bench: Bench) -> None:
    request = bench.request("import sys; print(sys.argv[1])")

    def one(number: int) -> list[str]:
        chosen = request.model_copy(update={"name": f"run-{number}", "args": (str(number),)})
        return bench.finish(bench.trainer.submit(chosen))[1]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(24))) == [[str(number)] for number in range(24)]


def test_a_server_that_nobody_needs_ends_and_is_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "_IDLE_TIME", 0.3)
    run(bench, "print(1)", expect="fork")
    eventually(lambda: not _servers())
    run(bench, "print(1)", expect="fork")


def test_a_client_that_forks_leaves_the_server_to_its_parent(bench: Bench) -> None:
    run(bench, "print(1)", expect="fork")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if not warm.SERVERS._servers else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run(bench, "print(1)", expect="fork")


def test_an_environment_of_any_size_and_content_arrives(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARGE", "x" * 100_000)
    monkeypatch.setenv("LARGER", "y" * 100_000)
    monkeypatch.setenv("ODD", "caf\udce9 = \n")
    assert run(
        bench,
        "import os\n"
        "print(len(os.environ['LARGE'] + os.environ['LARGER']), ascii(os.environ['ODD']))",
        expect="fork",
    ) == ["200000 'caf\\udce9 = \\n'"]
