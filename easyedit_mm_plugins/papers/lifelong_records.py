"""The edits of the lifelong benchmark and what is asked of them: its tasks.

The same records are asked about at every number of edits. Where fewer edits are in force than
that, they are asked block by block; where more are, the asked ones are spread evenly over the
sequence and the others are those of further records: of the same file, then of scenes drawn with
another seed. What is drawn lies in the run folder.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ..core.errors import ConfigError
from ..core.files import read_json
from ..data import EditRecord, FGVEditDataset, Question, Records
from ..data.record_files import read_list
from ..scenes import records as first_edition
from ..scenes.files import write_set
from ..scenes.graph import Entity, Scene, counterfactual_values, in_order
from ..scenes.questions import SceneQuestion, answer, names, paraphrases, phrase
from ..scenes.second import records as second_edition
from .lifelong_editors import Block

SIZES = (1, 10, 100, 1_000, 10_000)
PER_PICTURE = (2, 4, 8)
SEQUENCE, PICTURE, AGAIN = "lifelong", "one picture", "edited again"  # the tables
FIRST, LAST = "-first", "-last"  # parts of a task: the first and the last tenth of its edits
# Worlds whose records can be drawn further, by the version that a set's manifest names.
WORLDS: dict[int, ModuleType] = {w.WORLD_VERSION: w for w in (first_edition, second_edition)}
_EDITED = ("color", "shape", "size")
_KEPT = ("case_id", "src", "pred", "alt", "rephrase", "loc", "loc_ans")
_SCOPES = ("fg_gen_q", "fg_gen_a", "fg_loc_q", "fg_loc_a")


@dataclass(frozen=True)
class Task:
    """Edits in force together, and what is asked of them: a column of a table.

    Attributes:
        name: unique; results call the data set DATA/NAME, and its parts DATA/NAME-first.
        table: :data:`SEQUENCE`, :data:`PICTURE` or :data:`AGAIN`.
        edits: in force whenever a question is asked.
    """

    name: str
    table: str
    edits: int
    blocks: list[Block]

    @property
    def parts(self) -> list[str]:
        """The names of the parts, the task itself ("") first."""
        return list(dict.fromkeys(part for block in self.blocks for part in block.asked))

    @property
    def count(self) -> int:
        """How many cases are asked, in all parts."""
        return sum(len(some) for block in self.blocks for some in block.asked.values())


def make_tasks(
    records: Records,
    sizes: Sequence[int],
    cases: int,
    folder: Path,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[list[Task], list[str]]:
    """All tasks, and notes on what cannot be asked.

    Args:
        records: the test records, all of them.
        cases: how many are asked about, from the first on.
        folder: for what is drawn; a finished set there is kept.
        tell: called before something takes minutes.

    Raises:
        ConfigError: no number of edits is left to measure. DataError: a drawn set is damaged.
    """
    asked, rest = records.records[:cases], records.records[cases:]
    origin = _Origin.of(records)
    items = read_list(records.path) if records.path.is_file() else []
    raw = {str(item.get("case_id", i)): item for i, item in enumerate(items)}
    notes = []
    if origin is not None:
        tell("drawing further pictures (once)")
        others = origin.others([raw[r.case_id] for r in asked], folder / "others")
        lack = max(sizes) - len(asked) - len(rest)
        if lack > 0:
            tell(f"drawing {lack:,} further scenes (once)")
            rest = [*rest, *origin.further(lack, folder / "further")]
        pictures = {r.case_id: r.edit.image for r in others}
    else:
        most = len(asked) + len(rest)
        for size in (s for s in sizes if s > most):
            notes.append(f"{size:,} edits: {records.name} has {most:,} records, and no more of it")
        sizes = [s for s in sizes if s <= most]
        if not sizes:
            raise ConfigError(f"{notes[0]}", remedy="ask for fewer edits (--edits)")
        others, pictures = [], {}
        unused = rest[max(0, max(sizes) - len(asked)) :]
        for record in asked:
            same = (r.edit.image for r in unused if r.edit.text == record.edit.text)
            if (found := next(same, None)) is not None:
                pictures[_other(record.case_id)] = found
    whole = [_record(r, pictures.get(_other(r.case_id))) for r in asked]
    lacking = sum(not r.image_loc for r in whole)
    if lacking:
        notes.append(f"Other picture: no other picture fits the question of {lacking} records.")
    tasks = [_sequence(whole, rest, size) for size in sizes]
    tasks += [task for k in PER_PICTURE if (task := _on_one_picture(others, k)) is not None]
    if origin is None:
        notes.append("Several edits on one picture: scenes alone say what else can be edited.")
    old = {name: item.get("pred") for name, item in raw.items()}
    return [*tasks, *_edited_again(whole, records.records, old, max(1, cases // 2))], notes


def _other(case_id: str) -> str:
    return f"other-{case_id}"


def _record(record: EditRecord, other: Any) -> EditRecord:
    """What is asked of one edit: redrawn and reworded at once, and about another picture."""
    again = [Question(q.text, p.image, q.answer)
             for q, p in zip(record.rephrase, record.image_rephrase, strict=False)]  # fmt: skip
    return EditRecord(
        record.case_id,
        record.edit,
        rephrase=record.rephrase[:1],
        in_scope=record.in_scope[:1],
        out_scope=record.out_scope[:1],
        text_loc=record.text_loc[:1],
        image_rephrase=tuple(again[:1]),
        image_loc=() if other is None else (Question(record.edit.text, other),),
    )


# A sequence of edits --------------------------------------------------------------------------


def _sequence(asked: Sequence[EditRecord], rest: Sequence[EditRecord], size: int) -> Task:
    blocks = []
    for begin in range(0, len(asked), size):
        part = asked[begin : begin + size]
        blocks.append((spread(part, rest[: size - len(part)]), part))
    tenth, most = size // 10, max(1, len(asked) // 2)
    made = []
    for order, part in blocks:
        parts = {"": list(part)}
        if tenth:
            share = max(1, most // len(blocks))
            for name, ends in ((FIRST, order[:tenth]), (LAST, order[-tenth:])):
                parts[name] = [
                    EditRecord(r.case_id, r.edit)
                    for r in ends[:: max(1, len(ends) // share)][:share]
                ]
        made.append(Block([r.edit for r in order], parts))
    return Task(str(size), SEQUENCE, size, made)


def spread(asked: Sequence[EditRecord], others: Sequence[EditRecord]) -> list[EditRecord]:
    """``asked`` at even distances among ``others``, both in their order."""
    size = len(asked) + len(others)
    places = {int((i + 0.5) * size / len(asked)) for i in range(len(asked))}
    mine, theirs = iter(asked), iter(others)
    return [next(mine if place in places else theirs) for place in range(size)]


# Facts edited again ---------------------------------------------------------------------------


def _edited_again(
    asked: Sequence[EditRecord],
    every: Sequence[EditRecord],
    old: Mapping[str, str | None],
    most: int,
) -> Iterator[Task]:
    """All facts edited, then each edited again: in the same words, or in the rephrase's."""
    answers: dict[str, dict[str, None]] = {}
    for record in every:
        answers.setdefault(record.edit.text, {})[record.edit.answer] = None
    pairs = []
    for i, record in enumerate(asked):
        known = {record.edit.answer, old.get(record.case_id)}
        free = [a for a in answers[record.edit.text] if a not in known]
        if free and record.rephrase and len(pairs) < most:
            pairs.append((record, free[i % len(free)]))
    if not pairs:
        return
    before = [
        replace(record, out_scope=(), text_loc=(), image_rephrase=(), image_loc=())
        for record, _ in pairs
    ]
    for name, reworded in (("again", False), ("again-reworded", True)):
        after = [_newer(r, value, reworded) for r, (_, value) in zip(before, pairs, strict=True)]
        first, second = ([r.edit for r in some] for some in (before, after))
        yield Task(name, AGAIN, 2 * len(pairs), [Block([*first, *second], {"": after})])
        undone = Block(first, {"": before}, undone=second)
        yield Task(f"{name}-undone", AGAIN, len(pairs), [undone])


def _newer(record: EditRecord, value: str, reworded: bool) -> EditRecord:
    """The record of an edit that is made anew with another answer.

    Of the in-scope questions those stay whose answer is the edited value itself.
    """
    same = [q for q in record.in_scope if q.answer == record.edit.answer]
    edit, rephrase = record.edit, record.rephrase[0]
    if reworded:
        edit, rephrase = rephrase, edit
    return replace(
        record,
        edit=edit.with_answer(value),
        rephrase=(rephrase.with_answer(value),),
        in_scope=tuple(q.with_answer(value) for q in same),
    )


# Several edits on one picture -----------------------------------------------------------------


def _on_one_picture(drawn: Sequence[EditRecord], count: int) -> Task | None:
    """Blocks of ``count`` edits of one picture each, from records that ``several`` wrote."""
    blocks: dict[Any, list[EditRecord]] = {}
    for record in drawn:
        if record.case_id.startswith(f"picture-{count}-"):
            blocks.setdefault(record.edit.image, []).append(_record(record, None))
    if not blocks:
        return None
    made = [
        Block([r.edit for r in part], {"": [replace(r, text_loc=()) for r in part]})
        for part in blocks.values()
    ]
    return Task(f"picture-{count}", PICTURE, count, made)


def several(scene: Scene, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """``count`` edits of one scene with their questions, as fields of records.

    A thing is named by a value that is its own in the picture and in the edited world alike, so
    the name means the same thing whichever of the edits one has in mind. Right answers are those of
    the edited world, in which all the edits hold. Out of scope are the attributes that no edit
    changes. Empty where the scene has too few.
    """
    every = [(e, a) for e in scene.entities for a in _EDITED]
    rng.shuffle(every)
    values: dict[tuple[Entity, str], str] = {}
    for thing, attribute in every[:count]:
        taken = {v for (_, a), v in values.items() if a == attribute and a != "size"}
        found = [v for v in counterfactual_values(scene, thing, attribute) if v not in taken]
        if not found:
            return []
        values[thing, attribute] = rng.choice(found)
    changed = {
        e: replace(e, **{a: v for (thing, a), v in values.items() if thing == e})
        for e in scene.entities
    }
    after = type(scene)(in_order(changed.values()))
    called = {
        e: [n for n in names(scene, e) if after.find(n[0], n[1]) == changed[e]]
        for e in scene.entities
    }
    kept = every[count:]
    if not kept:
        return []

    def ask(thing: Entity, attribute: str, but: tuple[str, str, str] | None = None) -> Any:
        free = [n for n in called[thing] if n[0] != attribute]  # its place at least
        name = rng.choice([n for n in free if n != but] or free)
        return name, SceneQuestion("open", attribute, *name[:2])

    made = []
    for i, ((thing, attribute), value) in enumerate(values.items()):
        name, edit = ask(thing, attribute)
        other, inside = ask(thing, attribute, name)
        if other == name or rng.random() < 0.4:
            offered = rng.choice((value, thing.value(attribute)))
            inside = replace(inside, kind="verify", value=offered)
        _, outside = ask(*kept[i % len(kept)])
        made.append(
            {
                "src": phrase(edit, rng),
                "pred": thing.value(attribute),
                "alt": value,
                "rephrase": rng.choice(paraphrases(edit, "test")),
                "fg_gen_q": phrase(inside, rng, "all"),
                "fg_gen_a": answer(after, inside),
                "fg_loc_q": phrase(outside, rng, "all"),
                "fg_loc_a": answer(scene, outside),
            }
        )
    return made


# Further scenes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Origin:
    """The set of scenes that the test records are of."""

    world: ModuleType
    count: int
    seed: int

    @classmethod
    def of(cls, records: Records) -> _Origin | None:
        """By the manifest beside the file; ``None`` for other data."""
        path = records.path.parent / "manifest.json"
        known = read_json(path).get("settings", {}) if path.is_file() else {}
        world = WORLDS.get(known.get("world", -1))
        return None if world is None else cls(world, known["n_test"], known["seed"])

    def further(self, count: int, folder: Path) -> list[EditRecord]:
        """Records of ``count`` scenes of three and four things, none of them a test picture."""
        draws = count + count // 2 + 20

        def make(raw: list[dict], pictures: Mapping[str, tuple]) -> Iterator[tuple[dict, tuple]]:
            known = self._known()
            free = (r for r in raw if _things(pictures, r) > 2 and _key(pictures, r) not in known)
            for record, _ in zip(free, range(count), strict=False):
                kept = {key: record[key] for key in (*_KEPT, *_SCOPES, "image")}
                yield {**kept, "case_id": f"further-{record['case_id']}"}, ("image",)

        found = self._write(folder, draws, self.seed + 2, {"count": count}, make)
        if len(found) < count:
            raise ConfigError(f"only {len(found)} of {count} further scenes could be drawn")
        return found

    def others(self, asked: Sequence[Mapping[str, Any]], folder: Path) -> list[EditRecord]:
        """For each asked record another picture, with a thing of the same name and value if one
        was drawn, else of the same name; and the pictures with several edits."""
        draws, each = max(60, 40 * len(asked)), max(1, len(asked) // 2)

        def make(raw: list[dict], pictures: Mapping[str, tuple]) -> Iterator[tuple[dict, tuple]]:
            known = self._known()
            free = [r for r in raw if _key(pictures, r) not in known]
            full = [r for r in free if _things(pictures, r) == 4]
            yield from self._several(full, pictures, each)
            for record in asked:
                same = [r for r in free if r["src"] == record["src"]]
                best = [r for r in same if r["pred"] == record["pred"]] or same
                if best:
                    kept = {key: best[0][key] for key in (*_KEPT, *_SCOPES, "image")}
                    yield {**kept, "case_id": _other(record["case_id"])}, ("image",)

        about = {"asked": len(asked)}
        return self._write(folder, draws, self.seed + 1, about, make)

    @staticmethod
    def _several(
        full: Sequence[dict], pictures: Mapping[str, tuple], each: int
    ) -> Iterator[tuple[dict, tuple]]:
        scenes = iter(full)
        for count in PER_PICTURE:
            for number in range(-(-each // count)):
                found: list[dict[str, Any]] = []
                while not found and (record := next(scenes, None)) is not None:
                    rng = random.Random(f"several {count} {record['case_id']}")
                    found = several(pictures[record["image"]][0], count, rng)
                for i, fields in enumerate(found):
                    kept = {
                        key: record[key] for key in ("image", "image_rephrase", "loc", "loc_ans")
                    }
                    name = f"picture-{count}-{number}-{i}"
                    yield {**kept, **fields, "case_id": name}, ("image", "image_rephrase")

    def _known(self) -> set[str]:
        return {scene.key for scene in self.world.scenes_of("test", self.count, self.seed)}

    def _write(
        self,
        folder: Path,
        draws: int,
        seed: int,
        about: Mapping[str, Any],
        choose: Callable[..., Iterator[tuple[dict, tuple]]],
    ) -> list[EditRecord]:
        """Draw records, write what ``choose`` takes of them with those pictures alone, and read
        it."""

        def make(split: str, n: int, seed: int) -> tuple[list[dict], dict[str, tuple]]:
            if not n:
                return [], {}
            raw, pictures = self.world.make_records(split, n, seed)
            chosen = list(choose(raw, pictures))
            drawn = {r[key]: pictures[r[key]] for r, keys in chosen for key in keys}
            return [r for r, _ in chosen], drawn

        settings = {"world": self.world.WORLD_VERSION, "n_train": 0, "n_test": draws, "seed": seed}
        files = write_set(folder, {**settings, **about}, make, self.world.render)
        return list(FGVEditDataset(files.test, image_root=files.images, check="exists"))


def _things(pictures: Mapping[str, tuple], record: Mapping[str, Any]) -> int:
    return len(pictures[record["image"]][0].entities)


def _key(pictures: Mapping[str, tuple], record: Mapping[str, Any]) -> str:
    return pictures[record["image"]][0].key
