"""What a process of a shared training does: ``python -m tests.support.training_worker OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from easyedit_mm_plugins.methods.mend import Mend, MendTrainer, MendTrainingHyperParams
from easyedit_mm_plugins.methods.mscke import MSCKETrainer
from easyedit_mm_plugins.methods.training import Trainer

from ..conftest import build_tiny
from .mscke_tiny import hparams, tiny_mscke, tiny_records

# Batches of 4, 4 and 1 records; the last optimiser step of 7 has one batch only. Validation,
# checkpoints and log lines fall between optimiser steps as well as on them.
LOOP = {
    "batch_size": 4, "accumulate_bs": 2, "max_iters": 7, "val_interval": 3, "log_interval": 2,
    "model_save_pt": 3, "val_batch_size": 2, "silent": True,
}  # fmt: skip


def trainer(method: str, out: Path) -> Trainer:
    """The same start in every process."""
    records = tiny_records(12)
    if method == "mscke":
        return MSCKETrainer(tiny_mscke(), records[:9], records[9:], hparams(**LOOP), out / method)
    settings = MendTrainingHyperParams(
        model_name="tiny", rank=4, edit_lr=-0.01, lr=3e-3, grad_clip=1.0, norm=False, **LOOP
    )
    torch.manual_seed(0)
    editor = Mend(build_tiny("llava"), settings.config)
    return MendTrainer(editor, records[:9], records[9:], settings, out / method)


def main(out: Path) -> None:
    for method in ("mscke", "mend"):
        made = trainer(method, out)
        made.run()
    made.ranks.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
