"""The embedded editors from scratch: ``--train`` of the demo and of the papers' tables.

What is finished is kept, what was stopped goes on, as each method's ``train_scenes`` does it; here
they are put in order and run side by side, one thread each.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.console import CONSOLE
from ..core.environment import cores
from ..core.errors import BridgeError, ConfigError
from ..core.files import read_json, write_json
from ..core.processes import Reporter, run_parallel
from ..methods.entries import METHODS

# By this module; others need no training.
TRAINED = ("serac", "mend", "mscke", "mscke-mend", "dualedit", "visedit")
_QUIET = 300.0


def train_editors(
    out: Path, methods: Sequence[str], backbones: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Train those of ``methods`` that need it, for embedded backbones, below ``out``.

    Returns:
        For each backbone the folders of its editors, by method. SERAC is missing where EasyEdit,
        whose code it runs, is not installed.

    Raises:
        ConfigError: a backbone that is not embedded. RunError: a worker failed; what it had
            finished is kept. TrainingError, in words, within it.
    """
    from ..core.shipped import ASSETS

    for backbone in backbones:
        if not (backbone.startswith("scenes-") and (ASSETS / backbone).is_dir()):
            raise ConfigError(
                f"--train makes the embedded editors, and {backbone} is not an embedded backbone",
                remedy=f"easyedit-mm train --method ... --backbone {backbone} --out ..., then "
                "method.NAME.archive=... with easyedit-mm compare",
            )
    wanted = {METHODS.key(method) for method in methods}
    mend = wanted & {"mend", "mscke-mend"}
    mscke = wanted & {"mscke", "mscke-mend", "serac"}  # SERAC answers with MSCKE's model
    first: dict[str, tuple] = {}
    if mscke:
        first["the scope classifier"] = ("scope", backbones[0], str(out))
    if "serac" in wanted and not (out / "serac/config.json").is_file():
        first["SERAC's classifier"] = ("serac", backbones[0], str(out))
    first |= {f"MEND for {b}": ("mend", b, str(out)) for b in backbones if mend}
    for name in ("dualedit", "visedit"):
        if name in wanted:
            first |= {f"{name} for {b}": (name, b, str(out)) for b in backbones}
    second = {f"MSCKE for {b}": ("mscke", b, str(out)) for b in backbones if mscke}
    if "mscke-mend" in wanted:
        second |= {f"MSCKE-MEND for {b}": ("mscke-mend", b, str(out)) for b in backbones}
    for wave in (first, second):
        if wave:
            CONSOLE.print(f"[bold]Training[/] {', '.join(wave)}", soft_wrap=True)
            run_parallel(train_part, wave, limit=max(2, cores()), every=_QUIET)
    return {backbone: _folders(out, wanted, backbone) for backbone in backbones}


def _folders(out: Path, wanted: set[str], backbone: str) -> dict[str, str]:
    """The editors of one backbone, those of several parts put together."""
    found: dict[str, str] = {}
    if wanted & {"mend", "mscke-mend"}:
        found["mend"] = str(out / f"mend-{backbone}")
    if wanted & {"mscke", "mscke-mend", "serac"}:
        found["mscke"] = str(out / f"mscke-{backbone}")
    if "mscke-mend" in wanted:
        from ..backbones import load_backbone
        from .mend import join

        own = out / f"in-scope-{backbone}"
        found["mscke-mend"] = str(join(load_backbone(backbone), own, out, shipped=out))
    for name in wanted & {"dualedit", "visedit"}:
        found[name] = str(out / f"{name}-{backbone}")
    if "serac" in wanted and (out / "serac/config.json").is_file():
        found["serac"] = str(_serac(out, backbone))
    return {method: folder for method, folder in found.items() if method in wanted}


def _serac(out: Path, backbone: str) -> Path:
    """SERAC for one backbone: the classifier of all, the counterfactual model of its MSCKE."""
    folder = out / f"serac-{backbone}"
    shutil.copytree(out / "serac", folder, dirs_exist_ok=True)
    config: Mapping[str, object] = read_json(folder / "config.json")
    parts = {"counterfactual": f"../mscke-{backbone}"}
    write_json(folder / "config.json", {**config, "parts": parts})
    return folder


def train_part(part: str, backbone_name: str, folder: str, reporter: Reporter) -> None:
    """One worker: "scope", "serac", "mend", "mscke", "mscke-mend", "dualedit" or "visedit"."""
    from ..backbones import load_backbone

    reporter.one_thread()
    out = Path(folder)
    reporter.forward_log(part if part in ("scope", "serac") else f"{part} {backbone_name}")
    backbone = load_backbone(backbone_name)
    if part == "serac":
        _train_serac(backbone, out, reporter)
    elif part == "mend":
        from . import mend as mend_scenes

        mend_scenes.train_editor(backbone, out, mend_scenes.records(None))
    elif part == "mscke-mend":
        from . import mend as mend_scenes

        mend = out / f"mend-{backbone_name}"
        mend_scenes.train_in_scope(backbone, mend, out, mend_scenes.records(None))
    elif part in ("dualedit", "visedit"):
        from . import dualedit as dual_scenes
        from .visedit import VISEDIT

        method = VISEDIT if part == "visedit" else None
        dual_scenes.train_editor(backbone, out, dual_scenes.records(None), method=method)
    else:
        from . import mscke as train_scenes
        from .scenes_clip import pretrain

        data = train_scenes.records(None)
        clip = out / "scenes-clip"
        if not (clip / "config.json").is_file():
            pretrain(clip)
        scope = train_scenes.train_scope(backbone, clip, out, data)
        if part == "mscke":
            train_scenes.train_editor(backbone, scope, out, data)


def _train_serac(backbone, out: Path, reporter: Reporter) -> None:
    try:
        from .mscke import records
        from .serac import train_serac

        editor = train_serac(backbone, records(None)[0], progress=False)
    except (ImportError, BridgeError) as error:
        text = error.message if isinstance(error, BridgeError) else str(error)
        reporter.note(f"SERAC is left out: it runs EasyEdit's own code. {text}")
        return
    fresh = out / "serac.new"
    shutil.rmtree(fresh, ignore_errors=True)
    editor.save_pretrained(fresh)
    fresh.replace(out / "serac")
