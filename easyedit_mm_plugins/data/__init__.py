"""Edit records: what is edited, what must follow from it, and what must stay.

``records.py`` holds the types that all other modules use, ``images.py`` opens images,
``fgvedit.py`` reads files in the schema of FGVEdit (also that of the scenes), ``evqa.py`` E-VQA and
E-IC, ``schema.py`` says what a valid record is, ``matching.py`` when two answers are the same.
``tools/`` holds what ``easyedit-mm data`` runs: fetch, build, verify, preview, stats, card, push.
"""

from .entries import DATASETS, DatasetEntry, Records, load_records
from .fgvedit import FGVEditDataset
from .images import check_images, open_image
from .records import EditRecord, ImageLike, Question

DATASETS.add(
    name="fgvedit",
    title="FGVEdit",
    order=10,
    reader="easyedit_mm_plugins.data.fgvedit:FGVEditDataset",
    paper="fgvedit",
    released=("test_data",),
    source="Hugging Face data set ZhenZeng/FGVEdit; images: COCO 2014",
)
DATASETS.add(
    name="e-vqa",
    title="E-VQA",
    order=11,
    aliases=("evqa",),
    reader="easyedit_mm_plugins.data.evqa:EVQADataset",
    suite="evqa",
    paper="e-vqa",
    released=("vqa_eval",),
    source="MMEdit's vqa_eval.json; images: COCO 2014",
)
DATASETS.add(
    name="e-ic",
    title="E-IC",
    order=12,
    aliases=("eic",),
    reader="easyedit_mm_plugins.data.evqa:EICDataset",
    suite="evqa",
    task="captions",
    paper="e-ic",
    released=("caption_eval_edit",),
    source="MMEdit's caption_eval_edit.json; images: COCO 2014",
)

__all__ = [
    "DATASETS",
    "DatasetEntry",
    "EditRecord",
    "FGVEditDataset",
    "ImageLike",
    "Question",
    "Records",
    "check_images",
    "load_records",
    "open_image",
]
