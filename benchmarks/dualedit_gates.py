"""Which questions DualEdit's gates let through, on the scenes test records. No adapter is needed.

    python benchmarks/dualedit_gates.py [--backbone scenes-llava ...] [--cases 300] [--layer 4]

One edit at a time. A question is asked as a user asks it, by its prompt alone. The released gate
compares the last position of that prompt with the edit sample's last, an answer token; the
prompt-end gate compares prompts' ends. Each with the paper's threshold, and the second also with
one calibrated on training records.
"""

from __future__ import annotations

from common import finish, parser, records, start
from torch.nn.functional import cosine_similarity

from easyedit_mm_plugins import load_backbone
from easyedit_mm_plugins.data import EditRecord
from easyedit_mm_plugins.methods.dualedit import (
    AdapterConfig,
    DualEdit,
    DualEditConfig,
    GateConfig,
    calibrate,
)
from easyedit_mm_plugins.methods.dualedit.gate import paper_threshold

KINDS = ("edit", "rephrase", "image_rephrase", "image_loc", "text_loc")
AT_ONCE = 50


def opened(editor: DualEdit, asked_of: list[EditRecord], threshold: float) -> dict[str, float]:
    """Percent of questions that open the gate of their own record's edit, by kind."""
    counts: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for begin in range(0, len(asked_of), AT_ONCE):
        some = asked_of[begin : begin + AT_ONCE]
        keys = editor.gate_keys([r.edit for r in some], with_answers=True)
        for kind in KINDS:
            asked = [r.questions()[kind][0] for r in some]
            found = cosine_similarity(editor.gate_keys(asked), keys)
            counts[kind] += (found >= threshold).tolist()
    return {kind: 100 * sum(values) / len(values) for kind, values in counts.items()}


def main() -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--backbone", nargs="*", default=["scenes-llava", "scenes-blip2"])
    made.add_argument("--cases", type=int, default=300)
    made.add_argument("--layer", type=int, default=4, help="of 8; the paper's is 16 of 32")
    args = start(made)
    test, held = records(args, args.cases), records(args, 100, "train")
    rows = []
    for name in args.backbone:
        backbone = load_backbone(name)
        paper = paper_threshold(backbone)
        editors = {
            kind: DualEdit(
                backbone,
                DualEditConfig([AdapterConfig(args.layer, "text")], GateConfig(kind)),
            )
            for kind in ("released", "prompt-end")
        }
        own = calibrate(editors["prompt-end"], held).threshold
        for kind, threshold, chosen in (
            ("released", paper, "paper"),
            ("prompt-end", paper, "paper"),
            ("prompt-end", own, "calibrated"),
        ):
            found = opened(editors[kind], test, threshold)
            about = {"backbone": name, "gate": kind, "threshold": threshold, "chosen": chosen}
            rows.append({**about, **found})
            print(about, {k: round(v, 1) for k, v in found.items()}, flush=True)
    finish(args, {"cases": len(test), "layer": args.layer, "rows": rows})


if __name__ == "__main__":
    main()
