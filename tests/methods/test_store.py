"""The edits in force of every method, in memory and on disk."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from easyedit_mm_plugins.core.errors import CheckpointError, DataError
from easyedit_mm_plugins.data import Question, open_image
from easyedit_mm_plugins.methods import edit_file
from easyedit_mm_plugins.methods.base import Unedited
from easyedit_mm_plugins.methods.edit_file import FILE, read_edits, write_edits
from easyedit_mm_plugins.methods.store import ById, EditStore, Kept

from ..conftest import build_tiny, picture
from ..support.dualedit_tiny import edit, mixed_questions, tiny_dualedit
from ..support.mscke_tiny import tiny_mscke

DIM = 4


def feature(n: int) -> torch.Tensor:
    return torch.randn(DIM, generator=torch.Generator().manual_seed(n))


def features(numbers) -> torch.Tensor:
    return torch.stack([feature(n) for n in numbers]) if numbers else torch.empty(0, DIM)


def questions(numbers) -> list[Question]:
    return [Question(f"q{n}", None, "a") for n in numbers]


# In memory ------------------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 5)), max_size=25)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_any_order_of_adding_and_removing_keeps_edits_and_what_is_kept_of_them(steps):
    """Also what a call holds that began at any earlier moment."""
    store, model, n, earlier = EditStore(DIM), {}, 0, []
    for action, k in steps:
        if action == "add":
            new = list(range(n, n + k))
            n += k
            ids = store.add(questions(new), Kept(features(new), [str(i) for i in new]))
            assert not set(ids) & set(model)
            model |= dict(zip(ids, new, strict=True))
        else:
            gone = list(model)[k : k + 2]
            assert [q.text for q in store.remove(gone)] == [f"q{model.pop(i)}" for i in gone]
        earlier.append((store.now, dict(model)))
    for now, expected in earlier:
        assert now.ids == list(now.edits) == list(now.payloads) == list(now.places)
        assert now.ids == list(expected) == now.table.ids and len(now.edits) == len(expected)
        assert [q.text for q in now.edits.values()] == [f"q{i}" for i in expected.values()]
        assert list(now.payloads.values()) == [str(i) for i in expected.values()]
        assert torch.equal(now.keys, features(list(expected.values())))


def test_all_or_none_are_added_and_removed():
    store = EditStore(DIM)
    store.add(questions([0]), Kept(features([0])))
    for kept in (Kept(torch.randn(1, DIM)), Kept(torch.randn(2, 3)), Kept(payloads=["one"])):
        with pytest.raises((RuntimeError, ValueError)):
            store.add(questions([1, 2]), kept)
    with pytest.raises(KeyError, match=r"no edit 'e7' in force; .*e1"):
        store.remove(["e1", "e7"])
    assert store.now.ids == ["e1"] and torch.equal(store.now.keys, features([0]))
    assert store.add(questions([1]), Kept(features([1]))) == ["e2"]
    assert len(store.remove(["e2", "e2"])) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 300_000), unique=True, max_size=40),
    st.sets(st.integers(0, 39)),
    st.integers(1, 200),
)
def test_values_by_id_are_a_dictionary_of_which_every_version_stays(numbers, gone, further):
    numbers.sort()
    first = {f"e{n}": n for n in numbers}
    whole = ById().with_added(first.items())
    left = {i: n for k, (i, n) in enumerate(first.items()) if k not in gone}
    some = whole.without([i for i in first if i not in left])
    more = {f"e{n}": n for n in range(300_001, 300_001 + further)}
    again = some.with_added(more.items())
    for by_id, expected in ((whole, first), (some, left), (again, left | more)):
        assert list(by_id.items()) == list(expected.items()) and len(by_id) == len(expected)
    assert not again.without(list(again))._root


def test_what_a_question_may_see_is_in_order_whatever_it_names():
    store = EditStore(DIM)
    store.add(questions(range(12)), Kept(features(range(12))))
    store.remove(["e3"])
    now = store.now
    names = ["e12", "e3", "e2", "e99", "", "x", "e2", "e-1", "2"]
    assert now.seen_by(names) == ("e2", "e12") == now.seen_by(set(names))
    assert now.seen_by(None) == tuple(now.ids) == now.seen_by([*names, *now.ids])
    assert not any(name in now.edits for name in ["e3", "", None, 2, "e"])


def test_a_change_that_is_broken_off_was_none(monkeypatch):
    store = EditStore(DIM)
    store.add(questions([0, 1]), Kept(features([0, 1])))

    def stop(*_, **__):
        raise KeyboardInterrupt

    for change in (
        lambda: store.add(questions([2]), Kept(features([2]))),
        lambda: store.remove(["e1"]),
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("easyedit_mm_plugins.methods.store.InForce", stop)
            change()
    assert store.add(questions([3]), Kept(features([3]))) == ["e3"]
    store.remove(["e2"])
    now = store.now
    assert now.ids == ["e1", "e3"] == now.table.ids and torch.equal(now.keys, features([0, 3]))


def test_entering_and_leaving_one_edit_copies_no_keys():
    store = EditStore(DIM)
    store.add(questions(range(1000)), Kept(torch.randn(1000, DIM)))
    store.remove(store.add(questions([0]), Kept(features([0]))))  # grows, with room to spare
    place = store.now.keys.data_ptr()
    for n in range(50):
        ids = store.add(questions([n]), Kept(features([n])))
        assert store.now.keys.data_ptr() == place
        if n % 2:
            store.remove(ids)
    assert store.now.keys.data_ptr() == place


def test_edits_of_a_block_are_gone_after_it_also_when_some_went_before(tiny_backbone):
    editor = Unedited(tiny_backbone)
    with editor.edited(questions([0])) as kept:
        with pytest.raises(RuntimeError, match="stop"), editor.edited(questions([1, 2, 3])) as ids:
            editor.remove(ids[1:2])
            raise RuntimeError("stop")
        assert list(editor.edits) == kept
        with editor.edited(questions([4, 5])):
            editor.clear()
    assert editor.edits == {}


@pytest.mark.parametrize("make", [Unedited, tiny_mscke, tiny_dualedit])
def test_a_call_sees_the_edits_in_force_when_it_began(make):
    backbone = build_tiny("llava")
    if make is Unedited:
        editor = Unedited(backbone)
    else:
        editor = make(backbone) if make is tiny_dualedit else make()
        editor.threshold = 0.0
    asked = [edit(0), *mixed_questions()[:1]]
    editor.add([edit(0)])
    expected = [editor.generate(asked)]
    with editor.edited([edit(0, "blue"), edit(0, "blue")]):  # of equal questions the newest is hit
        expected.append(editor.generate(asked))
    stop = threading.Event()

    def change():
        while not stop.is_set():
            with editor.edited([edit(0, "blue"), edit(0, "blue")]):
                pass

    def plain(answers):
        return [(a.text, a.route and a.route == "e1", round(a.score or 0, 4)) for a in answers]

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        try:
            for _ in range(15):
                assert plain(editor.generate(asked)) in map(plain, expected)
                assert len(editor.force(asked)) == 2
        finally:
            stop.set()
        changing.result()
    assert list(editor.edits) == ["e1"]


# On disk --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Three edits, the second taken back, one with a file and one with a picture in memory."""
    picture(1).save(tmp_path / "1.png")
    store = EditStore(DIM)
    edits = [Question("a", tmp_path / "1.png", "1"), Question("b", None, "2")]
    store.add([*edits, Question("c", picture(3), "3")], Kept(features([0, 1, 2])))
    store.remove(["e2"])
    store.save(tmp_path / "saved", "me", {"more": torch.arange(3)})
    return tmp_path / "saved"


def test_saved_edits_come_back_with_their_pictures_and_ids(folder):
    for path in folder.parent.glob("*.png"):
        path.unlink()  # the file needs nothing beside it
    saved = read_edits(folder.rename(folder.with_name("moved")), "me")
    assert [(i, q.text, q.answer) for i, q in saved.edits.items()] == [
        ("e1", "a", "1"),
        ("e3", "c", "3"),
    ]
    for edit_id, number in (("e1", 1), ("e3", 3)):
        assert open_image(saved.edits[edit_id].image).tobytes() == picture(number).tobytes()
    assert torch.equal(saved.keys(DIM), features([0, 2]))
    assert torch.equal(saved.tensors["more"], torch.arange(3))
    store = EditStore(DIM)
    store.add(questions([7]), Kept(features([7])))
    assert store.replace(saved, Kept(saved.keys(DIM))) == questions([7])
    assert store.add(questions([8]), Kept(features([8]))) == ["e4"]
    assert torch.equal(store.now.keys, features([0, 2, 8]))


def test_every_method_saves_and_loads_its_edits(tmp_path, tiny_backbone):
    editor, again = Unedited(tiny_backbone), Unedited(tiny_backbone)
    editor.save_memory(tmp_path)
    again.add(questions([0]))
    again.load_memory(tmp_path)
    assert again.edits == {}
    first = edit(0)
    editor.add([first, first, Question("b", None, "2")])
    editor.save_memory(tmp_path)
    again.load_memory(tmp_path)
    assert list(again.edits) == ["e1", "e2", "e3"] and again.edits["e3"] == editor.edits["e3"]
    assert again.edits["e1"].image is again.edits["e2"].image  # one picture, kept once
    with pytest.raises(CheckpointError, match="was made by unedited, this is scope classifier"):
        tiny_mscke().load_memory(tmp_path)


def test_a_write_that_fails_leaves_the_old_edits(folder, monkeypatch):
    before = (folder / FILE).read_bytes()
    with pytest.raises(DataError, match=r"gone\.png"):
        write_edits(folder, {"e1": Question("q", folder / "gone.png", "a")}, 1, "me", {})

    def killed(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("easyedit_mm_plugins.methods.checkpoint.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        write_edits(folder, {}, 1, "me", {})
    assert (folder / FILE).read_bytes() == before
    assert [path.name for path in folder.iterdir()] == [FILE]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_never_loaded(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    edits = {"e1": Question("a", picture(1), "1"), "e2": Question("b", None, "2")}
    write_edits(folder, edits, 2, "me", {"keys": features([0, 1])})
    whole = (folder / FILE).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "drop", "swap"]))
    broken = bytearray(whole)
    if how == "flip":
        broken[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del broken[at:]
    elif how == "drop":
        del broken[at]
    else:
        broken[at], broken[-1 - at] = broken[-1 - at], broken[at]
    (folder / FILE).write_bytes(broken)
    if bytes(broken) == whole:
        return
    try:
        found = read_edits(folder, "me")
    except CheckpointError as error:
        assert FILE in str(error) and error.remedy
        return
    # Blanks of the header, outside of all that is checked, may change.
    assert list(found.edits) == ["e1", "e2"] and torch.equal(found.keys(DIM), features([0, 1]))


WRONG = [
    ({"count": 0}, r"edit id 'e1' does not follow e0 within 0"),
    ({"count": True}, "does not follow"),
    ({"count": "9"}, "not supported"),
    ({"count": None}, "not supported"),
    ({"format": 2}, "format 2, this version reads 1"),
    ({"edits": [["e1", "a", "1", None], ["e1", "b", "2", None]]}, "'e1' does not follow e1"),
    ({"edits": [["e2", "a", "1", None], ["e1", "b", "2", None]]}, "'e1' does not follow e2"),
    ({"edits": [["e1", "a", "1", None], ["e02", "b", "2", None]]}, "'e02' does not follow"),
    ({"edits": [["../x", "a", "1", None]]}, "does not follow"),
    ({"edits": [[1, "a", "1", None]]}, "no text"),
    ({"edits": [["e1", ["a"], "1", None]]}, "no text"),
    ({"edits": [["e1", "a", " ", None]]}, "no text"),
    ({"edits": [["e1", "a", "1", "../../etc/hostname"]]}, "lacks"),
    ({"edits": [["e1", "a", "1", 4]]}, "lacks"),
    ({"edits": [["e1", "a"]]}, "not enough values"),
    ({"edits": 3}, "not iterable"),
]


def write_by_hand(folder, book, parts, **notes):
    """A file with a right checksum, whatever it holds."""
    text = json.dumps(book)
    notes = {"book": text, "sha256": edit_file._checksum(text, parts), **notes}
    folder.mkdir(exist_ok=True)
    save_file(parts, folder / FILE, metadata=notes)


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_no_editor_writes_is_refused(tmp_path, changes, message):
    book = {"format": 1, "made_by": "me", "count": 2, "edits": [["e1", "a", "1", None]]}
    parts = {"kept.keys": features([0])}
    write_by_hand(tmp_path, book, parts)
    assert list(read_edits(tmp_path, "me").edits) == ["e1"]
    write_by_hand(tmp_path, book | changes, parts)
    with pytest.raises(CheckpointError, match=message):
        read_edits(tmp_path, "me")


def test_tensors_and_pictures_are_looked_at_too(tmp_path):
    book = {"format": 1, "made_by": "me", "count": 1, "edits": [["e1", "a", "1", 0]]}
    image = {"picture.0": torch.tensor([1, 2, 3], dtype=torch.uint8)}
    write_by_hand(tmp_path, book, image)
    with pytest.raises(CheckpointError, match="cannot identify image"):
        read_edits(tmp_path, "me")
    book["edits"] = [["e1", "a", "1", None]]
    write_by_hand(tmp_path, book, {"kept.keys": torch.full((1, DIM), float("nan"))})
    with pytest.raises(CheckpointError, match="keys holds values that are not finite"):
        read_edits(tmp_path, "me")
    write_by_hand(tmp_path, book, {}, sha256="0")
    with pytest.raises(CheckpointError, match="not what was written"):
        read_edits(tmp_path, "me")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_edits(tmp_path / "none", "me")


def test_keys_of_another_size_and_edits_of_another_maker_are_refused(folder):
    with pytest.raises(CheckpointError, match=r"needs keys \[2, 5\]"):
        read_edits(folder, "me").keys(5)
    with pytest.raises(CheckpointError, match="was made by me, this is you"):
        read_edits(folder, "you")
