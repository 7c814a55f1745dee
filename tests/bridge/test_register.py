"""Hooks: all or nothing, loud on a collision, and afterwards the identical objects."""

import subprocess
import sys

import pytest

from easyedit_mm_plugins import bridge
from easyedit_mm_plugins.core.errors import BridgeError
from easyedit_mm_plugins.data.entries import DATASETS
from easyedit_mm_plugins.host import easyedit as host_module
from easyedit_mm_plugins.methods.entries import METHODS

from ..support.bridge_editors import Parrot

pytest_plugins = ["tests.support.bridge_fixtures"]


@pytest.fixture(autouse=True)
def clean(host):
    bridge.unregister()
    yield
    bridge.unregister()


def snapshot(host):
    """Every object that EasyEdit holds in a place we touch, by identity."""
    tables = {
        "edit": dict(host.edit_algs),
        "train": dict(host.train_algs),
        "data": dict(host.datasets),
        "sets": [(name, set(names)) for name, names in host.name_sets()],
        "editor": dict(vars(host.editor_class)),
        "trainer": dict(vars(host.trainer_class)),
        "base": dict(vars(host.trainer_class.__mro__[1])),
    }
    places = (host.edit_algs, host.train_algs, host.datasets, host.editor_class)
    return tables, [id(p) for p in (*places, host.trainer_class)]


def same(before, after):
    for name, table in before[0].items():
        if name == "sets":
            assert table == after[0][name]
            continue
        assert table.keys() == after[0][name].keys(), name
        for key, value in table.items():
            assert after[0][name][key] is value, (name, key)
    assert before[1] == after[1]


def test_register_and_unregister_leave_the_identical_objects(host):
    before = snapshot(host)
    first = bridge.register()
    assert first.registered and "MSCKE" in first.methods and "fgvedit" in first.datasets
    assert first.generation == host.generation
    assert {"MSCKE"} <= set(host.edit_algs) & set(host.train_algs)
    assert "fgvedit" in host.datasets
    assert all("MSCKE" in names for _, names in host.name_sets())
    held = snapshot(host)
    assert bridge.register() == first == bridge.status()
    same(held, snapshot(host))
    bridge.unregister()
    same(before, snapshot(host))
    assert not bridge.status().registered
    bridge.unregister()
    bridge.register()
    bridge.unregister()
    same(before, snapshot(host))


@pytest.mark.parametrize("table", ["edit_algs", "train_algs", "datasets"])
def test_a_taken_name_is_named_and_nothing_is_touched(host, table):
    key = "fgvedit" if table == "datasets" else "MSCKE"
    getattr(host, table)[key] = theirs = object()
    try:
        before = snapshot(host)
        with pytest.raises(BridgeError, match=key):
            bridge.register()
        same(before, snapshot(host))
        assert getattr(host, table)[key] is theirs
    finally:
        del getattr(host, table)[key]


def test_a_change_on_top_of_ours_is_not_thrown_away(host):
    bridge.register()
    cls = host.editor_class
    ours = cls.edit

    def theirs(self, *args, **kwargs):
        return ours(self, *args, **kwargs)

    cls.edit = theirs
    with pytest.raises(BridgeError, match=r"MultimodalEditor\.edit"):
        bridge.unregister()
    assert cls.edit is theirs and bridge.status().registered
    cls.edit = ours


def test_a_third_partys_method_and_dataset_come_along(host):
    before = snapshot(host)

    class Theirs(list):
        """A data set of somebody else's."""

    METHODS.add(name="parrot", editor=Parrot, easyedit="PARROT")
    DATASETS.add(name="theirs", reader=Theirs)
    DATASETS.add(name="loader", reader=lambda path: [path])
    try:
        state = bridge.register()
        assert "PARROT" in state.methods
        assert host.edit_algs["PARROT"].plugin_method.editor is Parrot
        assert host.datasets["theirs"] is Theirs
        assert "loader" not in host.datasets  # isinstance() would fail on it
    finally:
        for registry, name in ((METHODS, "parrot"), (DATASETS, "theirs"), (DATASETS, "loader")):
            registry.unregister(name)
    bridge.unregister()
    same(before, snapshot(host))


def test_a_method_registered_later_is_added(host):
    bridge.register()
    METHODS.add(name="parrot", editor=Parrot, easyedit="PARROT")
    try:
        assert "PARROT" in bridge.register().methods
    finally:
        METHODS.unregister("parrot")


def test_a_broken_method_of_somebody_elses_is_reported_not_fatal(host):
    METHODS.add(name="broken", editor="no_such_package.at_all:Thing", easyedit="BROKEN")
    try:
        state = bridge.register()
        assert any("broken" in problem for problem in state.problems)
        assert "MSCKE" in state.methods
    finally:
        METHODS.unregister("broken")


def test_two_methods_of_one_name_collide(host):
    METHODS.add(name="parrot", editor=Parrot, easyedit="PARROT")
    METHODS.add(name="other", editor=type("Other", (Parrot,), {}), easyedit="PARROT")
    try:
        with pytest.raises(BridgeError, match="PARROT"):
            bridge.register()
        assert not bridge.status().registered
    finally:
        METHODS.unregister("parrot")
        METHODS.unregister("other")


def test_no_easyedit_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("EASYEDIT_ROOT", str(tmp_path))
    with pytest.raises(BridgeError, match="holds no package easyeditor"):
        host_module.locate()
    (tmp_path / "easyeditor").mkdir()
    (tmp_path / "easyeditor" / "__init__.py").write_text("")
    with pytest.raises(BridgeError, match="already imported from"):
        host_module.locate()
    assert bridge.inspect_host().generation is None
    assert "EASYEDIT_ROOT" in (bridge.inspect_host().remedy or "")
    assert bridge.status().problems


CODE = """
import sys, pytest
from easyedit_mm_plugins.core.errors import BridgeError
from easyedit_mm_plugins.host import easyedit as host
{setup}
try:
    host.load()
except BridgeError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no multimodal algorithms"),
        ("ALG_MULTIMODAL_DICT = {}", "unknown generation"),
        ("ALG_MULTIMODAL_DICT = {}\nDS_DICT = {}\nimport surely_absent", "surely_absent"),
    ],
)
def test_an_easyedit_that_cannot_be_used_says_why(tmp_path, content, message):
    for folder in ("", "util", "editors", "trainer"):
        (tmp_path / "easyeditor" / folder).mkdir(exist_ok=True, parents=True)
        (tmp_path / "easyeditor" / folder / "__init__.py").write_text("")
    (tmp_path / "easyeditor" / "util" / "alg_dict.py").write_text(content)
    editors = tmp_path / "easyeditor" / "editors" / "multimodal_editor.py"
    editors.write_text("from ..util import alg_dict")
    setup = f"import os; os.environ['EASYEDIT_ROOT'] = {str(tmp_path)!r}"
    out = subprocess.run(
        [sys.executable, "-c", CODE.format(setup=setup)], capture_output=True, text=True
    )
    assert message in out.stdout and "remedy" in out.stdout, out.stderr


def test_importing_the_package_patches_nothing_and_imports_no_easyedit():
    code = "import sys, easyedit_mm_plugins as p; p.__version__; print('easyeditor' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "False", out.stderr
