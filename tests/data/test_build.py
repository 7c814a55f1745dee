"""Building benchmarks, against a real chat-completions server on this machine."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from easyedit_mm_plugins.core.errors import ConfigError, DataError
from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.data.tools.construct import (
    AnswerCache,
    Budget,
    BudgetSpent,
    BuildConfig,
    ChatJudge,
    agreement,
    build,
    estimate,
    prompts,
)
from easyedit_mm_plugins.data.tools.construct.balance import balance
from easyedit_mm_plugins.data.tools.construct.judge import JudgeError, image_url
from easyedit_mm_plugins.scenes import language
from easyedit_mm_plugins.scenes.source import ScenesSource, scope
from easyedit_mm_plugins.scenes.world import counterfactual, counterfactual_values

from ..conftest import picture
from ..support.blind_records import leaky, paired
from ..support.chat_server import (
    ChatServer,
    SceneRules,
    other_wording,
    pixels,
    read,
    scope_by_text,
)

ROOT = Path(__file__).parents[2]
N = 10  # scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return ScenesSource(tmp_path_factory.mktemp("scenes"), n=N, questions=6)


@pytest.fixture(scope="module")
def rules(scenes):
    return SceneRules(scenes)


def judge(server, **options):
    options = {"backoff": 0.01, "retries": 4, "timeout": 10.0} | options
    return ChatJudge("rules", base_url=server.url, **options)


def files(folder):
    return {n: (folder / n).read_bytes() for n in ("train.json", "test.json", "labels.jsonl")}


def exact_records(source):
    """What the scenes' own logic says the records must be, with no judge in between."""
    records = {}
    for group in source.groups():
        scene, asked = source.scenes[group.image]
        first, *others = group.pairs
        criterion = asked[first.qid]
        words = {"in": [], "out": [], "none": []}
        for pair in others:
            side, by_text = (
                scope(scene, criterion, asked[pair.qid]),
                scope_by_text(criterion, asked[pair.qid]),
            )
            words[side].append((pair, side != by_text))
        words["none"].clear()
        if not any(hard for side in words.values() for _, hard in side):
            continue
        records[group.image_id] = (scene, criterion, first, words)
    return records


def test_records_are_those_of_the_exact_scene_logic(scenes, rules, tmp_path):
    with ChatServer(rules.reply) as server:
        result = build(scenes, judge(server), list(scenes.example_nq), tmp_path)
    built = {r["case_id"]: r for r in result.train + result.test}
    exact = exact_records(scenes)
    assert set(built) == set(exact) and len(built) > 5
    for case, (scene, criterion, first, words) in exact.items():
        record = built[case]
        edited = counterfactual(scene, criterion.entity(scene), criterion.attribute, record["alt"])
        assert record["src"] == first.question and record["pred"] == first.answer
        assert record["alt"] != first.answer
        assert record["rephrase"] == other_wording(criterion, first.question)
        for name, side in (("fg_gen", "in"), ("fg_loc", "out")):
            found = {(x["q"], x["a"], x["hard"]) for x in record["fg_extra"][side]}
            if f"{name}_q" in record:
                best = tuple(record[f"{name}_{x}"] for x in ("q", "a", "hard"))
                assert best[2] or not any(hard for _, _, hard in found)
                found.add(best)
            _, asked = scenes.scenes[record["image"]]
            want = {
                (p.question, language.answer(edited, asked[p.qid]), hard) for p, hard in words[side]
            }
            assert found == want
    assert result.agreement["in"]["precision"] == result.agreement["out"]["recall"] == 1
    assert abs(len(result.train) - 3 * len(result.test)) <= 2
    # Every judged pair was asked about twice, with the picture and without.
    asked = [read(body)[0] for body in server.bodies]
    for words in (prompts.IMAGE_PROMPT, prompts.TEXT_PROMPT):
        assert sum(prompt.startswith(words) for prompt in asked) == len(result.labels)
    assert FGVEditDataset(tmp_path / "train.json", image_root=scenes.image_root)[0].text_loc


def test_a_noisy_judge_is_measured(scenes, tmp_path):
    with ChatServer(SceneRules(scenes, noise=0.2).reply) as server:
        result = build(scenes, judge(server), list(scenes.example_nq), tmp_path)
    labels = [(x["scope"], x["truth"]) for x in result.labels]
    wrong = sum(a != b for a, b in labels)
    assert 0 < wrong < len(labels) / 2
    assert result.agreement["accuracy"] == pytest.approx(1 - wrong / len(labels))
    assert result.agreement == json.loads((tmp_path / "build.json").read_text())["agreement"]
    assert result.agreement["in"]["precision"] < 1 and result.agreement["out"]["precision"] < 1


def test_agreement_by_hand():
    pairs = [("in", "in"), ("in", "out"), ("out", "out"), ("out", "in"), ("none", "in")]
    result = agreement(pairs)
    assert result["in"] == {"precision": 0.5, "recall": pytest.approx(1 / 3), "f1": 0.4}
    assert result["out"]["recall"] == 0.5 and result["accuracy"] == 0.4
    assert agreement([])["accuracy"] is None


def test_faults_do_not_change_the_outcome(scenes, rules, tmp_path):
    kinds = ["500", "429", "drop", "garbage", "empty", "null", "chatty", "slow"]
    with ChatServer(rules.reply, {6 * i + 2: kind for i, kind in enumerate(kinds)}) as server:
        build(scenes, judge(server, timeout=1.0), list(scenes.example_nq), tmp_path / "a")
    with ChatServer(rules.reply) as calm:
        build(scenes, judge(calm), list(scenes.example_nq), tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert server.requests > calm.requests


def test_replies_that_are_never_one_word_count_as_maybe(scenes, tmp_path):
    class Chatty:
        def __init__(self):
            self.asked = []

        def reply(self, prompt, image):
            self.asked.append(prompt)
            return "Well, yes and no."

    chatty = Chatty()
    with ChatServer(chatty.reply) as server:
        with pytest.raises(DataError, match="no hard question"):
            build(
                scenes,
                judge(server),
                [("who", "me")],
                tmp_path,
                BuildConfig(limit=1, max_questions=2),
            )
        bodies = server.bodies
    assert len(bodies) == 6  # two verdicts, three tries each
    assert [len(b["messages"]) for b in bodies] == [1, 3, 5] * 2
    assert bodies[1]["messages"][2]["content"] == prompts.VERDICT_AGAIN


@pytest.mark.parametrize(
    ("fault", "says"), [("401", "check the key"), ("quota", "add credit"), ("500", "in 3 tries")]
)
def test_final_errors_are_clear_and_the_build_goes_on_later(scenes, rules, tmp_path, fault, says):
    faults = {n: fault for n in range(20, 70)}
    with ChatServer(rules.reply, faults) as server:
        with pytest.raises(JudgeError, match=says):
            build(scenes, judge(server, retries=2), list(scenes.example_nq), tmp_path)
        answered = sum(server.seen.values())
        server.faults.clear()
        build(scenes, judge(server), list(scenes.example_nq), tmp_path)
    assert answered >= 20 and max(server.seen.values()) == 1


def test_an_endpoint_that_refuses_a_picture_does_not_stop_the_build(scenes, rules, tmp_path):
    with ChatServer(rules.reply, {0: "filter", 1: "filter", 2: "filter"}) as server:
        config = BuildConfig(tries=1)
        result = build(
            scenes, judge(server), list(scenes.example_nq), tmp_path, config, concurrency=1
        )
    assert result.labels[0]["with_image"] == "Maybe"


def test_concurrency_is_limited(scenes, rules, tmp_path):
    with ChatServer(rules.reply, delay=0.02) as server:
        build(scenes, judge(server), list(scenes.example_nq), tmp_path, concurrency=3)
    assert 2 <= server.most_open <= 3


def test_a_killed_build_resumes_to_the_identical_result(tmp_path):
    n = 12
    source = ScenesSource(tmp_path / "images", n=n, questions=6)
    rules = SceneRules(source)
    with ChatServer(rules.reply, delay=0.02) as server:
        command = [
            sys.executable,
            "-m",
            "tests.support.chat_server",
            server.url,
            str(tmp_path),
            str(n),
        ]
        cache = tmp_path / "out" / "answers.jsonl"
        process = subprocess.Popen(command, cwd=ROOT)
        deadline = time.monotonic() + 60
        while not (cache.exists() and len(cache.read_bytes()) > 2000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "train.json").exists()
        done = len(AnswerCache(cache))
        with cache.open("ab") as file:
            file.write(b'{"key": "cut off in the mid')  # as a kill in the middle of a write would
        time.sleep(0.3)
        before = server.requests
        assert subprocess.run(command, cwd=ROOT, timeout=120).returncode == 0
        asked_again = server.requests - before
        build(source, judge(server), list(source.example_nq), tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert done > 0 and asked_again == len(AnswerCache(cache)) - done  # nothing cached is asked


def test_a_budget_stops_cleanly_and_the_next_run_goes_on(scenes, rules, tmp_path):
    nq = list(scenes.example_nq)
    with ChatServer(rules.reply) as server:
        with pytest.raises(BudgetSpent, match="requests is spent"):
            build(scenes, judge(server, budget=Budget(requests=30)), nq, tmp_path)
        assert server.requests == 30
        with pytest.raises(BudgetSpent, match="usd"):
            build(scenes, judge(server, budget=Budget.parse("usd=0.0005")), nq, tmp_path)
        result = build(scenes, judge(server), nq, tmp_path)
        total = server.requests
        again = build(scenes, judge(server), nq, tmp_path)
    assert result.train == again.train and server.requests == total
    assert max(server.seen.values()) == 1


@pytest.mark.parametrize("text", ["penguins=3", "requests=many", "usd=-1", "tokens=nan"])
def test_budgets_that_make_no_sense(text):
    with pytest.raises(ConfigError):
        Budget.parse(text)
    assert Budget.parse("5").requests == 5 and Budget.parse("tokens=2e6").tokens == 2_000_000


def test_a_dry_run_counts_what_would_be_asked(scenes, rules, tmp_path):
    with ChatServer(rules.reply) as server:
        cache = AnswerCache(tmp_path / "answers.jsonl")
        guess = estimate(scenes, judge(server), BuildConfig(), cache)
        assert server.requests == 0
        assert guess["question pairs"] == N * 5 and guess["requests"]["rephrase"] == N
        result = build(scenes, judge(server), list(scenes.example_nq), tmp_path, cache=cache)
        after = estimate(scenes, judge(server), BuildConfig(), AnswerCache(cache.path))
    assert after["scope questions in the cache"] == 2 * len(result.labels)
    assert guess["requests"]["scope with image"] >= len(result.labels)


def test_the_same_seed_gives_the_same_split_and_another_seed_another(scenes, rules, tmp_path):
    nq = list(scenes.example_nq)
    with ChatServer(rules.reply) as server:
        cache = AnswerCache(tmp_path / "answers.jsonl")
        runs = [
            build(scenes, judge(server), nq, None, BuildConfig(seed=seed), cache=cache)
            for seed in (1, 1, 2)
        ]
    tests = [{r["image"] for r in run.test} for run in runs]
    assert runs[0].train == runs[1].train and tests[0] != tests[2]
    for run in runs:
        assert not {r["image"] for r in run.train} & {r["image"] for r in run.test}


def test_pictures_are_scaled_and_turned_or_sent_as_they_are(tmp_path):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    picture(0, 40).save(small)
    picture(1, 90).save(large)
    assert image_url(small, 64).startswith("data:image/png;base64,")
    assert image_url(large, 64).startswith("data:image/jpeg;base64,")
    import base64
    import io

    from PIL import Image

    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("CMYK", (30, 20)).save(turned, exif=exif)
    data = base64.b64decode(image_url(turned, 64).split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (20, 30)


def test_a_key_is_needed_where_it_is(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        ChatJudge()


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("Yes", "Yes"), (" no. ", "No"), ("**Maybe**", "Maybe"), ("Yes, it would", None), ("", None)],
)
def test_verdicts_are_read_strictly(reply, verdict):
    assert prompts.read_verdict(reply) == verdict


def test_the_papers_words_are_in_the_prompts():
    text = prompts.scope_prompt("q?", "a", "r?", "b", with_image=True)
    assert text.startswith(
        "Using the provided image, analyze whether classification criterion logically entails "
        "this question, specifically, whether a change in Answer 1 would impact Answer 2. Please "
        "make a simple judgment (Yes, No, Maybe), and your response should not contain any other "
        "characters."
    )
    plain = prompts.scope_prompt("q?", "a", "r?", "b", with_image=False)
    assert plain.startswith("analyze whether classification criterion logically entails this")
    assert prompts.rephrase_prompt("q?").startswith(
        "Please rewrite the following question differently. Do not include the original question"
    )


def test_a_cache_of_something_else_is_refused(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"key": 3}\n')
    with pytest.raises(DataError, match="line 1"):
        AnswerCache(tmp_path / "c.jsonl")


def test_new_answers_may_be_the_judges_own(scenes, rules):
    asked = []

    def reply(prompt, image):
        if not prompt.startswith(prompts.ALTERNATIVE_PROMPT):
            return rules.reply(prompt, image)
        question = rules.meaning[prompt.split("Question: ")[1].split("\n")[0]]
        right = prompt.split("Right answer: ")[1]
        asked.append(right)
        if asked.count(right) == 1:
            return f"{right.title()}."  # no other answer: asked again
        scene = rules.scenes[pixels(image)]
        return counterfactual_values(scene, question.entity(scene), question.attribute)[-1]

    nq = list(scenes.example_nq)
    config = BuildConfig(alt="judge", both_sides=True)
    with ChatServer(reply) as server:
        result = build(scenes, judge(server), nq, None, config, concurrency=1)
    records = result.train + result.test
    assert records and result.dropped.get("questions on one side only", 0) + len(records) <= N
    for record in records:
        assert record["alt"] != record["pred"] and record["fg_gen_q"] and record["fg_loc_q"]
    assert len(asked) > len(records)


def test_keys_and_passwords_are_never_shown_or_kept(scenes, rules, tmp_path, monkeypatch, caplog):
    """The server repeats the request's headers, in an error and in a reply."""
    key, password = "local-key-0123456789", "p@ss word/1"
    monkeypatch.setenv("MY_ENDPOINT", key)
    faults = {0: "echo", 1: "echo reply"}
    login = "https://me:p%40ss%20word%2F1@"
    kept = []
    caplog.set_level("DEBUG")
    for with_login in (False, True):
        with ChatServer(rules.reply, faults) as server:
            url = server.url.replace("http://", login.replace("https", "http"))
            options = {"key_env": "MY_ENDPOINT", "params": {"extra_body": {"api_key": key}}}
            asked = ChatJudge("rules", base_url=url if with_login else server.url, **options)
            out = tmp_path / str(with_login)
            with pytest.raises(JudgeError, match="refused the request") as caught:
                build(scenes, asked, list(scenes.example_nq), out, concurrency=1)
            assert "uthorization" in str(caught.value)  # the server's text is there, without them
            build(scenes, asked, list(scenes.example_nq), out, concurrency=1)
            kept += [str(caught.value), repr(caught.value), str(asked.base_url)]
            kept += [path.read_text() for path in out.iterdir() if path.is_file()]
    assert (tmp_path / "True" / "build.json").is_file()
    basic = base64.b64encode(f"me:{password}".encode()).decode()
    whole = "\n".join([*kept, caplog.text])
    for secret in (key, password, "p%40ss", basic):
        assert secret not in whole
    assert "***" in (tmp_path / "True" / "answers.jsonl").read_text()


def test_balancing_leaves_out_what_texts_tell(tmp_path):
    """The leaky half of the records goes, the other stays, and nothing else changes."""
    made = []
    for record in leaky(60) + paired(60, seed=1):
        extra = record.get("fg_extra", {"in": [], "out": []})
        extra = {side: [q | {"hard": False} for q in extra[side]] for side in ("in", "out")}
        made.append(record | {"fg_extra": extra, "fg_gen_hard": True, "fg_loc_hard": True})
    before = json.dumps(made)
    kept, report = balance(made, 60.0)
    assert json.dumps(made) == before
    assert report["accuracy before"] > 60 and report["rounds"] > 0
    assert report["accuracy"] is None or report["accuracy"] < 67  # other folds than it stopped at
    left = report["hard questions"]
    gone = report["left out to match"] + report["left out as told too surely"]
    assert sum(report["hard questions before"].values()) - sum(left.values()) == gone
    assert report["records left out"] == len(made) - len(kept) > 0
    whole = {r["case_id"]: r for r in made}
    for record in kept:
        assert any(record.get(f"{name}_hard") for name in ("fg_gen", "fg_loc"))
        texts = {record[k] for k in ("fg_gen_q", "fg_loc_q") if k in record}
        first = whole[record["case_id"]]
        easy = {q["q"] for side in first["fg_extra"].values() for q in side}
        assert texts <= {first["fg_gen_q"], first["fg_loc_q"], *easy}
    both, _ = balance(made, 60.0, both_sides=True)
    assert all("fg_gen_q" in r and "fg_loc_q" in r for r in both) and len(both) <= len(kept)
    with pytest.raises(ConfigError, match=r"balance_to is 40, must be from 50"):
        BuildConfig(balance_to=40)


def test_a_build_is_balanced_and_says_so(scenes, rules, tmp_path):
    config = BuildConfig(balance="texts", balance_to=99.0)
    with ChatServer(rules.reply) as server:
        result = build(scenes, judge(server), list(scenes.example_nq), tmp_path, config)
    written = json.loads((tmp_path / "build.json").read_text())
    assert written["balance"] == result.balance and result.balance["limit"] == 99.0
    assert written["config"]["balance"] == "texts"
