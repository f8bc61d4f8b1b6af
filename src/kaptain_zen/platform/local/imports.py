"""What a script imports before anything else of it runs, found by reading it.

Only imports that can be done ahead of time without a difference: those at the top level of the main
file (and of the model's own modules that it imports), as far as no statement before them changes
what an import does, as setting `os.environ["OMP_NUM_THREADS"]` or extending `sys.path` would.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

_EFFECTS = frozenset(
    {
        "environ",
        "environb",
        "putenv",
        "unsetenv",
        "chdir",
        "setdlopenflags",
        "setrlimit",
        "sched_setaffinity",
        "meta_path",
        "path_hooks",
        "addsitedir",
        "addaudithook",
        "load_dotenv",
        "set_start_method",
    }
)
_SYS_EFFECTS = frozenset({"path", "modules", "argv"})
_READS = frozenset({"get", "keys", "items", "values", "copy"})


class _Stop(Exception):  # noqa: N818 - no error: the end of what may be done ahead of time
    """From here on imports may depend on what runs before them."""


def leading_imports(main: Path, folders: Sequence[Path]) -> tuple[str, ...]:
    """Find imports that can be done before the script runs.

    Args:
        main: The script.
        folders: Where the model's own modules are; those are read, and never imported ahead of
            time, because they may change from run to run.

    Returns:
        Import statements in the order of their execution, each once. Nothing is raised for files
        that are missing or not Python: the run itself will say so.
    """
    finder = _Finder(folders)
    with suppress(_Stop, RecursionError):
        finder.read(main, package=None)
    return tuple(dict.fromkeys(finder.statements))


class _Finder:
    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._read: set[Path] = set()
        self.statements: list[str] = []

    def read(self, file: Path, *, package: Path | None) -> None:
        """Go through one file.

        Args:
            file: The file.
            package: Folder that its relative imports are relative to, if it is in a package.
        """
        if file in self._read:
            return
        self._read.add(file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError, MemoryError):
            raise _Stop from None
        self._scan(tree.body, package)

    def _scan(self, body: Iterable[ast.stmt], package: Path | None) -> None:
        for node in body:
            match node:
                case ast.Import():
                    for alias in node.names:
                        self._import(alias.name, ())
                case ast.ImportFrom(module="__future__"):
                    pass
                case ast.ImportFrom():
                    self._import_from(node, package)
                case ast.Try() | ast.TryStar():
                    self._scan(node.body, package)
                    _refuse_effects([*node.orelse, *node.finalbody])
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    pass
                case ast.If() if _is_main_guard(node.test):
                    raise _Stop
                case _:
                    _refuse_effects([node])

    def _import_from(self, node: ast.ImportFrom, package: Path | None) -> None:
        names = tuple(alias.name for alias in node.names)
        if not node.level:
            self._import(node.module or "", names)
        elif package is not None:
            folder = package
            for _ in range(node.level - 1):
                folder = folder.parent
            self._own(folder, (node.module or "").split("."), names)

    def _import(self, module: str, names: tuple[str, ...]) -> None:
        parts = module.split(".")
        for folder in self._folders:
            if _is_own(folder, parts[0]):
                self._own(folder, parts, names)
                return
        if names:
            self.statements.append(f"from {module} import {', '.join(names)}")
        else:
            self.statements.append(f"import {module}")

    def _own(self, folder: Path, parts: Sequence[str], names: Sequence[str]) -> None:
        """Read a module of the model, the packages that it is in, and what is imported of it."""
        package = folder
        for part in filter(None, parts):
            if (package / f"{part}.py").is_file() and not (
                package / part / "__init__.py"
            ).is_file():
                self.read(package / f"{part}.py", package=package)
                return
            package = package / part
            if (package / "__init__.py").is_file():
                self.read(package / "__init__.py", package=package)
        for name in names:
            if (package / name / "__init__.py").is_file():
                self.read(package / name / "__init__.py", package=package / name)
            elif (package / f"{name}.py").is_file():
                self.read(package / f"{name}.py", package=package)


def _is_own(folder: Path, name: str) -> bool:
    if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file():
        return True
    return any(folder.glob(f"{name}.*.so"))


def _is_main_guard(test: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(test))


def _refuse_effects(nodes: Iterable[ast.stmt]) -> None:
    """Stop at a statement that may change what later imports do.

    Raises:
        _Stop: One of them does.
    """
    for node in nodes:
        reads = set(_reads(node))
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in _EFFECTS and part not in reads:
                raise _Stop
            if isinstance(part, ast.Attribute) and part not in reads:
                of_sys = isinstance(part.value, ast.Name) and part.value.id == "sys"
                if part.attr in _EFFECTS or (of_sys and part.attr in _SYS_EFFECTS):
                    raise _Stop


def _reads(node: ast.AST) -> Iterable[ast.expr]:
    """Mentions that only look: `os.environ["X"]`, `os.environ.get("X")`, `"X" in os.environ`."""
    for part in ast.walk(node):
        match part:
            case ast.Subscript(value=value, ctx=ast.Load()):
                yield value
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _READS:
                yield value
            case ast.Compare(comparators=others):
                yield from others
