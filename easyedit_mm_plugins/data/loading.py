"""Images on their way to a model: opened when needed, kept in bounded memory, by worker processes.

EasyEdit's datasets open and preprocess every image when they are made. Here a data set is its
records; :class:`PreparedRecords` adds the preprocessed pictures of a record when it is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from .images import open_image
from .records import EditRecord, ImageLike

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor
    from torch.utils.data import DataLoader


class TensorCache:
    """Least recently used tensors, at most ``max_bytes`` of them."""

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ConfigError(f"max_bytes is {max_bytes}, must be 0 or more")
        self.max_bytes, self.bytes = max_bytes, 0
        self.hits = self.misses = 0
        self._items: OrderedDict[str, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """The tensor under ``key``, made if it is not there. Do not change it in place."""
        if key in self._items:
            self.hits += 1
            self._items.move_to_end(key)
            return self._items[key]
        self.misses += 1
        value = make()
        size = value.numel() * value.element_size()
        if size <= self.max_bytes:
            self._items[key] = value
            self.bytes += size
            while self.bytes > self.max_bytes:
                _, old = self._items.popitem(last=False)
                self.bytes -= old.numel() * old.element_size()
        return value


@dataclass(frozen=True)
class Prepared:
    """A record and its pictures, preprocessed.

    Attributes:
        images: kind of question ("edit", "image_rephrase", "image_loc") -> float [3, H, W].
            Questions of all other kinds are about the edit's picture.
    """

    record: EditRecord
    images: dict[str, Tensor]


class PreparedRecords:
    """A torch map-style data set of :class:`Prepared`.

    Args:
        records: any sequence of records; their images may be paths.
        preprocess: RGB picture -> tensor [3, H, W]; a Hugging Face image processor does, too.
        cache_bytes: memory for preprocessed pictures, shared out among worker processes.
    """

    _OTHER = ("image_rephrase", "image_loc")

    def __init__(
        self,
        records: Sequence[EditRecord],
        preprocess: Callable[[Image.Image], Any],
        *,
        cache_bytes: int = 256 << 20,
    ) -> None:
        self.records, self.preprocess = records, preprocess
        self.cache = TensorCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Prepared:
        record = self.records[index]
        images = {} if record.edit.image is None else {"edit": self.image(record.edit.image)}
        for kind in self._OTHER:
            found = [q.image for q in getattr(record, kind) if q.image is not None]
            if found:
                images[kind] = self.image(found[0])
        return Prepared(record, images)

    def image(self, image: ImageLike) -> Tensor:
        """One preprocessed picture.

        Raises:
            DataError: the file is missing or cannot be decoded.
        """
        if isinstance(image, str) or hasattr(image, "__fspath__"):
            return self.cache.get(str(image), lambda: self._prepare(image))
        return self._prepare(image)

    def _prepare(self, image: ImageLike) -> Tensor:
        picture = open_image(image)
        if hasattr(self.preprocess, "image_mean"):  # a Hugging Face image processor
            return self.preprocess(picture, return_tensors="pt")["pixel_values"][0]
        return self.preprocess(picture)

    def loader(self, batch_size: int = 1, *, workers: int = 0, **options: Any) -> DataLoader:
        """A ``DataLoader`` that gives lists of :class:`Prepared`.

        Args:
            workers: processes that open and preprocess images; each gets its share of the cache.
            options: for ``DataLoader`` (``shuffle``, ``generator``, ...).
        """
        from torch.utils.data import DataLoader

        extra: dict[str, Any] = {}
        if workers:
            extra = {"worker_init_fn": share_cache, "persistent_workers": True}
        return DataLoader(
            self,  # type: ignore[arg-type]
            batch_size=batch_size,
            num_workers=workers,
            collate_fn=list,
            **{**extra, **options},
        )


def share_cache(worker: int) -> None:
    """Give this worker process its part of the cache's memory."""
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    if info is not None:
        whole = info.dataset.cache.max_bytes
        info.dataset.cache = TensorCache(whole // info.num_workers)
