"""The errors that the package raises: what is wrong, where, and what to do about it."""

from __future__ import annotations

from .secrets import redact


class EasyEditMMError(Exception):
    """Base class. The message names the thing at fault; ``remedy`` says what to do.

    Keys and passwords in the message are replaced by ``***``.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        message, remedy = redact(message), redact(remedy) if remedy else None
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}\n  remedy: {remedy}" if remedy else message)


class ConfigError(EasyEditMMError, ValueError):
    """A configuration value or key that cannot be used."""


class UnknownNameError(ConfigError, KeyError):
    """A name that no registry knows; the message offers the nearest ones."""

    __str__ = Exception.__str__  # KeyError would show the repr of the message


class DataError(EasyEditMMError, ValueError):
    """A data file, record, field or image that cannot be used.

    Args:
        message: what is wrong.
        file, record, field: the place; any may be ``None``.
        remedy: what to do.
    """

    def __init__(
        self,
        message: str,
        *,
        file: object = None,
        record: object = None,
        field: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.file, self.record, self.field = file, record, field
        where = [
            f"{label} {value}"
            for label, value in (("file", file), ("record", record), ("field", field))
            if value is not None
        ]
        super().__init__(f"{', '.join(where)}: {message}" if where else message, remedy=remedy)


class CheckpointError(EasyEditMMError):
    """A saved editor or model that is missing, broken, or made for something else."""


class BackboneError(EasyEditMMError):
    """A base model that cannot be loaded or lacks something that a method needs."""


class BridgeError(EasyEditMMError):
    """EasyEdit is absent, of an unknown generation, or holds a name that is already taken."""


class RunError(EasyEditMMError):
    """A run folder that cannot be continued, read or written."""


class TrainingError(EasyEditMMError):
    """Training that cannot go on: a gradient that is not finite, no data, no progress."""
