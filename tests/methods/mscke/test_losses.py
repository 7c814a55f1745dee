"""What the counterfactual model learns, against plain formulas."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke.losses import counterfactual_total

from ...conftest import picture
from ...support.mscke_tiny import hparams, tiny_mscke


def test_cedit_weighs_the_edit_and_its_rewordings_and_iedit_the_questions_in_scope():
    losses = {"edit": 1.0, "rephrase": 10.0, "image_rephrase": 100.0, "in_scope": 1000.0}
    tensors = {kind: torch.tensor(value) for kind, value in losses.items()}
    weights = hparams(cedit=2.0, iedit=5.0)
    assert counterfactual_total(tensors, weights).item() == 2 * (1 + 10 + 100) + 5 * 1000


@pytest.mark.parametrize("answer", ["red", "top left bottom"])
@pytest.mark.parametrize("image", [None, picture(2)])
def test_the_nll_is_the_mean_over_the_answers_tokens_and_the_end_token(answer, image):
    """Token by token: the language model reads the row so far, and its next one is looked up."""
    editor = tiny_mscke()
    model, base = editor.counterfactual, editor.backbone
    edit = Question("what color is the circle?", picture(0), "green")
    asked = Question("where is the star?", image, answer)
    embed = model.lm.get_input_embeddings()
    end = base.tokenizer.convert_tokens_to_ids("</s>")
    with torch.no_grad():
        loss, _ = model.nll([edit], [asked])
        features = None if image is None else model.see(base.image_features([image]))[0]
        read = torch.cat(
            [
                part if isinstance(part, torch.Tensor) else embed(torch.tensor(part))
                for part in model.segments(edit, asked, features)
            ]
        )
        nll = []
        for token in [*base.tokenizer(answer, add_special_tokens=False)["input_ids"], end]:
            logits = model.lm(inputs_embeds=read[None]).logits[0, -1].double()
            nll.append(float(logits.logsumexp(-1) - logits[token]))
            read = torch.cat([read, embed(torch.tensor([token]))])
    assert len(nll) == len(answer.split()) + 1
    assert loss.item() == pytest.approx(sum(nll) / len(nll), rel=1e-4)
