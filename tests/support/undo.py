"""Edit, then undo, equals never edited: to the bit, for editors that change weights beside them."""

from __future__ import annotations

from random import Random

import torch


def edit_and_undo(editor, edits, asked, draw: Random, tensors) -> None:
    """Edit, take the edits back in any order, and compare what was before.

    Args:
        asked: questions, of which some answer must change meanwhile.
        tensors: what may not change, such as the base model's and the network's.
    """
    before = [t.clone() for t in tensors]
    with torch.no_grad():
        logits = editor.backbone.answer_logits(asked)
    # An example may end at any draw: whatever it adds to a shared editor goes with it.
    with torch.no_grad(), editor.edited(edits) as ids:
        changed = editor.answer_logits(asked)
        assert not all(torch.equal(a, b) for a, b in zip(logits, changed, strict=True))
        draw.shuffle(ids)
        for edit_id in ids:
            editor.remove([edit_id])
        assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
        after = editor.answer_logits(asked)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(logits, after, strict=True))
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    hooked = [m for m in editor.backbone.model.modules() if any(getattr(m, h) for h in hooks)]
    assert editor.edits == {} and not hooked
