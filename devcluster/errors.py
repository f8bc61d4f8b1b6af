"""What goes wrong, in words for whoever typed the command."""

from __future__ import annotations


class DevclusterError(Exception):
    """Says what failed, where, and what to do about it."""


class ApiError(DevclusterError):
    """The API server answered with an error.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
