"""The description of a model, as a data scientist gives it once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, field_validator

from kaptain_zen.exceptions import InvalidModelProperty, UndefinedModelProperty
from kaptain_zen.model.base import Frozen
from kaptain_zen.model.frameworks import ModelFramework

_TEXTS = (
    "id",
    "name",
    "description",
    "version",
    "framework_version",
    "main_file",
    "image_name",
    "base_image",
)
MAX_ID = 200
"""Characters of an id at most: the storage puts folder names of its own behind it."""
_UNSAFE_IN_ID = re.compile(r'[\x00-\x1f\x7f\\?#%*:"<>|]')


class ModelSpec(Frozen):
    """What a model is, independent of where it runs.

    Attributes:
        id: Unique identifier, for example `dev/mnist`; also its folder in the storage.
        name: Short name for people.
        description: A sentence for people.
        version: The model's own version.
        framework: The framework that it is written in.
        framework_version: The framework's version.
        main_file: The Python file that trains it, relative to the configuration's `base_dir`.
        image_name: Repository, with or without a tag, for its training image.
        base_image: Image that the training image is built from.
        extra_files: Further files that the main file needs.
        requirements: A requirements file, or a tuple of pip requirements.
        labels: Free words to find it by.
        serving_config: How it is served (`protocol_version`, `requirements_file`, …).

    Raises:
        InvalidModelProperty: A property is None, blank or not legal.
        UndefinedModelProperty: A property is missing.
        UnsupportedModelFrameworkException: The framework is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    id: str
    name: str
    description: str
    version: str
    framework: ModelFramework
    framework_version: str
    main_file: str
    image_name: str
    base_image: str
    extra_files: tuple[str, ...] = ()
    requirements: str | tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    serving_config: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, **properties: Any) -> None:
        try:
            super().__init__(**properties)
        except ValidationError as error:
            raise _property_error(error) from None

    @field_validator(*_TEXTS, mode="before")
    @classmethod
    def _not_blank(cls, value: Any, info: Any) -> Any:
        if value is None or (isinstance(value, str) and not value.strip()):
            raise InvalidModelProperty(f"Model property {info.field_name!r} is None or blank.")
        if not isinstance(value, str):
            raise InvalidModelProperty(
                f"Model property {info.field_name!r} must be a string, not {value!r}."
            )
        return value.strip()

    @field_validator("framework", mode="before")
    @classmethod
    def _known_framework(cls, value: Any) -> Any:
        if value is None or (isinstance(value, str) and not value.strip()):
            raise InvalidModelProperty("Model property 'framework' is None or blank.")
        return ModelFramework.of(value)

    @field_validator("extra_files", "labels", mode="before")
    @classmethod
    def _list_of_texts(cls, value: Any, info: Any) -> Any:
        if value is None:
            return ()
        if isinstance(value, str) or not all(isinstance(v, str) and v.strip() for v in value):
            raise InvalidModelProperty(
                f"Model property {info.field_name!r} must be a list of non-blank strings, "
                f"not {value!r}."
            )
        return tuple(value)

    @field_validator("requirements", mode="before")
    @classmethod
    def _requirements(cls, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            if not value.strip():
                raise InvalidModelProperty("Model property 'requirements' is blank; leave it out.")
            return value
        if not all(isinstance(v, str) and v.strip() for v in value):
            raise InvalidModelProperty(
                "Model property 'requirements' must be the path of a requirements file or a list "
                f"of pip requirements, not {value!r}."
            )
        return tuple(value)

    @field_validator("serving_config", mode="before")
    @classmethod
    def _serving_config(cls, value: Any) -> Any:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise InvalidModelProperty(
                f"Model property 'serving_config' must be a dict, not {value!r}."
            )
        return dict(value)

    @field_validator("id")
    @classmethod
    def _path_safe_id(cls, value: str) -> str:
        return checked_id(value)

    @field_validator("main_file")
    @classmethod
    def _relative_main_file(cls, value: str) -> str:
        if ".." in PurePosixPath(value).parts:
            raise InvalidModelProperty(
                f"Model property 'main_file' is {value!r}; it must not leave its folder."
            )
        return value


def checked_id(value: str) -> str:
    """Check a model's identifier.

    Raises:
        InvalidModelProperty: It cannot be the name of a folder in a storage.
    """
    if len(value) > MAX_ID:
        raise InvalidModelProperty(
            f"Model property 'id' has {len(value)} characters; {MAX_ID} are allowed."
        )
    segments = value.split("/")
    if any(s in ("", ".", "..") for s in segments) or _UNSAFE_IN_ID.search(value):
        raise InvalidModelProperty(
            f"Model property 'id' is {value!r}; it names a folder in the storage, so it "
            f"must be words parted by single slashes, such as 'dev/mnist', without '..', "
            f'backslashes, control characters or any of ? # % * : " < > |.'
        )
    return value


def _property_error(error: ValidationError) -> InvalidModelProperty | UndefinedModelProperty:
    """Say a pydantic error in the words of this package."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return UndefinedModelProperty(f"Model property {name!r} is not defined. Give it a value.")
    if first["type"] == "extra_forbidden":
        known = ", ".join(ModelSpec.model_fields)
        return UndefinedModelProperty(f"A model has no property {name!r}. It has: {known}.")
    return InvalidModelProperty(f"Model property {name!r}: {first['msg']}.")
