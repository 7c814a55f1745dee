"""A real HTTP server that speaks the chat-completions protocol, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from easyedit_mm_plugins.data.tools.construct import prompts
from easyedit_mm_plugins.scenes import language
from easyedit_mm_plugins.scenes.source import ScenesSource, scope
from easyedit_mm_plugins.scenes.world import ATTRIBUTES, COLORS, SHAPES, VALUES, counterfactual

WORDS = {"in": "Yes", "out": "No", "none": "Maybe"}


def pixels(image: Image.Image) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


class SceneRules:
    """Replies by the exact logic of scenes: the picture is recognised, the words are understood.

    Args:
        source: whose pictures it knows.
        noise: share of scope verdicts that are wrong on purpose, decided by the prompt's hash.
    """

    def __init__(self, source: ScenesSource, noise: float = 0.0) -> None:
        self.noise = noise
        self.scenes = {}
        for group in source.groups():
            with Image.open(source.image_root / group.image) as picture:
                self.scenes[pixels(picture)] = source.scenes[group.image][0]
        self.meaning = {}
        for question in every_question():
            for text in language.paraphrases(question, "all"):
                self.meaning.setdefault(text, question)

    def reply(self, prompt: str, picture: Image.Image | None) -> str:
        fields = dict(re.findall(r"^(Question \d|Answer \d|New Answer \d): (.*)$", prompt, re.M))
        if prompt.startswith(prompts.REPHRASE_PROMPT):
            original = prompt.split("\n\n")[1]
            return other_wording(self.meaning[original], original)
        first, second = (self.meaning[fields[f"Question {i}"]] for i in (1, 2))
        if prompt.startswith(prompts.AFTER_PROMPT):
            scene = self.scenes[pixels(picture)]
            entity = first.entity(scene)
            edited = counterfactual(scene, entity, first.attribute, fields["New Answer 1"])
            return language.answer(edited, second)
        if picture is not None:
            assert prompt.startswith(prompts.IMAGE_PROMPT)
            verdict = scope(self.scenes[pixels(picture)], first, second)
        else:
            assert prompt.startswith(prompts.TEXT_PROMPT)
            verdict = scope_by_text(first, second)
        rng = random.Random(prompt)
        if rng.random() < self.noise:
            verdict = rng.choice([w for w in WORDS if w != verdict])
        return WORDS[verdict]


def scope_by_text(criterion: language.SceneQuestion, other: language.SceneQuestion) -> str:
    """The scope as the words alone tell it: "in", "out" or "none" (cannot be told).

    Two questions that name their entity in the same way are about the same one if and only if the
    names are equal. Where they name it differently, only the picture tells, unless the other
    question asks for another attribute.
    """

    if other.kind in ("exist", "count"):
        if other.kind == "count" or other.attribute != criterion.attribute:
            return "out"
        return "none"
    if other.attribute != criterion.attribute:
        return "none" if other.reference == criterion.attribute else "out"
    if other.reference == criterion.reference:
        return "in" if other.referent == criterion.referent else "out"
    return "none"


def other_wording(question, original: str) -> str:
    return next(t for t in language.paraphrases(question, "all") if t != original)


def every_question():
    """Every question of the language."""
    Q = language.SceneQuestion
    yield Q("count")
    for attribute, values in (("shape", SHAPES), ("color", COLORS)):
        yield from (Q("exist", attribute, value=v) for v in values)
    for attribute in ATTRIBUTES:
        for reference in language.REFERENCES:
            if attribute == reference:
                continue
            for name in VALUES[reference]:
                yield Q("open", attribute, reference, name)
                yield from (Q("verify", attribute, reference, name, v) for v in VALUES[attribute])


class ChatServer:
    """``with ChatServer(reply) as server``; ``server.url`` is the base URL.

    Attributes:
        reply: (prompt, picture or None) -> text.
        faults: fault names by number of the request, counted from 0: "500", "429", "401", "quota",
            "filter", "drop" (connection cut), "garbage" (no JSON), "empty" (no choices), "null"
            (no content), "chatty" (none of the three words), "slow", "echo" (401 with the request's
            headers in its message), "echo reply" (the headers as the reply).
        seen: how often each distinct request body came.
    """

    def __init__(self, reply, faults=None, delay: float = 0.0) -> None:
        self.reply, self.faults, self.delay = reply, dict(faults or {}), delay
        self.seen: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.requests = 0
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                owner.handle(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        assert handler.path == "/v1/chat/completions"
        with self.lock:
            number = self.requests
            self.requests += 1
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            body = json.loads(raw)
            self.bodies.append(body)
        try:
            self.answer(handler, body, raw, self.faults.get(number))
        finally:
            with self.lock:
                self.open -= 1

    def answer(self, handler, body: dict, raw: bytes, fault: str | None) -> None:
        time.sleep(1.5 if fault == "slow" else self.delay)
        if fault in ("500", "429", "401", "quota", "filter"):
            status = {"quota": 429, "filter": 400}.get(fault) or int(fault)
            code = {"quota": "insufficient_quota", "filter": "content_filter"}.get(fault)
            wait = {"Retry-After": "0.05"} if fault == "429" else {}
            return send(handler, status, {"error": {"message": "asked for", "code": code}}, wait)
        echo = f"refused: {dict(handler.headers.items())}"
        if fault == "echo":
            return send(handler, 401, {"error": {"message": echo, "code": "invalid_api_key"}})
        if fault == "drop":
            handler.close_connection = True
            return handler.connection.close()
        if fault == "garbage":
            return send(handler, 200, b"<html>this is no JSON")
        if fault == "empty":
            return send(handler, 200, {"id": "x", "object": "chat.completion", "choices": []})
        with self.lock:
            self.seen[hashlib.sha256(raw).hexdigest()] += 1
        prompt, picture = read(body)
        replies = {"null": None, "chatty": "That depends on the picture.", "echo reply": echo}
        text = replies.get(fault, ...)
        text = self.reply(prompt, picture) if text is ... else text
        return send(
            handler,
            200,
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": text},
                    }
                ],
                "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
            },
        )


def read(body: dict) -> tuple[str, Image.Image | None]:
    """The first prompt of a request and its picture."""
    content = body["messages"][0]["content"]
    if isinstance(content, str):
        return content, None
    url = content[1]["image_url"]["url"]
    data = base64.b64decode(url.split("base64,")[1])
    return content[0]["text"], Image.open(io.BytesIO(data))


def send(handler, status: int, value, headers=None) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    for name, text in (headers or {}).items():
        handler.send_header(name, text)
    handler.end_headers()
    handler.wfile.write(data)


def run_build(url: str, folder: str, n: str) -> None:
    """A build in a process of its own, to be killed by a test."""
    from easyedit_mm_plugins.data.tools.construct import ChatJudge, build

    source = ScenesSource(Path(folder) / "images", n=int(n), questions=6)
    build(source, ChatJudge("rules", base_url=url), list(source.example_nq), Path(folder) / "out")


if __name__ == "__main__":
    run_build(*sys.argv[1:])
