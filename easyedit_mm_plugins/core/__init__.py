"""What everything stands on: errors, names, files, processes, loggers; nothing about editing."""
