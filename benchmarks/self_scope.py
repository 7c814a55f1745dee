"""What a decision of MSCKE-Self costs, as a share of the base model's own forward pass.

    python benchmarks/self_scope.py scenes-llava --edits 1 1000

Two kinds of questions, all in no edit's scope, so that each is one pass of the base model and one
decision that leaves it as it is: ``other`` ones, which no edit means, so that no picture is looked
at, and ``same`` ones, which many edits mean, of other pictures. The pass with a decision and the
one without are timed in turns, by the time that the process runs, so that what else runs on the
machine does not count, and of their times the least tenth is taken. Heads need no training for
this: their cost does not depend on their weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from easyedit_mm_plugins.backbones import load_backbone
from easyedit_mm_plugins.data import Question, load_records
from easyedit_mm_plugins.methods.base import force_with_base
from easyedit_mm_plugins.methods.mscke.config import CounterfactualConfig
from easyedit_mm_plugins.methods.mscke_self import MSCKESelf, SelfScopeConfig
from easyedit_mm_plugins.methods.mscke_self.reading import read_keys
from easyedit_mm_plugins.methods.mscke_self.scope import U
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
    """Print one line a number of edits and kind of question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backbone")
    parser.add_argument("--source", help="the folder of its weights, if it is not shipped")
    parser.add_argument("--data", default="scenes", help="records, as of easyedit-mm evaluate")
    parser.add_argument("--edits", type=int, nargs="+", default=[1, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(args.backbone, source=args.source)
    asked = [r.edit for r in load_records(args.data, split="test", limit=20).records]
    editor = MSCKESelf.from_config(backbone, SelfScopeConfig(), CounterfactualConfig(lm=_LM), 0.9)
    with torch.no_grad():  # so sharp that a question means itself alone
        editor.scope.log_scale.copy_(torch.tensor(1e4).log())
        editor.scope.bias.fill_(-0.9995e4)
    own = read_keys(backbone, editor.scope, asked)
    for count in args.edits:
        for kind in ("other", "same"):
            keys = torch.nn.functional.normalize(torch.randn(count, editor.scope.stored), dim=-1)
            if kind == "same":
                keys[:, :U] = own[torch.arange(count) % len(own), :U]
            fill(editor, keys)
            questions = asked if kind == "other" else asked[: max(1, min(count, len(asked)))]
            base, decided = times(editor, questions, args.rounds)
            print(
                f"{args.backbone}: {count} edits, {kind} questions: base {base:.2f} ms, decision "
                f"{decided:.3f} ms, {100 * decided / base:.1f} %",
                flush=True,
            )


def fill(editor: MSCKESelf, keys: torch.Tensor) -> None:
    """Put edits of these keys in force, in place of all others."""
    editor.clear()
    edits = [Question(f"what is {i}?", None, "none") for i in range(len(keys))]
    editor.counterfactual.prepare(edits)
    editor.store.add(edits, Kept(keys))


def times(editor: MSCKESelf, asked: list[Question], rounds: int) -> tuple[float, float]:
    """Milliseconds of the base model's pass, and what the decision adds to it."""

    def plain(question: list[Question]) -> None:
        force_with_base(editor.backbone, question)

    calls: dict[str, Callable[[list[Question]], object]] = {"base": plain, "with": editor.force}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 10):
        question = [asked[i % len(asked)]]
        for name in ("base", "with") if i % 2 else ("with", "base"):
            start = time.process_time()
            calls[name](question)
            found[name].append(time.process_time() - start)
    least = {n: sorted(t[10:])[: max(1, rounds // 10)] for n, t in found.items()}
    base, decided = (1000 * sum(least[n]) / len(least[n]) for n in ("base", "with"))
    return base, decided - base


if __name__ == "__main__":
    main()
