"""Records that texts tell apart, and records that they do not, without any picture in mind."""

from __future__ import annotations

import random

SHAPES = ("circle", "square", "star", "cross")
COLORS = ("red", "blue", "green", "black")
_LOC = {"loc": "nq question: what is the capital of peru", "loc_ans": "lima"}


def leaky(n: int, seed: int = 0, image: str = "{}.png") -> list[dict]:
    """In scope the thing goes by its colour, out of scope another goes by its shape, as the edit's
    does; an easy question of each side besides."""
    rng, made = random.Random(seed), []
    for i in range(n):
        shape, other = rng.sample(SHAPES, 2)
        color = rng.choice(COLORS)
        made.append(
            {
                "case_id": f"leaky-{i}",
                "src": f"what size is the {shape}?",
                "alt": rng.choice(("small", "large")),
                "rephrase": f"how big is the {shape}?",
                "image": image.format(i),
                "fg_gen_q": f"what size is the {color} thing?",
                "fg_gen_a": "small",
                "fg_loc_q": f"what size is the {other}?",
                "fg_loc_a": "large",
                "fg_extra": {
                    "in": [{"q": f"is the {shape} small?", "a": "yes", "kind": "yes no"}],
                    "out": [{"q": f"what color is the {other}?", "a": color, "kind": "yes no"}],
                },
                **_LOC,
            }
        )
    return made


def paired(n: int, seed: int = 0, image: str = "{}.png") -> list[dict]:
    """``n`` pairs: the same texts twice, with swapped scopes."""
    rng, made = random.Random(seed), []
    for i in range(n):
        shape, other = rng.sample(SHAPES, 2)
        queries = [f"what size is the {rng.choice(COLORS)} thing?", f"what size is the {other}?"]
        rng.shuffle(queries)
        src, rephrase = f"what size is the {shape}?", f"how big is the {shape}?"
        texts = {"src": src, "alt": rng.choice(("small", "large")), "rephrase": rephrase, **_LOC}
        for half, (inside, outside) in enumerate((queries, queries[::-1])):
            scopes = {"fg_gen_q": inside, "fg_gen_a": "small"}
            scopes |= {"fg_loc_q": outside, "fg_loc_a": "large"}
            names = {"case_id": f"pair-{i}-{half}", "pair": i, "image": image.format(2 * i + half)}
            made.append({**names, **texts, **scopes})
    return made
