"""What every source of credentials offers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from kaptain_zen.exceptions import ConfigurationError


class ConfigurationProvider(ABC):
    """Holds credentials and turns them into the body of a Secret.

    Subclasses keep values out of their `repr`; nothing else may show them either.
    """

    @abstractmethod
    def get_secret_body(self) -> dict[str, str]:
        """The credentials by the key that they have in a Secret."""

    def __repr__(self) -> str:
        """The class and nothing of what it holds."""
        return f"{type(self).__name__}(…)"


class FileBasedConfigurationProvider(ConfigurationProvider):
    """Can be made from a file."""

    @classmethod
    @abstractmethod
    def from_file(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Read a file.

        Args:
            path: The file; the kind's usual place if None. `~` is expanded.

        Raises:
            ConfigurationError: It cannot be read, or does not hold what it should.
        """


class EnvironmentVariableConfigurationProvider(ConfigurationProvider):
    """Can be made from environment variables."""

    @classmethod
    @abstractmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read environment variables.

        Args:
            environ: Where to look; the process's environment if None.

        Raises:
            ConfigurationError: A variable that is needed is not set.
        """


def read_file(path: str | os.PathLike[str], what: str) -> str:
    """Read a credentials file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    # Raised outside of `except`: an error of decoding holds the text, even as a mere context.
    reason = ""
    place = os.fspath(path)
    try:
        expanded = Path(path).expanduser()
        place = str(expanded)
        # Some editors put a byte-order mark at the beginning.
        return expanded.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        reason = "there is no such file. Create it, or give its path to from_file()"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8"
    except (ValueError, RuntimeError):
        reason = "its path is not legal"
    raise ConfigurationError(f"The {what} {place} cannot be read: {reason}.")
