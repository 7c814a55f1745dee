"""What the tests' worker processes do; imports nothing heavy."""

from __future__ import annotations

import os
import time
from pathlib import Path

from easyedit_mm_plugins.core.errors import DataError


def worker(what, path, reporter):
    if what == "good":
        reporter.progress("good")(1, 2)
        reporter.progress("good")(2, 2)
        reporter.note("a note")
        Path(path).write_text("done")
    elif what == "bad":
        raise DataError("is broken", file="f.json", remedy="mend it")
    elif what == "goes on":
        Path(path + ".started").touch()
        time.sleep(2)
        Path(path).touch()
    elif what == "says its rank":
        from easyedit_mm_plugins.core.distributed import Ranks

        Path(path).write_text(repr(Ranks.here()))
    elif what == "dies":
        os._exit(9)
    else:
        time.sleep(60)
        Path(path).write_text("too late")


if __name__ == "__main__":
    import sys

    from easyedit_mm_plugins.core.processes import run_parallel
    from tests.support.parallel_worker import worker as by_name

    run_parallel(by_name, {"x": ("goes on", sys.argv[1])})
