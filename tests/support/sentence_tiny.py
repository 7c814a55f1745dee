"""A sentence-transformers model of random weights, in a folder."""

from __future__ import annotations

from pathlib import Path

import torch


def sentence_folder(folder: Path, bert: str) -> str:
    """A mean-pooled BERT from the folder ``bert``, as ``SentenceTransformer`` takes it."""
    from sentence_transformers import SentenceTransformer, models

    torch.manual_seed(0)
    word = models.Transformer(bert)
    pooling = models.Pooling(word.get_word_embedding_dimension())
    SentenceTransformer(modules=[word, pooling], device="cpu").save(str(folder))
    return str(folder)
