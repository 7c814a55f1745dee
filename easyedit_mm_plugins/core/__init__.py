"""The base of the package: errors, tables of names, files, processes, loggers. Imports no model."""
