"""The command line, ``easyedit-mm``: one file a command, which parses, calls and prints."""


def main() -> None:
    """Run the command line; what the console script starts."""
    from .app import main as run

    run()
