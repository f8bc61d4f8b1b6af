"""Switches that a user may change at any time, in the environment or here.

Reading one reads the environment anew, so `os.environ["KAPTAIN_SDK_VERBOSE"] = "true"` and
`envs.VERBOSE = True` are the same.
"""

from __future__ import annotations

import os
import sys
import types

from kaptain_zen.exceptions import ConfigurationError

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}
_DEFAULT_TIMEFORMAT = "%Y-%m-%d %H:%M:%S"


def _flag(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigurationError(f"{name} is {text!r}; set it to true or false.")


def _set_flag(name: str, value: bool) -> None:
    os.environ[name] = "true" if value else "false"


class _M(types.ModuleType):
    """This module's type, so that its switches can be properties."""

    @property
    def VERBOSE(self) -> bool:  # noqa: N802 - name of the Kaptain SDK
        """KAPTAIN_SDK_VERBOSE: show the logs of workers unless a call says otherwise."""
        return _flag("KAPTAIN_SDK_VERBOSE")

    @VERBOSE.setter
    def VERBOSE(self, value: bool) -> None:  # noqa: N802
        _set_flag("KAPTAIN_SDK_VERBOSE", value)

    @property
    def DEBUG(self) -> bool:  # noqa: N802 - name of the Kaptain SDK
        """KAPTAIN_SDK_DEBUG: show the stack trace of errors that nothing catches."""
        return _flag("KAPTAIN_SDK_DEBUG")

    @DEBUG.setter
    def DEBUG(self, value: bool) -> None:  # noqa: N802
        _set_flag("KAPTAIN_SDK_DEBUG", value)

    @property
    def FORCE_CLEANUP(self) -> bool:  # noqa: N802 - name of the Kaptain SDK
        """KAPTAIN_SDK_FORCE_CLEANUP: remove runs that ended instead of keeping them to look at."""
        return _flag("KAPTAIN_SDK_FORCE_CLEANUP")

    @FORCE_CLEANUP.setter
    def FORCE_CLEANUP(self, value: bool) -> None:  # noqa: N802
        _set_flag("KAPTAIN_SDK_FORCE_CLEANUP", value)

    @property
    def LOG_TIMEFORMAT(self) -> str:  # noqa: N802 - name of the Kaptain SDK
        """KAPTAIN_SDK_LOG_TIMEFORMAT: format of the time in logs, as `time.strftime` knows it."""
        return os.environ.get("KAPTAIN_SDK_LOG_TIMEFORMAT") or _DEFAULT_TIMEFORMAT

    @LOG_TIMEFORMAT.setter
    def LOG_TIMEFORMAT(self, value: str) -> None:  # noqa: N802
        os.environ["KAPTAIN_SDK_LOG_TIMEFORMAT"] = value


VERBOSE: bool
DEBUG: bool
FORCE_CLEANUP: bool
LOG_TIMEFORMAT: str
# Names that a class defines as properties must not stand in the module's own dictionary.
sys.modules[__name__].__class__ = _M
