"""Documentation that is written by a command says what the command says today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_of_methods_base_models_and_data_sets_are_the_entries():
    path = ROOT / "scripts/tables_of_entries.py"
    spec = importlib.util.spec_from_file_location("tables_of_entries", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.FILE.read_text(encoding="utf-8") == script.text()
    assert "`mscke-mend`" in script.text() and "`fgvedit:PATH`" in script.text()
