"""Training the embedded editors: ``python -m easyedit_mm_plugins.recipes.visedit``.

DualEdit's script, with VisEdit's settings, trainer and hparams files.
"""

from __future__ import annotations

from ..methods.visedit.model import VisEdit, VisEditTrainingHyperParams
from ..methods.visedit.training import VisEditTrainer
from .dualedit import Method, main

VISEDIT = Method(VisEdit, VisEditTrainingHyperParams, VisEditTrainer)

if __name__ == "__main__":
    main(method=VISEDIT)
