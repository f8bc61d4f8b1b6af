"""Hands a trained model over to the storage."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.training import files, s3, s3_errors
from kaptain_zen.training.ranks import is_chief
from kaptain_zen.training.uris import Location, join, parse

UPLOAD_PATH = "TRAINED_MODEL_UPLOAD_PATH"
"""Variable with the URI of the folder that the model goes to."""


class ModelExportUtil:
    """Uploads a model from a training script.

    Example:
        >>> ModelExportUtil().upload_model("model.joblib")  # doctest: +SKIP
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Look at where the model goes.

        Args:
            environ: The variables of the training contract; the process's own if None.
        """
        self._environ = os.environ if environ is None else environ

    def upload_model(self, path: str | os.PathLike[str]) -> str | None:
        """Upload a file, or all files of a folder, to `$TRAINED_MODEL_UPLOAD_PATH`.

        A file keeps its name there. The content of a folder goes there without the folder's own
        name. Of several workers only the one of rank 0 uploads. When it fails or is interrupted,
        nothing new is left there.

        Args:
            path: The file or folder.

        Returns:
            URI of the file, or of the folder that the content is in; the same in every worker.
            None when the variable is not set, as when the script is run by hand.

        Raises:
            ModelValidationException: There is nothing at `path`, or the folder is empty.
            ConfigurationError: A variable of the training contract is wrong.
            StorageError: The storage cannot be reached or refuses; or a link is in the folder.
        """
        source = _path(path)
        target = self._environ.get(UPLOAD_PATH, "").strip()
        if not target:
            _say(f"{UPLOAD_PATH} is not set: the model stays at {source}.")
            return None
        location = parse(target)
        chief = is_chief(self._environ)
        if not chief:
            _say("The model is uploaded by the worker of rank 0, not by this one.")
            return target if source.is_dir() else join(target, source.name)
        found = _found(source)
        if location.scheme == "s3":
            self._to_s3(location, found, target)
        else:
            _to_folder(Path(location.path), found, target)
        return target if source.is_dir() else join(target, source.name)

    def _to_s3(self, location: Location, found: list[tuple[str, Path]], target: str) -> None:
        client = s3.shared_client(self._environ)
        with s3_errors.explained("written", target, client):
            s3.put_files(client, location.bucket, location.path, found)


def _to_folder(folder: Path, found: list[tuple[str, Path]], target: str) -> None:
    with files.explained("written", target), files.staged(folder) as stage:
        for name, path in found:
            files.copy_atomically(path, stage / name)


def _path(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise ModelValidationException(
            f"The model to upload must be given as the path of a file or folder, not as {path!r}."
        ) from None


def _found(source: Path) -> list[tuple[str, Path]]:
    with files.explained("read", source):
        if source.is_dir():
            found = files.files_below(source)
            if not found:
                raise ModelValidationException(
                    f"The folder {source} holds no file, so there is no model to upload."
                )
            return found
        if source.is_file():
            return [(source.name, source)]
    raise ModelValidationException(
        f"There is no file or folder {source} (working directory: {Path.cwd()}), so there is no "
        f"model to upload. Save the model first."
    )


def _say(text: str) -> None:
    # Standard output is for metrics.
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
