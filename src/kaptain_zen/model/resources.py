"""Compute resources of a training worker or a server, in Kubernetes' quantities.

The quantity grammar is Kubernetes' own (`resource.Quantity`): a decimal number with an optional
suffix of `n u m k M G T P E`, `Ki Mi Gi Ti Pi Ei`, or an exponent.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.model.base import Frozen

_QUANTITY = re.compile(
    r"(\d+(?:\.\d*)?|\.\d+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d{1,3})?"
)
_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** n for n, suffix in enumerate("kMGTPE", start=1)},
    **{suffix + "i": Decimal(1024) ** n for n, suffix in enumerate("KMGTPE", start=1)},
}


def parse_quantity(value: str | float) -> Decimal:
    """Convert a Kubernetes quantity to a number.

    Args:
        value: For example `"0.5"`, `"500m"`, `"1G"`, `"2Gi"`, `1`.

    Returns:
        The number in base units: cores for cpu, bytes for memory.

    Raises:
        ModelValidationException: It is not a quantity, or negative.
    """
    text = str(value).strip()
    match = _QUANTITY.fullmatch(text)
    if isinstance(value, bool) or match is None:
        raise ModelValidationException(
            f"{value!r} is not a Kubernetes quantity. Write, for example, '500m' or '2' for cpu "
            f"and '512Mi' or '1G' for memory."
        )
    number, suffix = match.group(1), match.group(2) or ""
    factor = _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(f"1{suffix}")
    return Decimal(number) * factor


def _checked_quantity(value: Any) -> str | None:
    if value is None:
        return None
    parse_quantity(value)
    return str(value).strip()


Quantity = Annotated[str | None, BeforeValidator(_checked_quantity)]


def _checked_count(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelValidationException(f"{value!r} is no number of GPUs. Give 0 or more.")
    return value


Count = Annotated[int | None, BeforeValidator(_checked_count)]


class Resources(Frozen):
    """Requests and limits of one worker or server.

    Attributes:
        cpu_request: Cores asked for.
        cpu_limit: Cores at most.
        memory_request: Bytes asked for.
        memory_limit: Bytes at most.
        gpu_request: GPUs asked for; Kubernetes wants it equal to the limit when both are given.
        gpu_limit: GPUs at most.
        gpu_resource: Name of the extended resource that counts GPUs.
    """

    cpu_request: Quantity = None
    cpu_limit: Quantity = None
    memory_request: Quantity = None
    memory_limit: Quantity = None
    gpu_request: Count = None
    gpu_limit: Count = None
    gpu_resource: str = Field(default="nvidia.com/gpu", min_length=1)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            name = first["loc"][0] if first["loc"] else "a value"
            raise ModelValidationException(
                f"Resources: {name} {first['msg'][0].lower()}{first['msg'][1:]}. There are "
                f"{', '.join(type(self).model_fields)}."
            ) from None

    def model_post_init(self, _context: Any, /) -> None:
        """Refuse a request above its limit, as the API server would later.

        Raises:
            ModelValidationException: A request is above its limit.
        """
        for kind in ("cpu", "memory"):
            request, limit = getattr(self, f"{kind}_request"), getattr(self, f"{kind}_limit")
            if request and limit and parse_quantity(request) > parse_quantity(limit):
                raise ModelValidationException(
                    f"{kind}_request {request} is above {kind}_limit {limit}. Lower the request "
                    f"or raise the limit."
                )
        if None not in (self.gpu_request, self.gpu_limit) and self.gpu_request != self.gpu_limit:
            raise ModelValidationException(
                f"gpu_request {self.gpu_request} and gpu_limit {self.gpu_limit} differ; GPUs "
                f"cannot be overcommitted. Give one of them, or both equal."
            )

    @classmethod
    def choose(
        cls,
        resources: Resources | None,
        *,
        cpu: str | float | None = None,
        memory: str | float | None = None,
        gpus: int | None = None,
    ) -> Resources:
        """Bring the simple parameters and the advanced object to one.

        Args:
            resources: The advanced API, or None.
            cpu: Cores, as request and limit.
            memory: Bytes, as request and limit.
            gpus: GPUs.

        Returns:
            The resources; empty when nothing was given.

        Raises:
            ModelValidationException: Both APIs were used, or a value is no quantity.
        """
        simple = {"cpu": cpu, "memory": memory, "gpus": gpus}
        given = [name for name, value in simple.items() if value is not None]
        if resources is not None:
            if given:
                raise ModelValidationException(
                    f"Give either `resources` or the simple parameters, not both (got "
                    f"`resources` and {', '.join(f'`{name}`' for name in given)})."
                )
            if not isinstance(resources, Resources):
                raise ModelValidationException(
                    f"`resources` must be a Resources object, not {type(resources).__name__}."
                )
            return resources
        return cls.model_validate(
            {
                "cpu_request": cpu,
                "cpu_limit": cpu,
                "memory_request": memory,
                "memory_limit": memory,
                "gpu_limit": gpus,
            }
        )

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes, if there is one."""
        return int(parse_quantity(self.memory_limit)) if self.memory_limit else None

    @property
    def cores(self) -> float | None:
        """The cpu limit in cores, if there is one."""
        return float(parse_quantity(self.cpu_limit)) if self.cpu_limit else None
