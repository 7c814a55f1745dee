"""What a decision of MSCKE-Self costs, as a share of the base model's own forward pass.

    python benchmarks/self_scope.py scenes-llava --edits 1 1000

Heads need no training for this: their cost does not depend on their weights. The questions are in
no edit's scope, so that each is one pass of the base model and one decision.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from easyedit_mm_plugins.backbones import load_backbone
from easyedit_mm_plugins.data import Question, load_records
from easyedit_mm_plugins.methods.base import force_with_base
from easyedit_mm_plugins.methods.mscke.config import CounterfactualConfig
from easyedit_mm_plugins.methods.mscke_self import MSCKESelf, SelfScopeConfig
from easyedit_mm_plugins.methods.store import Kept

_LM = {
    "model_type": "opt",
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_dim": 16,
}


def main() -> None:
    """Print one line a number of edits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone")
    parser.add_argument("--source", help="the folder of its weights, if it is not shipped")
    parser.add_argument("--edits", type=int, nargs="+", default=[1, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(args.backbone, source=args.source)
    asked = [r.edit for r in load_records("scenes", split="test", limit=20).records]
    editor = MSCKESelf.from_config(backbone, SelfScopeConfig(), CounterfactualConfig(lm=_LM), 1.0)
    for count in args.edits:
        editor.clear()
        keys = torch.nn.functional.normalize(torch.randn(count, editor.scope.stored), dim=-1)
        edits = [Question(f"what is {i}?", None, "none") for i in range(count)]
        editor.counterfactual.prepare(edits)
        editor.store.add(edits, Kept(keys))
        times: dict[str, list[float]] = {"base": [], "decided": []}
        for i in range(args.rounds + 10):  # in turns: whatever else runs meets both alike
            question = [asked[i % len(asked)]]
            for name, call in (
                ("base", lambda q=question: force_with_base(backbone, q)),
                ("decided", lambda q=question: editor.force(q)),
            ):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
        base, decided = (statistics.median(times[n][10:]) * 1000 for n in ("base", "decided"))
        print(
            f"{args.backbone}: {count} edits, base {base:.2f} ms, with a shut decision "
            f"{decided:.2f} ms, {100 * (decided - base) / base:+.1f} %"
        )


if __name__ == "__main__":
    main()
