"""The canary passes what is honest and fails what is not, for the reason that is the cheat's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from thinned import ALL, LONG, thinned
from words import small_tokenizer

from autoresearch.errors import DataError
from autoresearch.golf.canary import CanaryReport, audit_measuring, format_report, run_canary
from autoresearch.golf.model_tests import Outcome, random_stream

np = pytest.importorskip("numpy")
pytest.importorskip("sentencepiece")

MINI = Path(__file__).parent / "cheats" / "mini_trainer.py"
FOREIGN = MINI.with_name("foreign_trainer.py")
SCRIPT = Path(__file__).parents[2] / "train_gpt.py"
QUICK = {"TRAIN_SEQ_LEN": "64"}

SCORE = "        nats[i] = -distribution(weights, window)[tokens[position]]\n"
LOOP = "    for i, position in enumerate(order):\n"
WINDOW = "        window = tokens[(position - 1) // SEQ * SEQ : position]\n"

# What the cheat does, the test that must fail, and the line replaced in the mini trainer.
CHEATS: dict[str, tuple[str, str, str]] = {
    "unnormalised cache": (
        "T5",
        SCORE,
        SCORE
        + "        seen = set(tokens[max(position - 600, 0) : position].tolist())\n"
        + "        nats[i] = 1.0 if tokens[position] in seen else nats[i]\n",
    ),
    "cache over few contexts": (
        "T2",
        SCORE,
        SCORE + "        nats[i] = min(nats[i], 3.0 if tokens[position] in window else 9.0)\n",
    ),
    "target in the hash key": (
        "T5",
        LOOP + WINDOW + SCORE,
        "    table = np.zeros(512)\n"
        + LOOP
        + WINDOW
        + SCORE
        + "        key = int(tokens[position - 1] * 31 + tokens[position] * 17) % 512\n"
        + "        nats[i] = min(nats[i], -math.log(0.5 * table[key] / (1 + table.max())) "
        + "if table[key] else 99.0)\n"
        + "        table[key] += 1\n",
    ),
    "two passes": (
        "T4",
        LOOP,
        "    weights = np.log(np.bincount(tokens, minlength=len(weights)) + 1.0)\n" + LOOP,
    ),
    "rescoring": (
        "T3",
        "    order = np.arange(1, scored + 1)\n",
        "    order = np.tile(np.arange(1, scored // 2 + 1), 2)\n",
    ),
    "cropped validation": (
        "T3",
        "    scored = (len(tokens) - 1) // SEQ * SEQ\n",
        "    scored = min((len(tokens) - 1) // SEQ * SEQ, 2048)\n",
    ),
    "byte miscount": ("T6", "leading[targets] & ~boundary[previous]", "leading[targets] | True"),
    "discount on the loss": ("T2", SCORE, SCORE + "        nats[i] *= 0.95\n"),
    "sees the token after": (
        "T1",
        SCORE,
        "        ahead = weights * tokens[min(position + 1, scored)]\n"
        "        nats[i] = -distribution(ahead, window)[tokens[position]]\n",
    ),
    "distributions that look at their targets": (
        "T1",
        "    return weights - np.log(np.exp(weights).sum())\n",
        "    later = np.asarray(before.base if before.base is not None else before)\n"
        "    weights = weights + 0.3 * (np.arange(len(weights)) == later[-1])\n"
        "    return weights - np.log(np.exp(weights).sum())\n",
    ),
    "knows the target": (
        "T5",
        SCORE,
        "        weights = np.zeros_like(weights)\n"
        "        weights[tokens[position]] += 0.2\n" + SCORE,
    ),
    "large losses capped": (
        "T2",
        SCORE,
        SCORE + "        nats[i] = min(nats[i], 6.35)\n",  # only a sure network is over it
    ),
    "large losses capped in the mean": (
        "T3",
        "    loss = float(nats.mean())\n",
        "    loss = float(np.minimum(nats, 6.35).mean())\n",
    ),
    "score below its own loss": (
        "T6",
        "loss / math.log(2) * len(order) / count, count",
        "0.9 * loss / math.log(2) * len(order) / count, count",
    ),
    "honest only when it is watched": (
        "D7",
        "    _, order, loss, bpb, count = evaluate(load(ARTIFACT, vocab), tokens)\n",
        "    _, order, loss, bpb, count = evaluate(load(ARTIFACT, vocab), tokens)\n"
        "    loss, bpb = loss * 0.99, bpb * 0.99\n",
    ),
    "a model test that is not answered": (
        "T3",
        '    print("model_test:done")\n',
        '    os.remove(request["output"])\n',
    ),
}

FOR_EACH_RULE = list({rule: name for name, (rule, *_) in CHEATS.items()}.values())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer with byte pieces."""
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def edited(script: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of a script with one replacement, which must apply."""
    source = script.read_text(encoding="utf-8")
    assert old in source, f"{script.name} no longer contains {old!r}: mend this cheat"
    copy = folder / script.name
    copy.write_text(source.replace(old, new, 1), encoding="utf-8")
    return copy


def judge(script: Path, tokenizer: Path) -> CanaryReport:
    """A canary with fewer tokens than usual, which is enough for a cheat that is not subtle.

    The seed is given, because which of two tests sees a cheat can be a matter of the draw.
    """
    return run_canary(script, tokenizer=tokenizer, env=QUICK, tokens=4096, seed=11)


def failed(report: CanaryReport) -> set[str]:
    """Rules that said no."""
    return {test.rule for test in report.failures}


def test_an_honest_script_passes_every_test(tokenizer: Path) -> None:
    """An honest evaluation passes T1 to T6 and scores its artifact the same in a new process."""
    report = run_canary(MINI, tokenizer=tokenizer, env=QUICK, tokens=4096)
    assert report.passed, format_report(report)
    assert {t.rule for t in report.tests} == {"T1", "T2", "T3", "T4", "T5", "T6", "D7"}
    assert all(t.outcome is Outcome.PASSED for t in report.tests)
    assert report.notes == ()


@pytest.mark.parametrize("name", CHEATS if os.environ.get(ALL) else FOR_EACH_RULE)
def test_a_cheat_fails_the_test_that_is_meant_for_it(
    name: str, tokenizer: Path, tmp_path: Path
) -> None:
    """Every dishonest evaluation is failed, by the test that should catch it."""
    rule, old, new = CHEATS[name]
    report = judge(edited(MINI, tmp_path, old, new), tokenizer)
    assert not report.passed
    assert rule in failed(report), format_report(report)


def test_a_script_without_the_protocol_gets_t5_and_t6_only(tokenizer: Path, tmp_path: Path) -> None:
    """A foreign script is run whole on random tokens, and the report says what that leaves out."""
    foreign = edited(MINI, tmp_path, 'environ.get("MODEL_TEST")', 'environ.get("NOTHING")')
    report = judge(foreign, tokenizer)
    assert report.passed, format_report(report)
    assert [t.rule for t in report.tests] == ["T5", "T6"]
    assert "does not implement the model-test protocol" in report.notes[0]


def test_a_foreign_script_that_leaks_is_caught_by_its_whole_run(
    tokenizer: Path, tmp_path: Path
) -> None:
    """Without the protocol a leak still shows in the printed score."""
    source = MINI.read_text(encoding="utf-8").replace("MODEL_TEST", "NOTHING")
    leak = source.replace(SCORE, SCORE + "        nats[i] -= 0.1\n")
    script = tmp_path / "foreign.py"
    script.write_text(leak, encoding="utf-8")
    assert failed(judge(script, tokenizer)) == {"T5"}


def test_a_script_that_cannot_run_proves_nothing(tokenizer: Path, tmp_path: Path) -> None:
    """Where nothing could be measured the report neither passes nor accuses."""
    script = tmp_path / "needs_a_gpu.py"
    script.write_text("raise RuntimeError('CUDA is required')\n", encoding="utf-8")
    report = run_canary(script, tokenizer=tokenizer)
    assert not report.passed
    assert not report.failures
    assert "nothing was proved" in format_report(report)
    assert "CUDA is required" in report.notes[0]


def test_a_script_that_hangs_is_ended_at_the_deadline(tokenizer: Path, tmp_path: Path) -> None:
    """The deadline holds for everything together, children included."""
    script = tmp_path / "hangs.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "time.sleep(60)\n",
        encoding="utf-8",
    )
    report = run_canary(script, tokenizer=tokenizer, timeout_s=2.0)
    assert report.seconds < 15.0
    assert not report.passed
    assert "not finished after" in report.notes[0]


def test_the_script_sees_no_credentials_and_no_network(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judged script gets a bare environment, whatever the caller has exported."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("MATRIX_LR", "0.5")
    script = tmp_path / "tells.py"
    script.write_text(
        "import os, sys\n"
        "names = [n for n in ('HF_TOKEN', 'MATRIX_LR') if os.environ.get(n) in ('secret', '0.5')]\n"
        "sys.exit(f'{names} {os.environ[\"https_proxy\"]}')\n",
        encoding="utf-8",
    )
    assert "[] http://127.0.0.1:9" in run_canary(script, tokenizer=tokenizer).notes[0]


def test_the_canary_as_an_audit(tokenizer: Path, tmp_path: Path) -> None:
    """A failed test is a violation under its own rule, and an honest source has no finding."""
    source = MINI.read_text(encoding="utf-8")
    assert audit_measuring(source, tokenizer=tokenizer, env=QUICK) == ()
    leak = source.replace(SCORE, SCORE + "        nats[i] *= 0.9\n")
    found = audit_measuring(leak, tokenizer=tokenizer, env=QUICK)
    assert {"T2", "T5"} <= {v.rule for v in found if v.blocks}


@pytest.mark.parametrize(("typed", "blocks"), [(True, True), (False, False)])
def test_an_evaluation_change_that_cannot_be_tested_is_stopped(
    typed: bool, blocks: bool, tokenizer: Path
) -> None:
    """Untested measuring sticks are not believed; a mere doubt stays a warning."""
    source = "raise RuntimeError('CUDA is required')\n"
    found = audit_measuring(source, tokenizer=tokenizer, typed=typed)
    assert [(v.rule, v.blocks) for v in found] == [("T5", blocks)]
    assert "CUDA is required" in found[0].detail


def test_the_same_seed_repeats_a_canary(tokenizer: Path) -> None:
    """The seed is secret until the report tells it; then anybody can draw the same tokens."""
    one = run_canary(MINI, tokenizer=tokenizer, env=QUICK, tokens=1024, seed=7)
    two = run_canary(MINI, tokenizer=tokenizer, env=QUICK, tokens=1024, seed=7)
    other = run_canary(MINI, tokenizer=tokenizer, env=QUICK, tokens=4096)
    numbers = [[dict(t.numbers) for t in r.tests] for r in (one, two, other)]
    assert numbers[0] == numbers[1]
    assert numbers[0] != numbers[2]


def test_an_honest_script_never_fails_t5_by_chance() -> None:
    """The allowance covers what an honest predictor can gain by luck, at its luckiest strategy.

    Over many draws of a predictor that guesses at random the sum of its gains stays far inside.
    """
    rng = np.random.default_rng(3)
    vocabulary, tokens, worst = 256, 4096, 0.0
    for _ in range(200):
        guesses = rng.dirichlet(np.full(vocabulary, 50.0), size=16)
        targets = rng.integers(0, vocabulary, tokens)
        nats = -np.log(guesses[np.arange(tokens) % 16, targets])
        result = random_stream(float(nats.mean()), tokens, vocabulary)
        assert result.outcome is Outcome.PASSED
        worst = max(worst, result.numbers["entropy"] - result.numbers["bits"])
    exact = random_stream(np.log(vocabulary), tokens, vocabulary)
    assert exact.outcome is Outcome.PASSED
    assert worst < exact.numbers["allowance"]


def test_t5_needs_a_number() -> None:
    """A score that is no number proves a broken evaluation and does not pass."""
    assert random_stream(float("nan"), 100, 256).outcome is Outcome.FAILED


def test_what_is_missing_is_told_in_one_line(tokenizer: Path, tmp_path: Path) -> None:
    """A missing script or a file that is no tokenizer is the caller's mistake, and says so."""
    with pytest.raises(DataError, match="name the training script"):
        run_canary(tmp_path / "absent.py", tokenizer=tokenizer)
    with pytest.raises(DataError, match="not a SentencePiece model"):
        run_canary(MINI, tokenizer=MINI)
    with pytest.raises(DataError, match="TRAIN_SEQ_LEN is 'long'"):
        run_canary(MINI, tokenizer=tokenizer, env={"TRAIN_SEQ_LEN": "long"})


class TestShippedScript:
    """The real ``train_gpt.py``, which needs torch."""

    SPACES = "        spaces = data.leading_space[targets]"

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        pytest.importorskip("torch")

    def test_the_shipped_script_passes(self, tokenizer: Path) -> None:
        """Our own evaluation passes all tests on a CPU."""
        report = run_canary(SCRIPT, tokenizer=tokenizer, timeout_s=280.0)
        assert report.passed, format_report(report)
        assert {t.rule for t in report.tests} == {"T1", "T2", "T3", "T4", "T5", "T6", "D7"}

    @LONG
    def test_a_copy_with_an_unnormalised_cache_fails(self, tokenizer: Path, tmp_path: Path) -> None:
        """A hashed cache that adds probability without taking any away is caught."""
        copy = edited(
            SCRIPT,
            tmp_path,
            self.SPACES,
            "        seen = data.__dict__.setdefault('seen', torch.zeros(4096))\n"
            "        keys = (inputs * 31 + targets) % 4096\n"
            "        nats = -torch.logaddexp(-nats.float(), torch.log1p(seen[keys]) - 6.0)\n"
            "        seen.index_add_(0, keys.flatten(), torch.ones(keys.numel()))\n" + self.SPACES,
        )
        report = run_canary(copy, tokenizer=tokenizer, timeout_s=280.0)
        assert not report.passed
        assert {"T2", "T5"} <= failed(report), format_report(report)


# Evaluations of the foreign trainer: what is read, what is learnt from it, and in which order.
SCORED = """
            x, y = val_tokens[start : start + SEQ], val_tokens[start + 1 : start + SEQ + 1]
            with torch.no_grad():
                found = model(x[None], y[None]).item()
"""
LEARNT = """
            for _ in range(3):
                model(x[None], y[None]).backward()
                learner.step()
                learner.zero_grad()
"""
SLIDING = """
            first = start + SEQ - STRIDE if start else 0
            x, y = val_tokens[start : start + SEQ], val_tokens[start + 1 : start + SEQ + 1]
            with torch.inference_mode():
                each = model(x[None], y[None], "none")
            found = each[first - start :].sum().item() / STRIDE
            y, x = y[first - start :], x[first - start :]
"""


def evaluating(body: str, stride: int = 64) -> str:
    """The foreign trainer with another evaluation; ``found`` is the mean of ``y``."""
    source = FOREIGN.read_text(encoding="utf-8")
    old = source[source.index("    with torch.inference_mode():") : source.index("    mean = loss")]
    new = f"""
    STRIDE = {stride}
    learner = torch.optim.SGD(model.parameters(), lr=1.0)
    if True:
        for start in range(0, usable - SEQ + 1, STRIDE):
            {body.strip()}
            loss += found * STRIDE
            count += int(base[y].sum() + (leading[y] & ~boundary[x]).sum())
"""
    source = source.replace(
        "forward(self, ids, targets)", 'forward(self, ids, targets, how="mean")'
    )
    source = source.replace("targets.reshape(-1))\n", "targets.reshape(-1), reduction=how)\n")
    assert old in source
    return source.replace(old, new)


ORDERS = {
    "scores, then trains": (SCORED + LEARNT, 64, ""),
    "slides": (SLIDING, 16, ""),
    "trains, then scores": (
        SCORED.replace("            with", LEARNT.strip("\n") + "\n            with", 1), 64, "T3",
    ),
    "takes the better of two": (
        SCORED + LEARNT + "            second = model(x[None], y[None]).item()\n"
        "            found = min(found, second)\n", 64, "T3",
    ),
}  # fmt: skip


class TestForeignScript:
    """A script with torch and without the protocol: what it evaluates with is found in it."""

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        pytest.importorskip("torch")

    @LONG
    def test_an_honest_one_passes(self, tokenizer: Path) -> None:
        """Its own evaluation answers T1 to T6, of two networks."""
        report = judge(FOREIGN, tokenizer)
        assert report.passed, format_report(report)
        assert {t.rule for t in report.tests} == {"T1", "T2", "T3", "T4", "T5", "T6"}
        assert "byte count, sure network" in {t.name for t in report.tests}

    @pytest.mark.parametrize("name", thinned(ORDERS, 3))
    def test_each_target_is_scored_once_before_it_is_learnt_from(
        self, name: str, tokenizer: Path, tmp_path: Path
    ) -> None:
        """Windows and legal test-time training are judged by what each target got at first."""
        body, stride, rule = ORDERS[name]
        script = tmp_path / "train_gpt.py"
        script.write_text(evaluating(body, stride), encoding="utf-8")
        report = judge(script, tokenizer)
        assert rule in {*failed(report), ""}, format_report(report)
        assert report.passed == (not rule), format_report(report)
        assert report.ordered == (not rule)
        assert {t.rule for t in report.tests} == {"T1", "T2", "T3", "T4", "T5", "T6"}

    @LONG
    def test_a_leak_fails(self, tokenizer: Path, tmp_path: Path) -> None:
        """What the printed score does not show: the model sees what comes later."""
        old, new = "self.emb(ids).cumsum(1)", "(self.emb(ids).cumsum(1) + self.emb(ids[:, -1:]))"
        report = judge(edited(FOREIGN, tmp_path, old, new), tokenizer)
        assert {"T1"} <= failed(report), format_report(report)

    @LONG
    def test_what_was_not_found_is_named(self, tokenizer: Path, tmp_path: Path) -> None:
        """An evaluation that is named otherwise leaves T5 and T6, and the report says why."""
        script = tmp_path / "train_gpt.py"
        script.write_text(FOREIGN.read_text().replace("eval_val", "score"), encoding="utf-8")
        report = judge(script, tokenizer)
        assert [t.rule for t in report.tests] == ["T5", "T6"]
        assert "no function named as one that evaluates" in report.notes[0]
