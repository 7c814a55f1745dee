"""Where the files that the package ships lie."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ASSETS = PACKAGE / "assets"  # weights and pages
HPARAMS = PACKAGE / "hparams"  # settings in EasyEdit's form, and Hydra's groups
