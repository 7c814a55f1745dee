"""Training the scope classifiers that tables 2 and 3 compare on the embedded backbones:
``python -m easyedit_mm_plugins.papers.train_classifiers --ship``.

One classifier for each fusion and encoder (table 2), and ``retrained``: dot-attention on the small
encoder with another seed (table 3). Each is skipped if its result is there and continued if it was
stopped; ``mscke-table2 --train --out FOLDER`` on the same folder finds them. About half an hour.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ..backbones import load_backbone
from . import ExperimentSettings
from .classifiers import SHIPPED, train_classifier, trained_folder
from .mscke_table2 import VARIANTS
from .mscke_table3 import RETRAINED, retrain

LOG = logging.getLogger(__name__)
FRAME = "scenes-blip2"  # lends its frame: a classifier's training never looks at the base model


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    variants = {variant.name: variant for variant in VARIANTS}
    names = [*variants, RETRAINED]
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=Path("runs/classifiers"))
    parser.add_argument("--ship", action="store_true", help="copy the results into the package")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    settings = ExperimentSettings("mscke-table2", train=True, out=args.out)
    backbone = load_backbone(FRAME)
    for name in args.names or names:
        folder = trained_folder(settings, name)
        if name == RETRAINED:
            retrain(backbone, folder, settings)
        else:
            train_classifier(variants[name], backbone, folder, settings)
        made = folder / "scope"
        LOG.info("ready: %s", made)
        if args.ship:
            shutil.copytree(made, SHIPPED / name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
