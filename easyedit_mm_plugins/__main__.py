"""``python -m easyedit_mm_plugins``: the command line, for launchers that start a module."""

from .cli import main

if __name__ == "__main__":
    main()
