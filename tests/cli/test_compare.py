"""``easyedit-mm compare``: Hydra's language, EasyEdit's files, mistakes found before loading."""

from __future__ import annotations

import importlib.util
import json

import pytest
import yaml

pytest.importorskip("hydra")

from easyedit_mm_plugins.backbones import catalog as zoo
from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.cli.compare.compose import compose_all, expand
from easyedit_mm_plugins.cli.compare.run import compare, default_out, grid
from easyedit_mm_plugins.cli.compare.schema import node_name, options_of
from easyedit_mm_plugins.core.errors import ConfigError, UnknownNameError
from easyedit_mm_plugins.core.shipped import HPARAMS
from easyedit_mm_plugins.data.entries import DATASETS
from easyedit_mm_plugins.methods.entries import METHODS
from easyedit_mm_plugins.methods.settings import build

from ..support.grid_tools import here, save_tiny

assert here and zoo  # a fixture; registers the backbones
ALGS = {path.stem for path in HPARAMS.glob("*.yaml")}


def plan(*words):
    return grid(compose_all(words))


def test_the_node_of_a_method_is_its_settings():
    """One truth: the node holds what the class reads, for every method and backbone."""
    methods = [entry for entry in METHODS if entry.settings_class and entry.alg in ALGS]
    assert len(methods) >= 9
    for backbone in (name for name in BACKBONES.names() if BACKBONES.get(name).group):
        words = [f"method=[{','.join(node_name(m.name) for m in methods)}]", f"backbone={backbone}"]
        made = plan(*words)
        for method in methods:
            node = made.spec(method.name, BACKBONES.get(backbone).name).hparams
            read = method.settings_class.from_hparams(f"{method.alg}/{backbone}")
            assert build(method.settings_class, dict(node), "node") == read


def test_every_method_backbone_and_data_set_is_an_option():
    assert {node_name(entry.name) for entry in METHODS} <= set(options_of("method"))
    for name in {"scenes-blip2", "scenes-minigpt4", "scenes-llava", "blip2", "minigpt4", "llava"}:
        assert plan("method=[unedited]", f"backbone={name}").backbones[0].label == name
    assert plan("method=[unedited]", "backbone=llava").backbones[0].device == "cuda"
    assert plan("method=[unedited]", "backbone=scenes-llava").backbones[0].device == "cpu"
    for entry in DATASETS:
        path = [f"data.path={entry.name}.json"] if entry.takes_path else []
        assert (
            plan("method=[unedited]", f"data={entry.name}", *path)
            .data[0]
            .data.startswith(entry.name)
        )


def test_several_methods_backbones_and_data_sets():
    words = [
        "method=[unedited,mscke-mend,MSCKE]",
        "backbone=[scenes-llava,scenes-blip2]",
        "data=[scenes-evqa,scenes]",
        "eval.limit=200",
    ]
    configs = compose_all([*words[:1], *words[1:], "method.mscke.threshold=0.4"])
    assert len(configs) == 4
    made = grid(configs)
    assert made.methods == ["unedited", "mscke-mend", "mscke"]
    assert [b.label for b in made.backbones] == ["scenes-llava", "scenes-blip2"]
    assert [(d.data, d.limit) for d in made.data] == [("scenes-evqa", 200), ("scenes-fgvedit", 200)]
    for backbone in ("scenes-llava", "scenes-blip2"):
        hparams = made.spec("mscke", backbone).hparams
        assert hparams["threshold"] == 0.4 and hparams["model_name"] == backbone
    assert yaml.safe_load(made.resolved.split("---")[3])["data"]["name"] == "scenes-fgvedit"


def test_paths_stand_for_groups(tmp_path):
    assert expand([f"backbone={tmp_path}", "data=/x y/cases.json"]) == [
        "backbone=folder",
        f"backbone.name='{tmp_path}'",
        "data=fgvedit",
        "data.path='/x y/cases.json'",
    ]
    made = plan(
        f"backbone={tmp_path}",
        "data=/x y/cases.json",
        "method=[mscke]",
        "method.mscke.archive=mine",
    )
    assert made.data[0].data == "fgvedit:/x y/cases.json"
    assert made.backbones[0].name == str(tmp_path)
    assert made.spec("mscke", tmp_path.name).hparams["model_name"] == tmp_path.name


def test_a_method_without_a_file_for_the_backbone_is_left_to_its_row(tmp_path):
    bare = plan(f"backbone={tmp_path}", "method=[dualedit,mend]")
    assert [bare.spec(m, tmp_path.name).hparams for m in bare.methods] == [None, None]
    given = plan(f"backbone={tmp_path}", "method=[mend]", "method.mend.archive=my/editor")
    hparams = given.spec("mend", tmp_path.name).hparams
    assert hparams["archive"] == "my/editor" and hparams["model_name"] == tmp_path.name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=[mske]"], "no method 'mske'; did you mean mscke"),
        (["backbone=scenes-lava"], "no backbone 'scenes-lava'; did you mean scenes-llava"),
        (["data=scenes-evq"], "no data 'scenes-evq'; did you mean scenes-evqa"),
        (["eval=generate"], "no eval 'generate'; did you mean generated"),
        (["experiment=mscke-tabel1"], "no experiment 'mscke-tabel1'; did you mean mscke-table1"),
        (["eval.limt=3"], "unknown key eval.limt; did you mean limit"),
        (["evl.limit=3"], "unknown key evl; did you mean eval"),
        (["method.mscke.treshold=1"], "unknown key method.mscke.treshold; did you mean threshold"),
        (["method.mscke.scope.dimm=3"], "unknown key method.mscke.scope.dimm; did you mean dim"),
        (["method.unedited.archiv=x"], "unknown key method.unedited.archiv; did you mean archive"),
        (["eval.limit=many"], "eval.limit: value 'many' of type 'str' could not be converted"),
        (
            ["method.mscke.threshold=high"],
            "method.mscke: threshold is 'high', but must",
        ),
        (["+eval.foo=1"], "eval: unknown key 'foo'"),
        (["method=[unedited]", "method.mscke.threshold=1"], "mscke is not among the methods"),
        (["data=fgvedit"], "data.path is not set"),
        (["method=mscke,serac"], r"(?s)several values.*needs -m"),
        (["method=[mscke"], "no viable alternative"),
        (["eval.protocol=generate"], "unknown protocol 'generate'; did you mean generated"),
        (["method=[]"], "there is no method"),
        (["+method.mscke.foo=1"], "method.mscke: unknown key 'foo'"),
        (["eval.limit=1,2"], r"(?s)several values.*needs -m"),
        (
            ["method=[dualedit]", "method.dualedit.adapters=[{layer:9,tokens:txt}]"],
            "tokens is 'txt'",
        ),
    ],
)
def test_mistakes_are_found_before_anything_loads(words, message, monkeypatch):
    monkeypatch.setattr(zoo, "from_folder", lambda *a, **k: pytest.fail("loaded a model"))
    with pytest.raises(ConfigError, match=message):
        compare(words)


def test_a_grid_is_measured_and_its_configuration_kept(here, capsys):
    words = [
        "method=[unedited,oracle]",
        "backbone=[one,two]",
        "data=cases.json",
        "eval.limit=4",
        "eval.processes=0",
    ]
    compare(words)
    folder = default_out(compose_all(words), words)
    assert folder.name == "compare-one-two-cases-eval.limit=4"
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    assert [(r["method"], r["backbone"], r["n"]) for r in rows] == [
        ("unedited", "one", 4),
        ("oracle", "one", 4),
        ("unedited", "two", 4),
        ("oracle", "two", 4),
    ]
    kept = list(yaml.safe_load_all((folder / "resolved.yaml").read_text()))
    assert [k["backbone"]["name"] for k in kept] == ["one", "two"]
    assert kept[0]["eval"]["limit"] == 4 and set(kept[0]["method"]) == {"unedited", "oracle"}
    assert f"written to {folder}/" in capsys.readouterr().out


def test_a_sweep_makes_a_run_of_each_job(here, tmp_path, capsys):
    compare(["-m", "method=[unedited]", "backbone=one,two", "data=cases.json", "eval.limit=2,3"])
    found = sorted(path.parent.name for path in tmp_path.glob("runs/*/summary.json"))
    assert found == [f"compare-{b}-cases-eval.limit={n}" for b in ("one", "two") for n in (2, 3)]
    with pytest.raises(UnknownNameError, match="did you mean"):
        compare(["-m", "method=[unedited]", "backbone=one,scenes-lava"])
    with pytest.raises(ConfigError, match="write backbone=a,b"):
        compare(["-m", "backbone=[one,two]"])
    capsys.readouterr()
    compare(["--cfg", "job", "-p", "eval", "eval.limit=7"])
    assert yaml.safe_load(capsys.readouterr().out)["limit"] == 7


@pytest.mark.skipif(
    not importlib.util.find_spec("hydra_plugins")
    or not importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"),
    reason="needs hydra-joblib-launcher",
)
def test_joblib_runs_the_jobs_of_a_sweep_side_by_side(here, tmp_path):
    folder = save_tiny(tmp_path / "tiny")
    compare(
        [
            "-m",
            "method=[unedited]",
            f"backbone={folder}",
            "data=cases.json",
            "eval.max_new_tokens=2,3",
            "hydra/launcher=joblib",
            "hydra.launcher.n_jobs=2",
        ]
    )
    found = sorted(path.parent.name for path in tmp_path.glob("runs/*/summary.json"))
    assert found == [f"compare-tiny-cases-eval.max_new_tokens={n}" for n in (2, 3)]


def test_a_name_of_another_package_is_an_option(here):
    made = plan("method=[oracle]", "backbone=one")
    assert made.methods == ["oracle"] and made.backbones[0].name == "one"
    assert made.spec("oracle", "one").hparams is None


def test_the_experiments_of_commands_are_the_same(here):
    from easyedit_mm_plugins.papers import ExperimentSettings
    from easyedit_mm_plugins.papers.mscke_table1 import METHODS as wanted
    from easyedit_mm_plugins.papers.mscke_table1 import grid as table1

    missing = [name for name in wanted if name not in METHODS]
    if missing:
        pytest.skip(f"no {missing} yet")
    made = plan("experiment=mscke-table1")
    other = table1(ExperimentSettings("mscke-table1"))
    assert made.methods == other.methods and made.protocol == other.protocol
    assert [b.name for b in made.backbones] == [b.name for b in other.backbones]
    assert made.data == other.data


def test_names_are_free_again():
    assert "one" not in BACKBONES and "oracle" not in METHODS
