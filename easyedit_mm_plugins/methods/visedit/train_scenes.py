"""Training the embedded editors: ``python -m easyedit_mm_plugins.methods.visedit.train_scenes``.

DualEdit's script, with VisEdit's settings, trainer and hparams files.
"""

from __future__ import annotations

from ..dualedit.train_scenes import Method, main
from .model import VisEdit, VisEditTrainingHyperParams
from .training import VisEditTrainer

VISEDIT = Method(VisEdit, VisEditTrainingHyperParams, VisEditTrainer)

if __name__ == "__main__":
    main(method=VISEDIT)
