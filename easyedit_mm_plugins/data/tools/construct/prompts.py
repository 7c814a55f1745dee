"""The judge's prompts, and how its replies are read.

The two scope prompts and the one for rephrasing are the paper's, word for word (MSCKE section 4.2).
The paper prints neither the layout of the questions below them nor the prompts for answers; these
are ours.
"""

from __future__ import annotations

import re

IMAGE_PROMPT = (
    "Using the provided image, analyze whether classification criterion logically entails this "
    "question, specifically, whether a change in Answer 1 would impact Answer 2. Please make a "
    "simple judgment (Yes, No, Maybe), and your response should not contain any other characters."
)
TEXT_PROMPT = (
    "analyze whether classification criterion logically entails this question, specifically, "
    "whether a change in Answer 1 would impact Answer 2. Please make a simple judgment (Yes, No, "
    "Maybe), and your response should not contain any other characters."
)
REPHRASE_PROMPT = (
    "Please rewrite the following question differently. Do not include the original question"
)
AFTER_PROMPT = (
    "Two questions are asked about the image. Suppose the right answer to Question 1 is no longer "
    "Answer 1 but New Answer 1, and nothing else about the image is different. What is then the "
    "right answer to Question 2? Reply with the answer alone, a word or a short phrase."
)
ALTERNATIVE_PROMPT = (
    "Give an answer to the question that is wrong for this image but plausible, of the same kind "
    "as the right answer. Reply with the answer alone, a word or a short phrase."
)
VERDICTS = ("Yes", "No", "Maybe")
VERDICT_AGAIN = "Reply with exactly one word: Yes, No or Maybe."
REPHRASE_AGAIN = "Reply with the rewritten question alone, worded differently from the original."
ANSWER_AGAIN = "Reply with the answer alone, a word or a short phrase."

_MAX_ANSWER_WORDS = 12


def scope_prompt(q1: str, a1: str, q2: str, a2: str, *, with_image: bool) -> str:
    """The scope prompt with the image, or the one for the text alone."""
    head = IMAGE_PROMPT if with_image else TEXT_PROMPT
    return (
        f"{head}\n\nClassification criterion:\nQuestion 1: {q1}\nAnswer 1: {a1}\n\n"
        f"This question:\nQuestion 2: {q2}\nAnswer 2: {a2}"
    )


def rephrase_prompt(question: str) -> str:
    """The request for another wording of the edit's question."""
    return f"{REPHRASE_PROMPT}\n\n{question}"


def after_prompt(q1: str, a1: str, new: str, q2: str, a2: str) -> str:
    """The request for an in-scope question's answer after the edit."""
    return (
        f"{AFTER_PROMPT}\n\nQuestion 1: {q1}\nAnswer 1: {a1}\nNew Answer 1: {new}\n\n"
        f"Question 2: {q2}\nAnswer 2 so far: {a2}"
    )


def alternative_prompt(question: str, answer: str) -> str:
    """The request for a counterfactual answer."""
    return f"{ALTERNATIVE_PROMPT}\n\nQuestion: {question}\nRight answer: {answer}"


def normalise(text: str) -> str:
    """Lower case, no punctuation at the ends, single spaces: for comparing wordings."""
    return " ".join(text.lower().split()).strip(" \t.,;:!?\"'`*_()[]")


def read_verdict(reply: str) -> str | None:
    """One of :data:`VERDICTS`, or None if the reply is none of the three words.

    Case and punctuation around the word are forgiven, further words are not.
    """
    word = re.sub(r"[\W_]+", "", reply).lower()
    return next((v for v in VERDICTS if v.lower() == word), None)


def read_rephrase(reply: str, original: str) -> str | None:
    """The rewritten question, or None if it is empty, has several lines, or is the original."""
    lines = [line.strip() for line in reply.strip().splitlines() if line.strip()]
    if len(lines) != 1:
        return None
    text = lines[0].strip("\"'` ")
    if not normalise(text) or normalise(original) in normalise(text):
        return None
    return text


def read_answer(reply: str) -> str | None:
    """A short answer on one line, or None."""
    lines = [line.strip() for line in reply.strip().splitlines() if line.strip()]
    if len(lines) != 1:
        return None
    text = lines[0].strip("\"'`* ").rstrip(".").strip()
    return text if text and len(text.split()) <= _MAX_ANSWER_WORDS else None
