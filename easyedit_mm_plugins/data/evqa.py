"""E-VQA and E-IC (MMEdit) as edit records, in the schema of EasyEdit's files.

One record has ``src``, ``pred`` (what the base model said), ``alt`` (y_e), ``rephrase``, ``image``,
``image_rephrase``, ``loc``/``loc_ans`` (text only) and ``m_loc``/``m_loc_q``/``m_loc_a`` (another
image). It has no questions in or out of visual scope.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .fgvedit import FGVEditDataset


class EVQADataset(FGVEditDataset):
    """Visual question answering edits; arguments as for :class:`FGVEditDataset`.

    Args:
        rephrase_root: folder that ``image_rephrase`` is relative to; by default ``config``'s
            ``rephrase_image``, else the image root.
    """

    needs_scope = False

    def __init__(
        self,
        data_dir: str | Path,
        size: int | None = None,
        config: Any = None,
        *,
        rephrase_root: str | Path | None = None,
        **options: Any,
    ) -> None:
        root = rephrase_root or getattr(config, "rephrase_image", None)
        self._roots = {"image_rephrase": Path(root)} if root else {}
        super().__init__(data_dir, size, config, **options)


class EICDataset(EVQADataset):
    """Image captioning edits: ``src`` asks for a caption, ``alt`` is the new one."""
