"""Find EasyEdit and tell its two generations apart, by what they offer, not by version.

``pypi`` is the release on the package index (``easyeditor`` 0.0.1.dev0), ``head`` the checkout of
the repository. Looking (:func:`locate`) imports nothing; :func:`load` imports it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from packaging.specifiers import SpecifierSet

from ..core.environment import package_version
from ..core.errors import BridgeError

ENV = "EASYEDIT_ROOT"
# The versions of transformers that each generation imports with.
TRANSFORMERS = {"pypi": ">=4.49,<4.54", "head": ">=4.53.3,<5.18"}
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
        """``easyeditor.<name>``, imported: an attribute of that name may be another object."""
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
    inserted = "easyeditor" not in sys.modules and host.source.startswith("environment")
    if inserted:
        sys.path.insert(0, root)
    try:
        host.module("editors.multimodal_editor")
        host.module("trainer.MultimodalTrainer")
    except Exception as error:  # what it imports fails in many ways
        _forget()
        if inserted:
            sys.path.remove(root)
        raise BridgeError(
            f"EasyEdit at {host.folder} does not import: {' '.join(str(error).split())}",
            remedy=_remedy(host, error),
        ) from error
    return host


def import_problem(timeout: float = 300.0) -> BridgeError | None:
    """Why :func:`load` fails here, or ``None``; tried in a process of its own.

    Args:
        timeout: seconds that the import may take.
    """
    try:
        host = locate()
    except BridgeError as error:
        return error
    env = {**os.environ, ENV: str(host.folder.parent)}
    env["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    code = f"from {__name__} import load_and_tell; load_and_tell()"
    try:
        with tempfile.TemporaryDirectory() as folder:  # EasyEdit writes logs/ where it is imported
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                timeout=timeout,
                env=env,
                cwd=folder,
            )
    except subprocess.TimeoutExpired:
        return BridgeError(
            f"EasyEdit at {host.folder} did not import within {timeout:.0f} seconds",
            remedy="try again when the machine has less to do",
        )
    if done.returncode == 0:
        return None
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        return BridgeError(told["message"], remedy=told["remedy"])
    except (IndexError, KeyError, TypeError, ValueError):  # it died before it could tell
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return BridgeError(
            f"importing EasyEdit at {host.folder} ended with code {done.returncode}: {last}",
            remedy="python -X faulthandler -c 'import easyeditor' shows where it stops",
        )


def load_and_tell() -> None:
    """What the process of :func:`import_problem` runs: its last line says what is wrong."""
    try:
        load()
    except BridgeError as error:
        print(f"\n{json.dumps({'message': error.message, 'remedy': error.remedy})}")
        raise SystemExit(1) from None


def _remedy(host: Host, error: Exception) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and missing.split(".")[0] not in ("easyeditor", "transformers"):
        return (
            f"install what it imports, beginning with {missing}: "
            'pip install "easyedit-mm-plugins[easyedit]"'
        )
    wanted, found = TRANSFORMERS[host.generation], package_version("transformers")
    if found is None or found not in SpecifierSet(wanted):
        return (
            f"it imports with transformers {wanted}, and {found} is here: "
            f"pip install 'transformers{wanted}'"
        )
    return "python -c 'import easyeditor' shows where it stops"


def _forget() -> None:
    """Take a half-imported EasyEdit out of ``sys.modules``, so that the next import starts anew."""
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
