"""Finding EasyEdit and telling its two generations apart, by what they offer, not by version.

``pypi`` is the release on the package index (``easyeditor`` 0.0.1.dev0), ``head`` the checkout of
the repository. Looking (:func:`locate`) imports nothing; :func:`load` imports it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ..core.errors import BridgeError

ENV = "EASYEDIT_ROOT"
Generation = Literal["pypi", "head"]

_INSTALL = (
    "install the release without its pins (pip install --no-deps easyeditor==0.0.1.dev0), or "
    f"clone EasyEdit and set {ENV} to the checkout"
)


@dataclass(frozen=True)
class Host:
    """One EasyEdit on this machine.

    Attributes:
        folder: of the package ``easyeditor``.
        generation: ``"pypi"`` or ``"head"``.
        source: how it was found, in words.
    """

    folder: Path
    generation: Generation
    source: str

    def module(self, name: str) -> ModuleType:
        """``easyeditor.<name>``, by its full dotted name: attribute access lies in EasyEdit."""
        return importlib.import_module(f"easyeditor.{name}")

    @property
    def editor_class(self) -> type:
        return self.module("editors.multimodal_editor").MultimodalEditor

    @property
    def trainer_class(self) -> type:
        return self.module("trainer.MultimodalTrainer").MultimodalTrainer

    @property
    def edit_algs(self) -> dict[str, Any]:
        return self.module("util.alg_dict").ALG_MULTIMODAL_DICT

    @property
    def train_algs(self) -> dict[str, Any]:
        return self.module("util.alg_train_dict").ALG_TRAIN_DICT

    @property
    def datasets(self) -> dict[str, Any]:
        """The table of multimodal datasets, which has another name in each generation."""
        module = self.module("util.alg_dict")
        return getattr(module, "MULTIMODAL_DS_DICT", None) or module.DS_DICT

    def name_sets(self) -> list[tuple[str, set[str]]]:
        """Sets of algorithm names that only ``head`` keeps beside its tables."""
        found = []
        for module, name in (
            ("util.alg_dict", "MULTIMODAL_EDIT_ALGS"),
            ("util.alg_train_dict", "MULTIMODAL_TRAIN_ALGS"),
        ):
            names = getattr(self.module(module), name, None)
            if isinstance(names, set):
                found.append((name, names))
        return found


def locate() -> Host:
    """The EasyEdit that :func:`load` would use; imports nothing.

    Raises:
        BridgeError: none is there, or it is of an unknown generation.
    """
    wanted = os.environ.get(ENV)
    loaded = sys.modules.get("easyeditor")
    if wanted:
        folder = Path(wanted).expanduser().resolve() / "easyeditor"
        if not (folder / "__init__.py").is_file():
            raise BridgeError(
                f"{ENV}={wanted} holds no package easyeditor",
                remedy=f"set {ENV} to the folder that contains easyeditor/, or unset it",
            )
        if loaded is not None and _folder(loaded) != folder:
            raise BridgeError(
                f"EasyEdit is already imported from {_folder(loaded)}, but {ENV} names {folder}",
                remedy=f"set {ENV} before anything imports easyeditor, or unset it",
            )
        return Host(folder, _generation(folder), f"environment variable {ENV}")
    if loaded is not None:
        folder = _folder(loaded)
        return Host(folder, _generation(folder), "already imported")
    try:
        spec = importlib.util.find_spec("easyeditor")
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise BridgeError("EasyEdit is not on this machine", remedy=_INSTALL)
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    how = "installed" if "site-packages" in folder.parts else "found on sys.path"
    return Host(folder, _generation(folder), how)


def load() -> Host:
    """Find EasyEdit and import it.

    Raises:
        BridgeError: none is there, it is of an unknown generation, or it does not import here;
            the message names the missing module and the remedy.
    """
    host = locate()
    root = str(host.folder.parent)
    if "easyeditor" not in sys.modules and host.source.startswith("environment"):
        sys.path.insert(0, root)
    try:
        host.module("editors.multimodal_editor")
        host.module("trainer.MultimodalTrainer")
    except ModuleNotFoundError as error:
        _forget()
        raise BridgeError(
            f"EasyEdit at {host.folder} does not import: no module named {error.name}",
            remedy=f"pip install what it imports, beginning with {error.name}; see the README",
        ) from error
    except ImportError as error:
        _forget()
        versions = "4.49 to 4.53.3" if host.generation == "pypi" else "4.53.3 or newer"
        raise BridgeError(
            f"EasyEdit at {host.folder} does not import: {error}",
            remedy=f"this generation needs transformers {versions}",
        ) from error
    return host


def _forget() -> None:
    """Take a half-imported EasyEdit out of ``sys.modules``, so that the next try is a real one."""
    for name in [n for n in sys.modules if n == "easyeditor" or n.startswith("easyeditor.")]:
        del sys.modules[name]


def _folder(module: ModuleType) -> Path:
    if getattr(module, "__file__", None):
        return Path(str(module.__file__)).resolve().parent
    return Path(next(iter(module.__path__))).resolve()


def _generation(folder: Path) -> Generation:
    names = _names(folder / "util" / "alg_dict.py")
    if "ALG_MULTIMODAL_DICT" not in names:
        raise BridgeError(
            f"the EasyEdit at {folder} has no multimodal algorithms (ALG_MULTIMODAL_DICT)",
            remedy=_INSTALL,
        )
    if "MULTIMODAL_DS_DICT" in names:
        return "head"
    if "DS_DICT" in names:
        return "pypi"
    raise BridgeError(
        f"the EasyEdit at {folder} is of an unknown generation: it has no table of datasets",
        remedy=_INSTALL,
    )


def _names(file: Path) -> set[str]:
    """Names that a module assigns at its top level, read without running it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return set()
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
