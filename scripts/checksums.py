"""Write the checksums of editors into their ``config.json`` (``methods/checkpoint.py``).

By default of all that are shipped: after one was trained anew, others that use a part of it have to
be written again, too. Weights are left as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.methods.checkpoint import change_header, read_config


def main(folders: Sequence[str]) -> None:
    """Write into the editors in ``folders``; those with parts in other editors' folders last."""
    found = [Path(f) for f in folders] or sorted(p.parent for p in ASSETS.glob("*/config.json"))
    editors = {f: values for f in found if "method" in (values := read_config(f / "config.json"))}
    for folder in sorted(editors, key=lambda folder: "parts" in editors[folder]):
        inner = folder / "counterfactual"  # of MSCKE-MEND it is an editor itself
        if (inner / "config.json").is_file() and "method" in read_config(inner / "config.json"):
            change_header(inner)
        change_header(folder)
        print(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
