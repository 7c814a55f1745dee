"""Convert records to and from Hugging Face ``datasets``, and push them to the Hub."""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.optional import need
from ..records import EditRecord, Question

_LATER = ("image_far", "image_near")  # data sets that were made before lack these columns
_LISTS = ("rephrase", "in_scope", "out_scope", "text_loc", "image_rephrase", "image_loc", *_LATER)


def features(*, embed: bool) -> Any:
    """The columns: ``case_id``, ``src``, ``alt``, ``image``, and a list of questions per kind.

    Args:
        embed: columns hold the images (``datasets.Image``), else their paths.
    """
    datasets = need("datasets", "conversion to datasets")
    text = datasets.Value("string")
    picture = datasets.Image() if embed else text
    columns: dict[str, Any] = {"case_id": text, "src": text, "alt": text, "image": picture}
    for name in _LISTS:
        one = {"question": text, "answer": text}
        # Only these questions have another image than the edit's.
        columns[name] = [one | {"image": picture} if name.startswith("image_") else one]
    return datasets.Features(columns)


def to_datasets(records: Iterable[EditRecord], *, embed: bool = True) -> Any:
    """Records as a ``datasets.Dataset``; with ``embed`` the image files are read one by one.

    Raises:
        DataError: an image file is missing.
        ConfigError: datasets is not installed.
    """
    datasets = need("datasets", "conversion to datasets")
    columns = features(embed=embed)
    rows = list(records)

    def generate() -> Iterator[dict[str, Any]]:
        for record in rows:
            yield _row(record, embed)

    if not embed:
        return datasets.Dataset.from_list(list(generate()), features=columns)
    # Through a file, so that the images need not fit into memory; it is deleted with the dataset.
    folder = tempfile.mkdtemp(prefix="easyedit-mm-")
    try:
        made = datasets.Dataset.from_generator(generate, features=columns, cache_dir=folder)
    except datasets.exceptions.DatasetGenerationError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise (error.__cause__ if isinstance(error.__cause__, DataError) else error) from None
    weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return made


def from_datasets(dataset: Any) -> HubRecords:
    """The records of a dataset with the columns of :func:`features`, read when they are needed.

    Raises:
        DataError: columns are missing.
    """
    missing = {"case_id", "src", "alt", "image", *_LISTS} - {*_LATER, *dataset.column_names}
    if missing:
        raise DataError(
            f"columns are missing: {', '.join(sorted(missing))}",
            file="dataset",
            remedy="load one that was made by easyedit-mm data push or to_datasets",
        )
    return HubRecords(dataset)


class HubRecords(Sequence[EditRecord]):
    """A sequence of :class:`EditRecord` over a dataset; a record's images are decoded with it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.dataset[index]
        image = row["image"]

        def read(name: str) -> tuple[Question, ...]:
            on = None if name == "text_loc" else image
            return tuple(
                Question(x["question"], x.get("image", on), x["answer"])
                for x in row.get(name) or ()
            )

        lists: dict[str, Any] = {name: read(name) for name in _LISTS}
        return EditRecord(row["case_id"], Question(row["src"], image, row["alt"]), **lists)


def push(
    splits: dict[str, Iterable[EditRecord]],
    repo: str,
    *,
    card: str | None = None,
    private: bool = True,
    token: str | None = None,
) -> str:
    """Upload splits to the Hugging Face Hub as Parquet with embedded images; returns the address.

    Args:
        repo: "owner/name"; created if it does not exist.
        card: text of the data card; what ``datasets`` writes about the columns is added.

    Raises:
        DataError: an image is missing, or the Hub refuses.
    """
    datasets = need("datasets", "pushing to the Hub")
    hub = need("huggingface_hub", "pushing to the Hub")
    converted = {name: to_datasets(records) for name, records in splits.items()}
    whole = datasets.DatasetDict(converted)
    try:
        whole.push_to_hub(repo, private=private, token=token)
        if card is not None:
            _push_card(hub, repo, card, token)
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise DataError(
            f"the Hub did not take it: {str(error).strip().splitlines()[0]}",
            file=repo,
            remedy="log in with huggingface-cli login, or set HF_TOKEN, and check the name",
        ) from error
    return f"{hub.constants.ENDPOINT}/datasets/{repo}"


def _push_card(hub: Any, repo: str, text: str, token: str | None) -> None:
    """Replace the repository's card by ``text`` and what ``datasets`` wrote about the columns."""
    ours = hub.DatasetCard(text)
    try:
        theirs = hub.DatasetCard.load(repo, token=token).data.to_dict()
    except hub.errors.EntryNotFoundError:
        theirs = {}
    for key in ("dataset_info", "configs"):
        if key in theirs:
            setattr(ours.data, key, theirs[key])
    hub.HfApi(token=token).upload_file(
        path_or_fileobj=io.BytesIO(str(ours).encode()),
        path_in_repo="README.md",
        repo_id=repo,
        repo_type="dataset",
        commit_message="Data card",
    )


def _row(record: EditRecord, embed: bool) -> dict[str, Any]:
    def picture(image: Any) -> Any:
        if image is None or not embed:
            return None if image is None else str(image)
        if isinstance(image, (str, Path)):
            try:
                return {"path": Path(image).name, "bytes": Path(image).read_bytes()}
            except OSError as error:
                raise DataError(
                    "image not found", file=image, record=record.case_id, remedy="fetch the images"
                ) from error
        return image

    row: dict[str, Any] = {
        "case_id": record.case_id,
        "src": record.edit.text,
        "alt": record.edit.answer,
        "image": picture(record.edit.image),
    }
    for name in _LISTS:
        row[name] = [
            {"question": q.text, "answer": q.answer}
            | ({"image": picture(q.image)} if name.startswith("image_") else {})
            for q in getattr(record, name)
        ]
    return row
