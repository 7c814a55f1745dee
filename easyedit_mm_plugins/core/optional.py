"""Packages that only some commands need, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .errors import ConfigError


def need(
    module: str,
    purpose: str,
    *,
    package: str = '"easyedit-mm-plugins[data]"',
    otherwise: str = "",
) -> ModuleType:
    """Import ``module``.

    Args:
        purpose: what needs it, for the error's message.
        package: what ``pip install`` must be given to bring it.
        otherwise: what else the user can do, for the remedy.

    Raises:
        ConfigError: it is not installed; the remedy says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise ConfigError(
            f"{purpose} needs the package {missing}, which is not installed",
            remedy=f"pip install {package}{otherwise}",
        ) from error
