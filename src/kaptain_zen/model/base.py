"""The common base of everything that is written down: frozen, strict about what it reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value; unknown fields are refused, so that a typo cannot pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=False)
