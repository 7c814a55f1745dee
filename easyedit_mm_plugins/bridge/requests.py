"""EasyEdit's forms of a request, turned into the plugin's :class:`EditRecord`.

Three forms exist: the arguments of ``MultimodalEditor.edit``, the dictionaries that EasyEdit's
datasets yield and its executors take, and the plugin's own records. In a dictionary an image that
is a tensor holds EasyEdit's normalised pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..backbones import Backbone
from ..core.errors import ConfigError, DataError
from ..data.images import image_problem
from ..data.records import EditRecord, ImageLike, Question
from ..data.several import Several
from ..host.backbones import denormalise
from ..host.models import check_file_type

EASYEDIT_TEMPLATE = "Question: {} Short answer:"


def bare(text: str, templates: Sequence[str] = (EASYEDIT_TEMPLATE,)) -> str:
    """``text`` without a prompt template around it; templates belong to the backbone."""
    for template in templates:
        before, after = template.split("{}")
        before, after, stripped = before.strip(), after.strip(), text.strip()
        if before and after and stripped.startswith(before) and stripped.endswith(after):
            return stripped[len(before) : len(stripped) - len(after)].strip()
    return text


def records_from_arguments(
    prompts: Any,
    targets: Any,
    image: Any,
    rephrase_prompts: Any = None,
    rephrase_image: Any = None,
    locality_inputs: Mapping[str, Any] | None = None,
    *,
    image_root: str | None = None,
    rephrase_root: str | None = None,
    template: str = EASYEDIT_TEMPLATE,
    file_type: Any = None,
) -> list[EditRecord]:
    """One record a request; strings and lists of strings are both taken.

    ``file_type`` is HEAD's, for all requests or a list of them; a request's several images are a
    list in the list of images.

    Raises:
        DataError: lists of different lengths, an empty prompt or target, an image that is not
            found or broken; the message names the request, the field and the file.
        ConfigError: a relative image path, and no such image root.
    """
    if not isinstance(prompts, (str, list, tuple)):
        raise DataError(f"is a {type(prompts).__name__}, not text", field="prompts")
    if not isinstance(locality_inputs, (Mapping, type(None))):
        raise DataError(f"is a {type(locality_inputs).__name__}", field="locality_inputs")
    count = 1 if isinstance(prompts, str) else len(prompts)
    listed = isinstance(file_type, (list, tuple))
    kinds = _column("file_type", file_type if listed else [file_type] * count, count)
    for i, kind in enumerate(kinds):
        check_file_type(kind, f"request {i}")
    if isinstance(prompts, str) and kinds[0] == "multi-image":
        image, rephrase_image = _as_one(image), _as_one(rephrase_image)
    columns: dict[str, list[Any]] = {
        "prompts": _column("prompts", prompts, count),
        "targets": _column("targets", targets, count),
        "image": _column("image", image, count),
    }
    if not count:
        raise DataError("there is no request", field="prompts", remedy="give a prompt")
    optional: dict[str, Any] = {"rephrase_prompts": rephrase_prompts}
    optional["rephrase_image"] = rephrase_image
    for part, names in (("text", ("prompt", "ground_truth")), ("vision", _VISION)):
        given: Any = (locality_inputs or {}).get(part) or {}
        if not isinstance(given, Mapping):
            raise DataError(f"is a {type(given).__name__}", field=f"locality_inputs.{part}")
        for name in names if given else ():
            if name not in given:
                raise DataError("is missing", field=f"locality_inputs.{part}.{name}")
            optional[f"{part}.{name}"] = given[name]
    unknown = set(locality_inputs or {}) - {"text", "vision"}
    if unknown:
        raise DataError(
            f"unknown keys {sorted(unknown)}; known: text, vision", field="locality_inputs"
        )
    columns |= {k: _column(k, v, count) for k, v in optional.items() if v is not None}

    def text(i: int, field: str) -> str:
        value = columns[field][i]
        if not isinstance(value, str) or not value.strip():
            what = (
                "is empty" if isinstance(value, str) else f"is a {type(value).__name__}, not text"
            )
            raise DataError(what, record=f"request {i}", field=field, remedy="give it a text")
        return bare(value, (template, EASYEDIT_TEMPLATE)).strip()

    def picture(i: int, field: str, root: str | None, root_field: str) -> ImageLike:
        given = columns[field][i]
        if field == "image":
            _check_text(given, kinds[i], f"request {i}")
        return find_images(given, root, root_field, f"request {i}", field)

    records = []
    for i in range(count):
        prompt, target = text(i, "prompts"), text(i, "targets")
        shown = picture(i, "image", image_root, "coco_image")
        extra: dict[str, Any] = {}
        if "rephrase_prompts" in columns:
            extra["rephrase"] = (Question(text(i, "rephrase_prompts"), shown, target),)
        if "rephrase_image" in columns:
            other = picture(i, "rephrase_image", rephrase_root, "rephrase_image")
            extra["image_rephrase"] = (Question(prompt, other, target),)
        if "text.prompt" in columns:
            question = Question(text(i, "text.prompt"), None, text(i, "text.ground_truth"))
            extra["text_loc"] = (question,)
        if "vision.prompt" in columns:
            other = picture(i, "vision.image", image_root, "coco_image")
            question = Question(text(i, "vision.prompt"), other, text(i, "vision.ground_truth"))
            extra["image_loc"] = (question,)
        records.append(EditRecord(str(i), Question(prompt, shown, target), **extra))
    return records


_VISION = ("prompt", "ground_truth", "image")


def find_images(image: Any, *place: Any) -> ImageLike:
    """As :func:`find_image`; of a list of images all together."""
    if not isinstance(image, (list, tuple)):
        return find_image(image, *place)
    if not image:
        raise DataError("holds no image", record=place[2], field=place[3], remedy="give one")
    found = [find_image(one, *place) for one in image]
    return found[0] if len(found) == 1 else Several(found)


def find_image(image: Any, root: str | None, root_field: str, where: str, field: str) -> ImageLike:
    """An image as it was given, or its full path under ``root``.

    Raises:
        DataError, ConfigError: as :func:`records_from_arguments`.
    """
    if image is None or isinstance(image, Image.Image):
        return image
    if isinstance(image, Tensor):
        rgb = image.ndim == 3 and image.shape[0] == 3 and image.numel()
        if not rgb or not (image.min() >= 0 and image.max() <= 1):
            raise DataError(
                f"is a tensor {list(image.shape)} that is not RGB [3, H, W] within [0, 1]",
                record=where,
                field=field,
                remedy="give the path or a PIL image",
            )
        return image
    if not isinstance(image, (str, Path)):
        raise DataError(
            f"is a {type(image).__name__}; give a path or a PIL image", record=where, field=field
        )
    relative = Path(image)
    tried = [relative] if relative.is_absolute() else []
    if root and not relative.is_absolute():
        tried.append(Path(root) / relative)
    if not relative.is_absolute():
        tried.append(relative)
    found = next((path for path in tried if os.path.isfile(path)), None)
    if found is None:
        if root is None and not relative.is_absolute():
            raise ConfigError(
                f"{where}, {field}: image {image} not found, and hparams.{root_field} is not set",
                remedy=f"set {root_field} to the folder that image paths are relative to",
            )
        raise DataError(
            "image not found, tried " + " and ".join(str(p) for p in tried),
            file=tried[0],
            record=where,
            field=field,
            remedy=f"fetch the image, or set hparams.{root_field} to its root",
        )
    problem = image_problem(found)
    if problem:
        raise DataError(
            problem, file=found, record=where, field=field, remedy="fetch this file again"
        )
    return str(found)


def record_from_item(item: Any, index: int, *, checked: bool = False) -> EditRecord:
    """One dataset item, or one request as EasyEdit's executors take it.

    Args:
        checked: its image files have been opened before, so that they need no second look.

    Raises:
        DataError: a field is missing or empty; the message names item and field.
    """
    if isinstance(item, EditRecord):
        return item
    if not isinstance(item, Mapping):
        raise DataError(
            f"is a {type(item).__name__}", record=f"item {index}", remedy="see FGVEditDataset"
        )

    def text(field: str) -> str:
        value = item.get(field)
        if not isinstance(value, str) or not value.strip():
            what = "is missing" if value is None else "is empty"
            raise DataError(what, record=f"item {index}", field=field, remedy="give it a text")
        return bare(value).strip()

    kind = item.get("file_type")
    check_file_type(kind, f"item {index}")
    _check_text(item.get("image"), kind, f"item {index}")

    def question(prompt: str, image: str | None, answer: str) -> Question:
        shown = item[image] if checked and image else _item_image(item, image, index)
        return Question(text(prompt), shown, text(answer))

    extra: dict[str, Any] = {}
    if _given(item, "rephrase_prompt"):
        extra["rephrase"] = (question("rephrase_prompt", "image", "target"),)
    if item.get("image_rephrase") is not None:
        extra["image_rephrase"] = (question("prompt", "image_rephrase", "target"),)
    if _given(item, "locality_prompt"):
        extra["text_loc"] = (question("locality_prompt", None, "locality_ground_truth"),)
    if _given(item, "multimodal_locality_prompt"):
        extra["image_loc"] = (
            question(
                "multimodal_locality_prompt",
                "multimodal_locality_image",
                "multimodal_locality_ground_truth",
            ),
        )
    case_id = str(item.get("case_id", index))
    return EditRecord(case_id, question("prompt", "image", "target"), **extra)


def _check_text(image: Any, kind: str | None, record: str) -> None:
    if kind == "text" and image is not None:
        raise DataError(
            "has an image, but its file_type is text",
            record=record,
            field="image",
            remedy="leave the image out, or say file_type image",
        )


def _given(item: Mapping[str, Any], field: str) -> bool:
    value = item.get(field)
    return value is not None and not (isinstance(value, str) and not value)


def _item_image(item: Mapping[str, Any], field: str | None, index: int) -> ImageLike:
    image = item.get(field) if field else None
    if isinstance(image, Tensor):
        return denormalise(image.squeeze(0) if image.ndim == 4 else image)
    return find_images(image, None, "coco_image", f"item {index}", field or "image")


class RecordView(Sequence[EditRecord]):
    """Any dataset the bridge takes as a sequence of records, made when they are asked for.

    Args:
        dataset: :class:`FGVEditDataset`, EasyEdit's ``VQADataset`` or ``CaptionDataset``, or a
            sequence of records or request dictionaries.

    Raises:
        DataError: it is empty, or its items are of another kind.
    """

    def __init__(self, dataset: Any) -> None:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise DataError(
                f"a {type(dataset).__name__} is no dataset", remedy="give an FGVEditDataset"
            )
        if not len(dataset):
            raise DataError("the dataset is empty", remedy="check its file and size")
        self.dataset = dataset
        self.files = _image_files(dataset)
        self[0]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        item, place = self.dataset[index], index % len(self)
        if self.files:  # EasyEdit has opened them all
            return record_from_item({**item, **self.files[place]}, place, checked=True)
        return record_from_item(item, place)

    def __iter__(self) -> Iterator[EditRecord]:
        return (self[i] for i in range(len(self)))


def _image_files(dataset: Any) -> list[dict[str, str]] | None:
    """The image files behind each item of one of EasyEdit's datasets, or ``None``.

    Its items hold pixels squeezed to 364 x 364; the files hold the whole picture, can be cached by
    path, and need no memory. Items are matched with the annotations, some of which it leaves out.
    """
    records = iter(getattr(dataset, "annotation", None) or ())
    items, found = getattr(dataset, "_data", None), []
    if not isinstance(items, list):
        return None
    keys = {"prompt": "src", "target": "alt", "rephrase_prompt": "rephrase"}
    keys |= {"locality_prompt": "loc", "multimodal_locality_prompt": "m_loc_q"}
    roots = {
        "image": (dataset.vis_root, "image"),
        "image_rephrase": (dataset.rephrase_root, "image_rephrase"),
        "multimodal_locality_image": (dataset.vis_root, "m_loc"),
    }
    for item in items:
        same = (r for r in records if all(item.get(k) == r.get(v) for k, v in keys.items()))
        record = next(same, None)
        if record is None:
            return None
        found.append({k: str(Path(root) / record[v]) for k, (root, v) in roots.items()})
    return found


def templates_of(backbone: Backbone) -> tuple[str, ...]:
    """The templates that a prompt may come in."""
    return (backbone.template, EASYEDIT_TEMPLATE)


def _as_one(images: Any) -> Any:
    """The images of a single request as HEAD takes them: a list that stands for one entry."""
    flat = isinstance(images, (list, tuple)) and not any(
        isinstance(one, (list, tuple)) for one in images
    )
    return [images] if flat else images


def _column(name: str, value: Any, count: int) -> list[Any]:
    if isinstance(value, (list, tuple)):
        values = list(value)
    elif value is None and name == "image":
        values = [None] * count
    else:
        values = [value]
    if len(values) != count:
        raise DataError(
            f"has {len(values)} entries for {count} prompts",
            field=name,
            remedy="give one for each prompt",
        )
    return values
