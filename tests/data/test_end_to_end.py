"""From questions about scenes through a judge's endpoint to a trained and measured editor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.app import app
from easyedit_mm_plugins.core.errors import BackboneError, ConfigError, DataError
from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.data.tools.construct import (
    BuildConfig,
    ChatJudge,
    build,
    open_source,
    prompts,
)
from easyedit_mm_plugins.data.tools.construct.local_judge import LocalJudge
from easyedit_mm_plugins.data.tools.verify import verify
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.methods.mscke import MSCKETrainer
from easyedit_mm_plugins.scenes.source import ScenesSource

from ..conftest import build_tiny, picture
from ..support.chat_server import ChatServer, SceneRules
from ..support.mscke_tiny import hparams, tiny_mscke
from ..support.vqa_files import write_vqav2

ROOT = Path(__file__).parents[2]


def test_build_train_evaluate(tmp_path):
    """By the command line as a user would, on VQAv2-format files made of scenes."""
    scenes = ScenesSource(tmp_path / "scenes", n=16, questions=6)
    questions, annotations, root = write_vqav2(scenes, tmp_path / "coco")
    (tmp_path / "nq.jsonl").write_text(
        "".join(json.dumps({"question": q, "answer": [a]}) + "\n" for q, a in scenes.example_nq)
    )
    # The files do not carry the scenes' own alternatives, so some drawn answers are impossible
    # edits there; the rules then do not know what would follow.
    rules = SceneRules(scenes)

    def reply(prompt, image):
        try:
            return rules.reply(prompt, image)
        except ValueError:
            return "\n"

    out = tmp_path / "out"
    with ChatServer(reply) as server:
        arguments = [
            *("data", "build-fgvedit", "--questions", questions, "--annotations", annotations),
            *("--images", root, "--nq", tmp_path / "nq.jsonl", "--out", out, "--model", "rules"),
            *("--base-url", server.url),
        ]
        arguments = [str(a) for a in arguments]
        dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
        assert dry.exit_code == 0 and "question pairs: 80" in dry.output, dry.output
        assert server.requests == 0
        stopped = CliRunner().invoke(app, [*arguments, "--budget", "requests=40"])
        assert stopped.exit_code == 3 and server.requests == 40, stopped.output
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0 and "training and" in done.output, done.output
    report = verify(out, root, tokenizer=None)
    assert not report.errors and len(report.files) == 2
    train = FGVEditDataset(out / "train.json", image_root=root, extra=True)
    test = FGVEditDataset(out / "test.json", image_root=root)
    assert len(train) > 2 * len(test) > 0

    editor = tiny_mscke()
    before = {k: v.clone() for k, v in editor.scope.state_dict().items()}
    trainer = MSCKETrainer(editor, list(train), list(test), hparams(), tmp_path / "run")
    assert torch.isfinite(torch.tensor(list(trainer.run().values()))).all()
    assert any(not torch.equal(v, before[k]) for k, v in editor.scope.state_dict().items())
    metrics = evaluate(editor, list(test), dataset="built").metrics
    assert {"reliability", "generality", "locality"} <= {name.lower() for name in metrics}
    assert all(value is None or 0 <= value <= 100 for value in metrics.values())


def test_easy_vqa_through_the_endpoint(tmp_path):
    pytest.importorskip("easy_vqa")
    source = open_source("easy-vqa", split="test")

    def reply(prompt, image):
        if prompt.startswith(prompts.REPHRASE_PROMPT):
            return "tell me: " + prompt.split("\n\n")[1].replace("?", "", 1)[::-1]
        if prompt.startswith(prompts.AFTER_PROMPT):
            return "no"
        assert image is None or image.size == (64, 64)
        question = prompt.split("Question 2: ")[1]
        return "Yes" if "color" in question and image else "No"

    with ChatServer(reply) as server:
        judge = ChatJudge("x", base_url=server.url)
        config = BuildConfig(limit=20)
        result = build(source, judge, [("who", "me")], tmp_path, config)
    assert result.train + result.test
    for record in result.train + result.test:
        assert record["fg_gen_hard"] and "color" in record["fg_gen_q"]
        assert FGVEditDataset(tmp_path / "train.json", image_root=source.image_root)


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory):
    """A small LLaVA saved as a user would have one: model, tokenizer, processor."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    folder = tmp_path_factory.mktemp("judge")
    backbone = build_tiny("llava")
    backbone.model.save_pretrained(folder)
    tokenizer = backbone.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = CLIPImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, image_mean=[0.5] * 3
    )
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def test_a_local_model_is_a_judge(judge_folder, tmp_path):
    picture(0).save(tmp_path / "a.png")
    judge = LocalJudge(judge_folder)
    prompt = prompts.scope_prompt("what?", "red", "where?", "left", with_image=True)
    reply = judge.reply(prompt, tmp_path / "a.png", (), 8)
    # The same by hand: the word whose tokens are likeliest after the prompt.
    inputs = judge._inputs(prompt, picture(0), ())
    tokenizer = judge.processor.tokenizer
    scores = {}
    for word in prompts.VERDICTS:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
        with torch.no_grad():
            logits = (
                judge.model(
                    input_ids=whole,
                    pixel_values=inputs["pixel_values"],
                    attention_mask=torch.ones_like(whole),
                )
                .logits[0]
                .log_softmax(-1)
            )
        start = inputs["input_ids"].shape[1]
        scores[word] = sum(float(logits[start - 1 + i, t]) for i, t in enumerate(ids))
    assert reply == max(scores, key=scores.get)
    text = judge.reply(prompts.rephrase_prompt("what color?"), None, (), 4)
    assert isinstance(text, str) and judge.reply(prompt, tmp_path / "a.png", (), 8) == reply
    with pytest.raises(BackboneError, match="cannot load"):
        LocalJudge(tmp_path / "none")


def test_a_local_judge_builds(judge_folder, tmp_path):
    scenes = ScenesSource(tmp_path / "images", n=2, questions=3)

    replies = []

    class Wordy(LocalJudge):
        """Random weights give no rephrase worth the name: take a fixed one."""

        def reply(self, prompt, image, history, max_tokens):
            if prompt.startswith(prompts.TEXT_PROMPT):
                return "Maybe"
            if "Reply with" in prompt or prompt.startswith(prompts.REPHRASE_PROMPT):
                return "another wording"
            replies.append(super().reply(prompt, image, history, 8))
            return replies[-1]

    judge = Wordy(judge_folder)
    try:
        build(scenes, judge, list(scenes.example_nq), tmp_path / "out", concurrency=2)
    except DataError as error:  # all Maybe is a possible verdict of random weights
        assert "no hard question" in str(error) and set(replies) == {"Maybe"}
    assert set(replies) <= set(prompts.VERDICTS) and len(replies) == 4


def test_the_command_says_what_is_missing(tmp_path):
    run = CliRunner()
    result = run.invoke(app, ["data", "build-fgvedit", "--out", str(tmp_path)])
    assert isinstance(result.exception, ConfigError) and "questions" in str(result.exception)
    arguments = ["data", "build-fgvedit", "--source", "scenes", "--out", str(tmp_path)]
    result = run.invoke(app, [*arguments, "--judge", "psychic"])
    assert isinstance(result.exception, ConfigError)
    (tmp_path / "t.csv").write_text("image,question,answer\na.png,q?,a\n")
    table = ["--source", "table", "--files", str(tmp_path / "t.csv")]
    with ChatServer(lambda *_: "No") as server:
        more = ["--base-url", server.url]
        result = run.invoke(app, ["data", "build-fgvedit", "--out", str(tmp_path), *table, *more])
    assert "give --nq" in str(result.exception)


def test_a_missing_package_names_the_extra(tmp_path):
    """As where only the plugin itself is installed."""
    code = """
import sys
sys.modules["openai"] = None
from easyedit_mm_plugins.data.tools.construct import ChatJudge
from easyedit_mm_plugins.core.errors import ConfigError
try:
    ChatJudge(base_url="http://127.0.0.1:9")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert "easyedit-mm-plugins[data]" in done.stdout, done.stderr
