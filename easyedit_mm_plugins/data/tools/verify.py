"""Verify benchmark files: schema, counts, images, duplicates, leakage, lengths in tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError, DataError
from ...core.files import write_json
from ..images import image_path
from ..record_files import read_list, record_files
from ..schema import (
    IMAGE_FIELDS,
    PUBLISHED,
    Finding,
    Kind,
    as_list,
    content_findings,
    fold,
    guess_kind,
    schema_findings,
)
from .pictures import PictureReport, look_at_all
from .verification import Verification

_TEXT_FIELDS = ("src", "rephrase", "fg_gen_q", "fg_loc_q", "loc", "m_loc_q")


def verify(
    path: str | Path | Sequence[str | Path],
    images: str | Path | None = None,
    *,
    rephrase_images: str | Path | None = None,
    allow_outside: bool = False,
    kind: Kind | None = None,
    tokenizer: str | None = "clip",
    max_tokens: int | None = None,
    workers: int | None = None,
    fix: str | Path | None = None,
) -> Verification:
    """Check one benchmark file, several, or a folder of them.

    Args:
        path: JSON files, or a folder: its ``*.json`` that hold lists of records. Several files
            are taken as splits of one benchmark and checked for shared images.
        images: image root; None: images are not checked.
        rephrase_images: root of ``image_rephrase``, if it is another one.
        allow_outside: accept image paths that lead out of the image root.
        tokenizer: "clip" (77 tokens, as the paper's classifier), a folder or hub name, or None.
        max_tokens: questions longer than this are reported; by default the tokenizer's own limit.
        fix: write copies into this folder, without records that have errors or are duplicates.

    Raises:
        DataError: a file is missing.
        ConfigError: a tokenizer that cannot be loaded, pydantic is missing, or ``fix`` is the
            folder of the files themselves.
    """
    report = Verification()
    paths = record_files(path)
    if fix is not None and any(p.parent.resolve() == Path(fix).resolve() for p in paths):
        raise ConfigError("--fix would overwrite the files", remedy="name another folder")
    contents: dict[Path, list[Any]] = {}
    for file in paths:
        try:
            contents[file] = read_list(file)
        except DataError as error:
            report.findings.append(Finding("error", "file", error.message, file=str(file)))
    kinds = {file: kind or guess_kind(content) for file, content in contents.items()}
    for file, content in contents.items():
        _check_counts(report, file, content, kinds[file])
    count_tokens = _token_counter(tokenizer, max_tokens)
    good: dict[Path, dict[int, dict[str, Any]]] = {}
    for file, content in contents.items():
        found = list(_record_findings(content, kinds[file], count_tokens))
        bad = {f.record for f in found if f.check == "schema"}
        good[file] = {i: r for i, r in enumerate(content) if i not in bad}
        report.findings += [_at(f, file) for f in found]
    digests: dict[str, str] = {}
    if images is not None:
        roots = {"image_rephrase": Path(rephrase_images)} if rephrase_images else {}
        users = _image_users(report, good, Path(images), roots, allow_outside)
        _check_images(report, users, workers, digests, content=len(good) > 1)
    _check_leakage(report, good, Path(images) if images is not None else None, digests)
    if fix is not None:
        _fix(report, contents, Path(fix))
    return report


def _at(finding: Finding, file: Path) -> Finding:
    return Finding(**{**finding.__dict__, "file": str(file)})


def _check_counts(report: Verification, file: Path, content: list[Any], kind: Kind) -> None:
    expected = PUBLISHED.get((kind, file.name))
    report.files[str(file)] = {"kind": kind, "records": len(content), "published": expected}
    if not content:
        report.findings.append(Finding("error", "count", "holds no record", file=str(file)))
    elif expected is not None and len(content) != expected:
        message = f"{len(content):,} records; the published {kind} file has {expected:,}"
        report.findings.append(Finding("warning", "count", message, file=str(file)))


def _record_findings(
    content: list[Any], kind: Kind, count_tokens: Callable[[str], str | None] | None
) -> Iterator[Finding]:
    bad = set()
    for finding in schema_findings(content, kind):
        bad.add(finding.record)
        yield finding
    first: dict[tuple[str, str], tuple[int, str]] = {}
    names: dict[str, int] = {}
    for index, record in enumerate(content):
        if index in bad:
            continue
        yield from content_findings(record, index, kind)
        if record.get("case_id") is not None:
            name = str(record["case_id"])
            if names.setdefault(name, index) != index:
                message = f"case_id {name!r} is also that of record {names[name]}"
                yield Finding("error", "case-id", message, index, "case_id")
        place = (fold(record["src"]), record["image"].strip())
        earlier, alt = first.setdefault(place, (index, fold(record["alt"])))
        if earlier != index and fold(record["alt"]) == alt:
            message = f"the same edit as record {earlier}"
            yield Finding("warning", "duplicate", message, index, "src")
        elif earlier != index:
            message = f"record {earlier} edits the same question and image to {alt!r}"
            yield Finding("warning", "contradiction", message, index, "alt")
        if count_tokens is not None:
            for name in _TEXT_FIELDS:
                wrong = next(filter(None, map(count_tokens, as_list(record.get(name)))), None)
                if wrong:
                    yield Finding("warning", "tokens", wrong, index, name)


def _token_counter(name: str | None, limit: int | None) -> Callable[[str], str | None] | None:
    """A function that says why a text does not suit the tokenizer, or gives None."""
    if name is None:
        return None
    if name == "clip":
        bound = limit or 77

        def clip_problem(text: str) -> str | None:
            # A token has at least one character: short texts need no counting.
            n = len(_clip().encode(text)) + 2 if len(text) + 2 > bound else 0
            return f"{n} tokens, CLIP reads {bound}" if n > bound else None

        return clip_problem
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        message = f"cannot load the tokenizer {name}: {str(error).splitlines()[0]}"
        raise ConfigError(message, remedy="give clip, a folder, or a hub name") from error
    bound = limit or min(tokenizer.model_max_length, 10**6)
    unknown = tokenizer.unk_token_id

    def problem(text: str) -> str | None:
        ids = tokenizer(text)["input_ids"]
        if len(ids) > bound:
            return f"{len(ids)} tokens, the tokenizer's limit is {bound}"
        if unknown is not None and unknown in ids:
            return f"{ids.count(unknown)} words that the tokenizer does not know: {text!r}"
        return None

    return problem


@cache
def _clip() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def _image_users(
    report: Verification,
    good: dict[Path, dict[int, dict[str, Any]]],
    root: Path,
    roots: dict[str, Path],
    allow_outside: bool,
) -> dict[str, list[tuple[Path, int, str]]]:
    """Image path -> the (file, record, field) that name it; paths that lead outside are findings.

    Args:
        roots: image fields that lie elsewhere than ``root``.
    """
    users: dict[str, list[tuple[Path, int, str]]] = defaultdict(list)
    for file, records in good.items():
        for index, record in records.items():
            for name in IMAGE_FIELDS:
                given = record.get(name)
                if not isinstance(given, str) or not given.strip():
                    continue
                folder = roots.get(name, root)
                try:
                    path = image_path(folder, given.strip(), allow_outside=allow_outside)
                except DataError as error:
                    finding = Finding("error", "image", error.message, index, name, str(file))
                    report.findings.append(finding)
                    continue
                users[str(path)].append((file, index, name))
    return users


def _check_images(
    report: Verification,
    users: dict[str, list[tuple[Path, int, str]]],
    workers: int | None,
    digests: dict[str, str],
    *,
    content: bool,
) -> None:
    """Open every image; with ``content`` put the digest of each edited image into ``digests``."""
    counts: Counter[str] = Counter()
    odd: dict[str, list[PictureReport]] = defaultdict(list)
    edited = {path for path, uses in users.items() if any(name == "image" for _, _, name in uses)}
    for picture in look_at_all(users, workers, digests=edited if content else ()):
        if picture.problem:
            counts[picture.problem.split(":")[0]] += 1
            for file, index, name in users[picture.path]:
                message = f"{picture.problem}: {picture.path}"
                finding = Finding("error", "image", message, index, name, str(file))
                report.findings.append(finding)
            continue
        counts["good"] += 1
        if picture.digest:
            digests[picture.path] = picture.digest
        for what in picture.oddities:
            counts[what] += 1
            odd[what].append(picture)
    for what, pictures in sorted(odd.items()):
        names = ", ".join(Path(p.path).name for p in pictures[:3])
        more = f" and {len(pictures) - 3} more" if len(pictures) > 3 else ""
        report.findings.append(
            Finding("warning", f"image-{what.replace(' ', '-')}", f"{what}: {names}{more}")
        )
    report.images = {"files": len(users), **dict(sorted(counts.items()))}


def _check_leakage(
    report: Verification,
    good: dict[Path, dict[int, dict[str, Any]]],
    root: Path | None,
    digests: dict[str, str],
) -> None:
    """Find images that are edited in more than one file, by name or by the content's digest."""
    owner: dict[str, tuple[Path, int]] = {}
    for file, records in good.items():
        for index, record in records.items():
            name = record["image"].strip()
            content = digests.get(str(root / name)) if root is not None else None
            for key, what in ((name, "name"), (content, "content")):
                if not key:
                    continue
                other, number = owner.setdefault(f"{what} {key}", (file, index))
                if other != file:
                    message = f"image also in {other.name}, record {number} (same {what}): {name}"
                    finding = Finding("warning", "leakage", message, index, "image", str(file))
                    report.findings.append(finding)
                    break


def _fix(report: Verification, contents: dict[Path, list[Any]], folder: Path) -> None:
    reasons: dict[str, dict[int, str]] = defaultdict(dict)
    for finding in report.findings:
        if finding.level == "warning" and finding.check != "duplicate":
            continue
        if finding.record is not None and finding.file is not None:
            reasons[finding.file].setdefault(
                finding.record, f"{finding.field or 'record'}: {finding.message}"
            )
    for file, content in contents.items():
        wrong = reasons[str(file)]
        kept = [_tidy(record) for i, record in enumerate(content) if i not in wrong]
        write_json(folder / file.name, kept)
        report.dropped[str(file)] = sorted(wrong.items())


def _tidy(value: Any) -> Any:
    """``value`` with single spaces, and none at the ends of texts; all else is unchanged."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list):
        return [_tidy(v) for v in value]
    if isinstance(value, dict):
        return {key: _tidy(v) for key, v in value.items()}
    return value
