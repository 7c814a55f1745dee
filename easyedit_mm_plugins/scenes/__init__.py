"""Scenes: procedural images for which the scope of an edit and all answers are known exactly."""

from ..data.entries import DATASETS, SOURCES

DATASETS.add(
    name="scenes-fgvedit",
    title="scenes, FGVEdit's form",
    order=0,
    aliases=("scenes",),
    reader="easyedit_mm_plugins.scenes.datasets:questions",
    takes_path=False,
    paper="fgvedit",
    source="embedded: drawn below data/scenes when first asked for",
)
DATASETS.add(
    name="scenes-evqa",
    title="scenes, E-VQA's form",
    order=1,
    reader="easyedit_mm_plugins.scenes.datasets:questions",
    takes_path=False,
    paper="e-vqa",
    suite="evqa",
    source="embedded: the scenes drawn again, and questions on other scenes",
)
DATASETS.add(
    name="scenes-eic",
    title="scenes, E-IC's form",
    order=2,
    reader="easyedit_mm_plugins.scenes.datasets:captions",
    takes_path=False,
    paper="e-ic",
    suite="evqa",
    task="captions",
    source="embedded: captions of the scenes",
)
SOURCES.register("scenes", "easyedit_mm_plugins.scenes.source:ScenesSource")
