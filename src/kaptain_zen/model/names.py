"""One function that makes a legal name of any text, and one that makes a label value.

The rules are Kubernetes' (DNS-1123 labels; label values), and the local platform keeps them too,
so that a model has the same name everywhere.
"""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 63
_HASH = 8
_NAME = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")


def slug(text: str, *, max_length: int = MAX_NAME) -> str:
    """Make a DNS-1123 label of any text.

    Args:
        text: For example `dev/mnist`.
        max_length: Of the result; at least 12.

    Returns:
        Lower-case letters, digits and hyphens, beginning with a letter. A slash becomes a hyphen;
        every other text that is not a name already, and one with hyphens of its own, gets a short
        hash of itself, so that two texts (`a/b` and `a-b`) never become one name.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if name and not name[0].isalpha():
        name = f"m-{name}"
    faithful = (
        bool(name)
        and "-" not in text
        and text.replace("/", "-") == name
        and len(name) <= max_length
    )
    if faithful:
        return name
    return _with_hash(name or "m", text, max_length)


def is_name(text: str) -> bool:
    """Whether a text is a DNS-1123 label that begins with a letter, as `slug` makes them."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


def label_value(text: str) -> str:
    """Make a label value of any text: what is legal stays, the rest is replaced and hashed."""
    if re.fullmatch(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", text):
        return text
    legal = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")
    return _with_hash(legal or "v", text, MAX_NAME)


def suffixed(name: str, suffix: str, *, max_length: int = MAX_NAME) -> str:
    """Put a suffix to a name, cutting (and hashing) the name where both are too long.

    Args:
        name: A legal name.
        suffix: Legal as the end of one.
        max_length: Of the result; it must leave at least 12 characters for the name.

    Returns:
        The name, a hyphen and the suffix.
    """
    room = max_length - len(suffix) - 1
    return f"{name if len(name) <= room else _with_hash(name, name, room)}-{suffix}"


def _with_hash(name: str, text: str, max_length: int) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return f"{name[: max_length - _HASH - 1].rstrip('-_.') or 'm'}-{digest}"
