"""Getting benchmark files: resumable, checked, through mirrors or from an offline folder.

Where a source cannot be fetched by a program, the error says where a person gets it and where to
put it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from ..errors import DataError
from ..files import atomic_path, disk_error
from ..registry import Registry
from .optional import need

SETS = Registry("data set to fetch")
Progress = Callable[[str, int, int | None], None]
_PIECE = 1 << 20
_OFFLINE = "EASYEDIT_MM_OFFLINE"
_MIRROR = "EASYEDIT_MM_MIRROR"


@dataclass(frozen=True)
class Remote:
    """One file.

    Attributes:
        name: its place below the data set's folder.
        url: where it is; None: a person has to get it.
        md5: as published, if it is.
        unpack: a zip archive whose content belongs into the folder.
        holds: what is there once it has been unpacked; then nothing is fetched again.
    """

    name: str
    url: str | None = None
    md5: str | None = None
    unpack: bool = False
    holds: str | None = None


@dataclass(frozen=True)
class DataSet:
    """What belongs to a data set.

    Attributes:
        hub: a Hugging Face data set that the files are in.
        where: for people: the page to get it from.
    """

    name: str
    about: str
    files: tuple[Remote, ...]
    hub: str | None = None
    where: str | None = None


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
    """Bring a data set into ``folder``; what is there already is kept.

    Args:
        offline: a folder to take files from instead (or the environment's ``EASYEDIT_MM_OFFLINE``);
            nothing is then asked of the network.
        mirror: base URL that files are fetched from, as ``mirror/file name`` (or
            ``EASYEDIT_MM_MIRROR``). For the Hugging Face Hub, set ``HF_ENDPOINT``.
        retries: further tries after a lost connection; each goes on where the last one ended.
        progress: called with (file, bytes there, bytes in all or None).

    Raises:
        UnknownNameError: no such data set.
        DataError: a file cannot be fetched, is not what was published, or a person must get it.
    """
    data: DataSet = SETS.get(name)
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
    """A mark that says the archive's content is not all there yet."""
    return folder / f".{Path(remote.name).name}.unpacking"


def _intact(path: Path, remote: Remote) -> bool:
    return remote.md5 is None or md5_of(path) == remote.md5


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
        found = md5_of(target)
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


def download(
    url: str,
    target: str | Path,
    *,
    retries: int = 5,
    backoff: float = 1.0,
    timeout: float = 60.0,
    progress: Progress | None = None,
) -> None:
    """Fetch ``url``; a part that is there from before is completed, if it is of the same file.

    Raises:
        DataError: it is not there, or the connection was lost too often; the part is kept.
    """
    target = Path(target)
    if urlparse(url).scheme not in ("http", "https"):
        raise DataError("is no http(s) address", file=url)
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".etag")
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(retries + 1):
        try:
            _pull(url, part, tag, timeout, progress)
            os.replace(part, target)
            tag.unlink(missing_ok=True)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is longer than the file: not of this file
                part.unlink(missing_ok=True)
            elif error.code not in (408, 429) and error.code < 500:
                raise DataError(
                    f"cannot be fetched: the server says {error.code} {error.reason}",
                    file=url,
                    remedy=f"fetch it by hand and put it at {target}, or name a mirror",
                ) from error
            trouble = f"{error.code} {error.reason}"
        except (urllib.error.URLError, ConnectionError, TimeoutError, _Cut) as error:
            trouble = str(getattr(error, "reason", error))
        except OSError as error:
            raise disk_error(error, part) from error
        if attempt < retries:
            time.sleep(min(30.0, backoff * 2**attempt))
    raise DataError(
        f"cannot be fetched: {trouble}",
        file=url,
        remedy="run the same command again; what has come is kept",
    )


class _Cut(Exception):
    """The connection ended before the file did."""


def _pull(url: str, part: Path, tag: Path, timeout: float, progress: Progress | None) -> None:
    """One request, appended to ``part``."""
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "easyedit-mm-plugins"}
    known = tag.read_text(encoding="utf-8") if tag.exists() else ""
    if there and known:
        # With If-Range a file that has changed since comes whole instead of mixed.
        headers |= {"Range": f"bytes={there}-", "If-Range": known}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        if reply.status != 206:
            there = 0
        length = reply.headers.get("Content-Length")
        total = there + int(length) if length and length.isdigit() else None
        name = reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
        tag.write_text("" if name.startswith("W/") else name, encoding="utf-8")
        with part.open("ab" if there else "wb") as file:
            while True:
                try:
                    piece = reply.read(_PIECE)
                except Exception as error:  # http.client.IncompleteRead and its kin
                    raise _Cut(f"connection lost ({error})") from error
                if not piece:
                    break
                file.write(piece)
                there += len(piece)
                if progress is not None:
                    progress(part.stem, there, total)
    if total is not None and there < total:
        raise _Cut(f"connection lost after {there:,} of {total:,} bytes")


def unpack(archive: str | Path, folder: str | Path) -> int:
    """Unpack a zip archive; files of the right size are kept. Returns how many were written.

    Raises:
        DataError: it is damaged, or holds paths that lead out of ``folder``.
    """
    archive, folder = Path(archive), Path(folder).resolve()
    written = 0
    try:
        with zipfile.ZipFile(archive) as packed:
            for item in packed.infolist():
                target = (folder / item.filename).resolve()
                if not target.is_relative_to(folder):
                    raise DataError(
                        f"holds the path {item.filename!r}, which leads out of it",
                        file=archive,
                        remedy="do not trust this archive",
                    )
                if item.is_dir():
                    continue
                if target.is_file() and target.stat().st_size == item.file_size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.part")
                with packed.open(item) as source, temporary.open("wb") as out:
                    shutil.copyfileobj(source, out, _PIECE)
                os.replace(temporary, target)
                written += 1
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"is damaged: {error}", file=archive, remedy="delete it and fetch it again"
        ) from error
    except OSError as error:
        raise disk_error(error, folder) from error
    return written


def md5_of(path: str | Path) -> str:
    """MD5 of a file: what the publishers of these archives give."""
    total = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


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
