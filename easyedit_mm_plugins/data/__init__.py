"""Edit records: what is edited, what must follow, what must stay.

``records.py`` holds the types that everything else speaks, ``images.py`` opens what they point to,
``fgvedit.py`` reads files in the released FGVEdit schema (and the scenes benchmark, which uses it).
"""

from ..registry import DATASETS
from .fgvedit import FGVEditDataset
from .images import check_images, open_image
from .records import EditRecord, ImageLike, Question

DATASETS.register("fgvedit", "easyedit_mm_plugins.data.fgvedit:FGVEditDataset")

__all__ = [
    "EditRecord",
    "FGVEditDataset",
    "ImageLike",
    "Question",
    "check_images",
    "open_image",
]
