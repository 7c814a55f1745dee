"""What the tests' worker processes do; imports nothing heavy."""

from __future__ import annotations

import os
import time
from pathlib import Path

from easyedit_mm_plugins.errors import DataError


def worker(what, path, reporter):
    if what == "good":
        reporter.progress("good")(1, 2)
        reporter.progress("good")(2, 2)
        reporter.note("a note")
        Path(path).write_text("done")
    elif what == "bad":
        raise DataError("is broken", file="f.json", remedy="mend it")
    elif what == "dies":
        os._exit(9)
    else:
        time.sleep(60)
        Path(path).write_text("too late")
