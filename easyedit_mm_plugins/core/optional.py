"""Packages that only the data tools need; a clear error where one is absent."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .errors import ConfigError

_EXTRA = '"easyedit-mm-plugins[data]"'


def need(module: str, purpose: str, *, package: str | None = None) -> ModuleType:
    """Import ``module``.

    Args:
        package: its name to install it by, where the extra ``data`` does not bring it.

    Raises:
        ConfigError: it is not installed; the message names the extra that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise ConfigError(
            f"{purpose} needs the package {missing}, which is not installed",
            remedy=f"pip install {package or _EXTRA}",
        ) from error
