"""The house: who may import whom, no circles, and nothing hidden behind strings.

The rooms are the package's folders. A room may import itself and the rooms named beside it here;
the package's root puts the house together and may name any of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "easyedit_mm_plugins"
NAME = PACKAGE.name

# Room: the rooms below it that it may import, lowest first.
ROOMS = {
    "core": "",
    "data": "core",
    "backbones": "core data",
    "scenes": "core data",
    "host": "core data backbones",
    "methods": "core data backbones host",
    "recipes": "core data backbones scenes host methods",
    "evaluation": "core data backbones methods",
    "bridge": "core data backbones host methods evaluation",
    "papers": "core data backbones scenes methods recipes evaluation",
    "report": "core data backbones methods evaluation papers",
    "cli": "core data backbones scenes host methods recipes evaluation bridge papers report",
}
ROOT = "the package's root"  # which puts the house together: no room may import it
_REFERENCE = re.compile(rf"{NAME}(\.\w+)+(:\w+)?")


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name below the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> Iterator[tuple[str, int, bool]]:
    """What ``module`` imports of this package: the module, the line, and whether at import time.

    Strings such as ``"easyedit_mm_plugins.methods.mscke:MSCKE"`` count like an import inside a
    function; so do imports for type checkers alone.
    """
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = _late(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif (node.module or "").split(".")[0] == NAME:
                base = []
            else:
                continue
            tail = (node.module or "").split(".") if node.module else []
            where = [*base, *(tail if node.level else tail[1:])]
            for alias in node.names:
                inner = ".".join([*where, alias.name])
                target = inner if inner in MODULES else ".".join(where)
                yield target or ROOT, node.lineno, node not in late
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == NAME:
                    target = alias.name.partition(".")[2] or ROOT
                    yield target, node.lineno, node not in late
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = node.value.partition(".")[2].partition(":")[0]
            if _REFERENCE.fullmatch(node.value) and named in MODULES:
                yield named, node.lineno, False


def _late(tree: ast.Module) -> set[ast.AST]:
    """Imports that do not run when the module is imported."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if typing or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found |= {n for n in ast.walk(node) if isinstance(n, (ast.Import, ast.ImportFrom))}
    return found


def room(module: str) -> str:
    """The room that a module lies in; the root itself has none."""
    return module.partition(".")[0]


def line(module: str, number: int, target: str) -> str:
    """An offending line as a person wants to see it."""
    path = MODULES[module]
    text = path.read_text(encoding="utf-8").splitlines()[number - 1].strip()
    return (
        f"{path.relative_to(PACKAGE.parent)}:{number}: {text}   ({room(module)} -> {room(target)})"
    )


def test_every_folder_is_a_room_and_the_table_has_no_circle():
    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    assert folders == set(ROOMS)
    assert {p.name for p in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    seen: set[str] = set()
    for name, below in ROOMS.items():
        assert set(below.split()) <= seen, f"{name} names a room that does not lie below it"
        seen.add(name)


def test_imports_run_downwards():
    wrong = [
        line(module, number, target)
        for module in MODULES
        if room(module) in ROOMS
        for target, number, _ in imports(module)
        if room(target) != room(module)
        if room(target) not in ROOMS[room(module)].split()
    ]
    assert not wrong, "\n".join(wrong)


def test_a_string_that_points_upwards_is_seen(monkeypatch, tmp_path):
    source = tmp_path / "x.py"
    source.write_text(
        f'A = "{NAME}.bridge.editor:executor"\n\n\ndef f():\n    from ..cli import app\n'
    )
    monkeypatch.setitem(MODULES, "methods.x", source)
    assert [(target, at) for target, _, at in imports("methods.x")] == [
        ("bridge.editor", False),
        ("cli.app", False),
    ]


@pytest.mark.parametrize("level", ["files", "rooms"])
def test_there_are_no_circles(level):
    """Neither of files nor of rooms, imports inside functions included."""
    arrows: dict[str, set[str]] = {}
    for module in MODULES:
        if not module or module == "__main__":
            continue
        for target, _, _ in imports(module):
            if not target or (target.startswith(f"{module}.") and level == "files"):
                continue  # a package offers what its modules hold
            ends = (module, target) if level == "files" else (room(module), room(target))
            if ends[0] != ends[1] and not (level == "files" and module.startswith(f"{target}.")):
                arrows.setdefault(ends[0], set()).add(ends[1])
    circle = _circle(arrows)
    assert not circle, " -> ".join(circle)


def _circle(arrows: dict[str, set[str]]) -> list[str]:
    """One circle, as a path that ends where it begins; empty if there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(arrows.get(node, ())):
            found = visit(following, [*path, node])
            if found:
                return found
        done.add(node)
        return []

    return next((c for start in sorted(arrows) if (c := visit(start, []))), [])


def test_a_circle_is_found():
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}}) == []
