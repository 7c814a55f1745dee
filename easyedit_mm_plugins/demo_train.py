"""``easyedit-mm demo --train``: the embedded editors from scratch, two processes at a time.

First the small CLIP and the scope classifier beside SERAC's text classifier, then a counterfactual
model for each backbone. What is finished is kept, what was stopped goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from .console import CONSOLE
from .parallel import Reporter, run_parallel


def train_editors(out: Path, backbones: Sequence[str]) -> dict[str, dict[str, str]]:
    """Train everything below ``out``.

    Returns:
        For each backbone the folders of its editors, by method.

    Raises:
        RunError: a worker failed; what it had finished is kept.
    """
    CONSOLE.print("[bold]Training[/] the scope classifier and SERAC's classifier")
    first = {"the scope classifier": ("scope", backbones[0], str(out))}
    if not (out / "serac" / "config.json").is_file():
        first["SERAC"] = ("serac", backbones[-1], str(out))
    run_parallel(train_part, first)
    CONSOLE.print("[bold]Training[/] the counterfactual models")
    run_parallel(train_part, {name: ("mscke", name, str(out)) for name in backbones})
    folders = {}
    for name in backbones:
        folders[name] = {"mscke": str(out / f"mscke-{name}")}
        if (out / "serac" / "config.json").is_file():
            folders[name]["serac"] = str(out / "serac")
    return folders


def train_part(part: str, backbone_name: str, folder: str, reporter: Reporter) -> None:
    """One worker: train "scope", "serac" or "mscke" into ``folder``."""
    from .backbones import load_backbone

    reporter.one_thread()
    out = Path(folder)
    reporter.forward_log(f"{part} {backbone_name}" if part == "mscke" else part)
    backbone = load_backbone(backbone_name)
    if part == "serac":
        _train_serac(backbone, out, reporter)
        return
    from .methods.mscke import train_scenes
    from .methods.mscke.scenes_clip import pretrain

    data = train_scenes.records(None)
    clip = out / "scenes-clip"
    if not (clip / "config.json").is_file():
        pretrain(clip)
    scope = train_scenes.train_scope(backbone, clip, out, data)
    if part == "mscke":
        train_scenes.train_editor(backbone, scope, out, data)


def _train_serac(backbone, out: Path, reporter: Reporter) -> None:
    from .errors import BridgeError

    try:
        from .bridge.train_serac import train_serac
    except (ImportError, BridgeError) as error:
        reporter.note(f"SERAC is left out: {error}")
        return
    from .methods.mscke import train_scenes

    records, _ = train_scenes.records(None)
    try:
        editor = train_serac(backbone, records, progress=False)
    except BridgeError as error:
        reporter.note(f"SERAC is left out: it runs EasyEdit's own code. {error.message}")
        return
    fresh = out / "serac.new"
    shutil.rmtree(fresh, ignore_errors=True)
    editor.save_pretrained(fresh)
    fresh.replace(out / "serac")
