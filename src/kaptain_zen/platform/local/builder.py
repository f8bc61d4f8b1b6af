"""Builds no image: here, trainings run in the environment that the client runs in.

What a build means on any platform is kept: the model's files are checked, their content gets a
checksum, and the same content under the same name is not built twice.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import warnings
from pathlib import Path

from kaptain_zen.exceptions import ConfigurationError, ModelValidationException
from kaptain_zen.model.names import label_value, slug
from kaptain_zen.model.record import Image
from kaptain_zen.model.spec import ModelSpec
from kaptain_zen.platform.local.files import ModelFile, model_files
from kaptain_zen.platform.local.home import LocalHome, read_json, write_json

_log = logging.getLogger("kaptain_zen")
_BLOCK = 1 << 20


class LocalBuilder:
    """Checks a model's files and remembers their checksum under the image's name."""

    def __init__(self, home: LocalHome) -> None:
        """Prepare; nothing is made.

        Args:
            home: Where checksums are kept.
        """
        self._home = home

    def build(self, spec: ModelSpec, *, base_dir: Path, verbose: bool = False) -> Image:
        """Check the model's files and record what they are.

        Args:
            spec: The model.
            base_dir: Folder that its files are relative to.
            verbose: Log each file.

        Returns:
            The image's name, always with a tag, and its checksum; there is no digest.

        Raises:
            ModelValidationException: A file is missing or cannot be read, or the main file is not
                Python. Nothing was written.
            ConfigurationError: The home cannot be written to.
        """
        found = model_files(spec, base_dir)
        _check_syntax(found[0])
        digests = {str(file.target): _digest(file.source) for file in found}
        checksum = image_checksum(spec, digests)
        image = Image(name=image_name(spec), checksum=checksum)
        note = self._home.images / f"{slug(image.name)}.json"
        if _recorded(note, image.name) == checksum:
            _log.info("Image %s holds the same content already; skipping its build.", image.name)
            return image
        if verbose:
            for target, digest in digests.items():
                _log.info("Image %s: %s (sha256 %s)", image.name, target, digest[:12])
        self._home.ensure(self._home.images)
        try:
            write_json(note, {"name": image.name, "checksum": checksum})
        except OSError as error:
            raise ConfigurationError(f"{note} cannot be written: {error.strerror}.") from error
        _log.info(
            "Recorded image %s; trainings on this machine use the Python environment at hand "
            "instead.",
            image.name,
        )
        return image


def image_name(spec: ModelSpec) -> str:
    """The image's name with a tag.

    Args:
        spec: The model. If its `image_name` has no tag, model id, framework and framework version
            become one, made legal where they are not.
    """
    last = spec.image_name.rpartition("/")[2]
    if ":" in last or "@" in last:
        return spec.image_name
    tag = "-".join((spec.id.replace("/", "-"), spec.framework.value, spec.framework_version))
    return f"{spec.image_name}:{label_value(tag)}"


def image_checksum(spec: ModelSpec, digests: dict[str, str]) -> str:
    """Checksum over everything that would go into the image.

    Args:
        spec: The model.
        digests: SHA-256 of each of its files by the place that it has.

    Returns:
        SHA-256 in hex.
    """
    content = {
        "base_image": spec.base_image,
        "framework": spec.framework.value,
        "framework_version": spec.framework_version,
        "main_file": spec.main_file,
        "files": digests,
        "requirements": spec.requirements,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _recorded(note: Path, name: str) -> str | None:
    try:
        known = read_json(note)
    except (ValueError, OSError):
        return None  # half a note is as good as none: it is written anew
    if not isinstance(known, dict) or known.get("name") != name:
        return None
    return known.get("checksum")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ModelValidationException(
            f"The model's file {path} cannot be read: {error.strerror}."
        ) from error
    return digest.hexdigest()


def _check_syntax(main: ModelFile) -> None:
    try:
        with warnings.catch_warnings():
            # What the script's author should know is said when it runs.
            warnings.simplefilter("ignore")
            ast.parse(main.source.read_bytes(), filename=str(main.source))
    except SyntaxError as error:
        raise ModelValidationException(
            f"The main file {main.source} is not Python: {error.msg} (line {error.lineno})."
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ModelValidationException(
            f"The main file {main.source} is not Python: {error}."
        ) from error
    except OSError as error:
        raise ModelValidationException(
            f"The main file {main.source} cannot be read: {error.strerror}."
        ) from error
