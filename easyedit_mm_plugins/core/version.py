"""The package's version, which results and editors carry."""

__version__ = "0.1.0"
