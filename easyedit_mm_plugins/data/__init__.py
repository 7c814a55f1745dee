"""Edit records: what is edited, what must follow, what must stay.

``records.py`` holds the types that everything else speaks, ``images.py`` opens what they point to,
``fgvedit.py`` reads files in the released FGVEdit schema (and the scenes benchmark, which uses it),
``evqa.py`` E-VQA and E-IC. ``loading.py`` brings images to a model, lazily; ``interop.py`` converts
to and from ``datasets``. The tools behind ``easyedit-mm data`` are ``construct/`` (build a
benchmark), ``fetch.py``, ``verify.py``, ``preview.py``, ``stats.py`` and ``card.py``.
"""

from ..core.registry import DATASETS
from .fgvedit import FGVEditDataset
from .images import check_images, open_image
from .records import EditRecord, ImageLike, Question

DATASETS.register("fgvedit", "easyedit_mm_plugins.data.fgvedit:FGVEditDataset")
for _name in ("e-vqa", "evqa"):
    DATASETS.register(_name, "easyedit_mm_plugins.data.evqa:EVQADataset")
for _name in ("e-ic", "eic"):
    DATASETS.register(_name, "easyedit_mm_plugins.data.evqa:EICDataset")

__all__ = [
    "EditRecord",
    "FGVEditDataset",
    "ImageLike",
    "Question",
    "check_images",
    "open_image",
]
