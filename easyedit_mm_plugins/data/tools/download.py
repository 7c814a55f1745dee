"""Download one file over HTTP, resumably, and unpack zip archives."""

from __future__ import annotations

import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

from ...core.errors import DataError
from ...core.files import disk_error

Progress = Callable[[str, int, int | None], None]
_PIECE = 1 << 20


def download(
    url: str,
    target: str | Path,
    *,
    retries: int = 5,
    backoff: float = 1.0,
    timeout: float = 60.0,
    progress: Progress | None = None,
) -> None:
    """Fetch ``url``. A part left by an earlier try is completed, if it belongs to the same file.

    Raises:
        DataError: the server does not have it, or the connection was lost too often; the part is
            kept.
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
            if error.code == 416:  # the part is longer than the file: it belongs to another
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
        remedy="run the same command again; the received part is kept",
    )


class _Cut(Exception):
    """The connection ended before the file did."""


def _pull(url: str, part: Path, tag: Path, timeout: float, progress: Progress | None) -> None:
    """Send one request and append what comes to ``part``."""
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "easyedit-mm-plugins"}
    known = tag.read_text(encoding="utf-8") if tag.exists() else ""
    if there and known:
        # With If-Range a changed file is sent whole, so that two versions are never mixed.
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
    """Unpack a zip archive; files that are there in full size are kept. Returns how many it wrote.

    Raises:
        DataError: the archive is damaged, or holds paths that lead out of ``folder``.
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
