"""The files that make up a model: found, checked, and laid out as they would be in an image."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.model.spec import ModelSpec

_COPIED_UP_TO = 16 * 1024 * 1024


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    Attributes:
        source: Where it is.
        target: Where it belongs, relative to the folder that the script runs in.
    """

    source: Path
    target: Path


def main_file(spec: ModelSpec, base_dir: Path) -> ModelFile:
    """The file that trains the model.

    Raises:
        ModelValidationException: It is missing or cannot be read.
    """
    return _checked(spec.main_file, "main_file", base_dir)


def model_files(spec: ModelSpec, base_dir: Path) -> list[ModelFile]:
    """All files of a model, the main one first.

    What lies below the base folder keeps its place; anything else is put beside the main file by
    its own name. Folders among the extra files stand for all that is in them.

    Args:
        spec: The model.
        base_dir: Folder that its files are relative to.

    Raises:
        ModelValidationException: One is missing or cannot be read, or two want the same place.
    """
    found = [main_file(spec, base_dir)]
    for extra in spec.extra_files:
        found += _below(_checked(extra, "extra_files", base_dir, folders=True))
    if isinstance(spec.requirements, str):
        found.append(_checked(spec.requirements, "requirements", base_dir))
    places: dict[Path, ModelFile] = {}
    for file in found:
        other = places.setdefault(file.target, file)
        if other.source != file.source:
            raise ModelValidationException(
                f"The model's files {other.source} and {file.source} would both become "
                f"{file.target}. Rename one of them, or move both below {base_dir}."
            )
    return list(places.values())


def lay_out(files: list[ModelFile], folder: Path) -> None:
    """Put a model's files into a folder.

    Args:
        files: What `model_files` found. Files of more than 16 MiB are linked, not copied.
        folder: Where to; must exist.

    Raises:
        ModelValidationException: One has become unreadable.
    """
    for file in files:
        target = folder / file.target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.source.stat().st_size > _COPIED_UP_TO:
                target.symlink_to(file.source)
            else:
                shutil.copy2(file.source, target)
        except OSError as error:
            raise ModelValidationException(
                f"The model's file {file.source} cannot be copied to {folder}: {error.strerror}."
            ) from error


def _checked(name: str, what: str, base_dir: Path, *, folders: bool = False) -> ModelFile:
    base = base_dir.expanduser().absolute()
    source = Path(os.path.normpath(base / Path(name).expanduser()))
    problem = None
    if not source.exists():
        problem = "does not exist"
    elif not source.is_file() and not (folders and source.is_dir()):
        problem = "is not a file"
    elif not os.access(source, os.R_OK | (os.X_OK if source.is_dir() else 0)):
        problem = "cannot be read"
    if problem:
        raise ModelValidationException(
            f"{source} ({what}: {name!r}, base_dir: {base}) {problem}. Correct `{what}` of the "
            f"model, or `base_dir` of the Config."
        )
    inside = source.is_relative_to(base) and source != base
    return ModelFile(source, source.relative_to(base) if inside else Path(source.name))


def _below(file: ModelFile) -> list[ModelFile]:
    if not file.source.is_dir():
        return [file]
    return [
        ModelFile(path, file.target / path.relative_to(file.source))
        for path in sorted(file.source.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
