"""Fetch benchmark files: from their source, a mirror or an offline folder, resumable and checked.

Where a program cannot fetch a file, the error says where to get it by hand and where to put it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import DataError
from ...core.files import atomic_path, file_digest
from ...core.optional import need
from ...core.registry import Registry
from .download import Progress, download, unpack

_OFFLINE = "EASYEDIT_MM_OFFLINE"
_MIRROR = "EASYEDIT_MM_MIRROR"


@dataclass(frozen=True)
class Remote:
    """One file of a data set.

    Attributes:
        name: its path below the data set's folder.
        url: its address; None: no program can fetch it.
        md5: its published checksum, if there is one.
        unpack: it is a zip archive, to be unpacked into the folder.
        holds: a path that exists once the archive is unpacked; then it is not fetched again.
    """

    name: str
    url: str | None = None
    md5: str | None = None
    unpack: bool = False
    holds: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set that ``easyedit-mm data fetch`` knows.

    Attributes:
        hub: the Hugging Face data set that holds the files.
        where: the page where a person can get it.
    """

    name: str
    about: str
    files: tuple[Remote, ...]
    hub: str | None = None
    where: str | None = None


SETS: Registry[DataSet] = Registry("data set to fetch")


def fetch(
    name: str,
    folder: str | Path,
    *,
    offline: str | Path | None = None,
    mirror: str | None = None,
    retries: int = 5,
    keep_archives: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Fetch a data set into ``folder``; files that are there already are kept.

    Args:
        offline: a folder to copy the files from, without using the network (or the environment
            variable ``EASYEDIT_MM_OFFLINE``).
        mirror: base URL to fetch from; files are at ``mirror/file name`` (or the environment
            variable ``EASYEDIT_MM_MIRROR``). For the Hugging Face Hub, set ``HF_ENDPOINT``.
        retries: further tries after a lost connection; each continues where the last one ended.
        progress: called with (file, bytes received, bytes in total or None).

    Raises:
        UnknownNameError: no such data set.
        DataError: a file cannot be fetched, differs from the published one, or must be fetched by
            hand.
    """
    data = SETS.get(name)
    folder = Path(folder)
    offline = offline or os.environ.get(_OFFLINE) or None
    mirror = mirror or os.environ.get(_MIRROR) or None
    paths = []
    for remote in data.files:
        target = folder / remote.name
        done = folder / remote.holds if remote.holds else target
        if done.exists() and not _unpacking(folder, remote).exists():
            paths.append(done)
            continue
        if not (target.is_file() and _intact(target, remote)):
            _get(data, remote, target, offline, mirror, retries, progress)
        if remote.unpack:
            mark = _unpacking(folder, remote)
            mark.touch()
            unpack(target, folder)
            mark.unlink()
            if not keep_archives:
                target.unlink()
        paths.append(done if done.exists() else folder)
    return paths


def _unpacking(folder: Path, remote: Remote) -> Path:
    """A marker file that exists while the archive is being unpacked."""
    return folder / f".{Path(remote.name).name}.unpacking"


def _intact(path: Path, remote: Remote) -> bool:
    return remote.md5 is None or file_digest(path, "md5") == remote.md5


def _get(
    data: DataSet,
    remote: Remote,
    target: Path,
    offline: str | Path | None,
    mirror: str | None,
    retries: int,
    progress: Progress | None,
) -> None:
    if offline is not None:
        _copy(Path(offline), data, remote, target)
    elif mirror is not None:
        url = f"{mirror.rstrip('/')}/{Path(remote.name).name}"
        download(url, target, retries=retries, progress=progress)
    elif remote.url is not None:
        download(remote.url, target, retries=retries, progress=progress)
    elif data.hub is not None:
        _from_hub(data, remote, target)
    else:
        raise DataError(
            f"{data.name} cannot be fetched by a program",
            file=target,
            remedy=f"get {Path(remote.name).name} from {data.where} and put it there",
        )
    if not _intact(target, remote):
        found = file_digest(target, "md5")
        target.unlink()
        raise DataError(
            f"has the MD5 {found}, published is {remote.md5}; the file was removed",
            file=target,
            remedy="fetch it again, or from another mirror",
        )


def _copy(source: Path, data: DataSet, remote: Remote, target: Path) -> None:
    for candidate in (source / remote.name, source / Path(remote.name).name):
        if candidate.is_file():
            with atomic_path(target) as temporary:
                shutil.copyfile(candidate, temporary)
            return
    origin = remote.url or (f"the Hub's {data.hub}" if data.hub else data.where)
    raise DataError(
        f"the offline folder has no {Path(remote.name).name}",
        file=source,
        remedy=f"get it from {origin} and put it there",
    )


def _from_hub(data: DataSet, remote: Remote, target: Path) -> None:
    hub = need("huggingface_hub", f"fetching {data.name}")
    try:
        found = hub.hf_hub_download(
            data.hub,
            Path(remote.name).name,
            repo_type="dataset",
            endpoint=os.environ.get("HF_ENDPOINT") or None,
        )
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"cannot be fetched from the Hub's {data.hub}: {reason}",
            file=target,
            remedy="check the connection, set HF_ENDPOINT to a mirror, or use an offline folder",
        ) from error
    with atomic_path(target) as temporary:
        shutil.copyfile(found, temporary)


_COCO = "http://images.cocodataset.org/zips"
_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
_NQ = "https://raw.githubusercontent.com/google-research-datasets/natural-questions/master/nq_open"
_MMEDIT = "https://drive.google.com/drive/folders/1jBdTJxUb9wEeHnvG-RY8dv5_I4QlDpUS"
_MMEDIT_IMAGES = "https://drive.google.com/file/d/1fQzJBFkok5kFZT6QUuT-HCuYKk2Vb93O/view"


def _zip(base: str, name: str, holds: str, md5: str | None = None) -> Remote:
    return Remote(name, f"{base}/{name}", md5, unpack=True, holds=holds)


for _set in (
    DataSet(
        "fgvedit",
        "FGVEdit's records, 8,334 and 2,778; its images are coco2014",
        (Remote("train_data.json"), Remote("test_data.json")),
        hub="ZhenZeng/FGVEdit",
    ),
    DataSet(
        "e-vqa",
        "E-VQA's records (MMEdit); its images are mmedit-images",
        (Remote("vqa/vqa_train.json"), Remote("vqa/vqa_eval.json")),
        where=f"{_MMEDIT} (EasyEdit's README, MMEdit)",
    ),
    DataSet(
        "e-ic",
        "E-IC's records (MMEdit); its images are mmedit-images",
        (Remote("caption/caption_train_edit.json"), Remote("caption/caption_eval_edit.json")),
        where=f"{_MMEDIT} (EasyEdit's README, MMEdit)",
    ),
    DataSet(
        "mmedit-images",
        "all images of E-VQA and E-IC",
        (Remote("mmedit_images.zip", unpack=True, holds="val2014_image_rephrase"),),
        where=f"{_MMEDIT_IMAGES} (rename the archive)",
    ),
    DataSet(
        "coco2014",
        "COCO 2014 images, train and val, 13 and 6 GB",
        (
            _zip(_COCO, "train2014.zip", "train2014", "0da8c0bd3d6becc4dcb32757491aca88"),
            _zip(_COCO, "val2014.zip", "val2014", "a3d79f5ed8d289b7a7554ce06a5782b3"),
        ),
    ),
    DataSet(
        "vqav2",
        "VQAv2's questions and annotations, train and val",
        tuple(
            _zip(_VQA, f"v2_{kind}_{part}_mscoco.zip", f"v2_{stem}_{part.lower()}2014_{tail}")
            for part in ("Train", "Val")
            for kind, stem, tail in (
                ("Questions", "OpenEnded_mscoco", "questions.json"),
                ("Annotations", "mscoco", "annotations.json"),
            )
        ),
    ),
    DataSet(
        "nq-open",
        "NQ-open's questions and short answers",
        tuple(
            Remote(f"NQ-open.{part}.jsonl", f"{_NQ}/NQ-open.{part}.jsonl")
            for part in ("train", "dev")
        ),
    ),
):
    SETS.register(_set.name, _set)
