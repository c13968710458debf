"""The dynamic checks over a finished run: what it says, what its files say, what is plausible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autoresearch.errors import AutoresearchError
from autoresearch.golf import plausibility
from autoresearch.golf.measure import compare_clocks, compare_run, measure_run
from autoresearch.golf.plausibility import broken, doubt
from autoresearch.golf.reading.own_result import OwnResult
from autoresearch.history import History
from autoresearch.model import Experiment, RunOutput, Violation

ARTIFACT = "final_model.int8.ptz"


def judge_run(
    result: OwnResult, experiment: Experiment, output: RunOutput, history: History
) -> Iterator[Violation]:
    """Yield what is wrong with a result beside the baseline's, the clocks and the commit."""
    yield from compare_clocks(result, output.seconds)
    baseline = history.baseline
    known = baseline.metrics if baseline and experiment.number else {}
    if "val_tokens" in known:
        yield from plausibility.validation_tokens(result.val_tokens, int(known["val_tokens"]))
    expected = int(known.get("val_bytes", result.val_bytes))
    yield from plausibility.conservation(
        result.val_tokens, result.val_loss, result.val_bpb, expected
    )
    if experiment.source_digest and result.code_digest != experiment.source_digest:
        stated, committed = {"script": result.code_digest}, {"script": experiment.source_digest}
        yield from plausibility.same_digests(stated, committed)


def measure(result: OwnResult, output: RunOutput, limit: int) -> Iterator[Violation]:
    """Yield where the files of a local run are not what its script says; ``limit`` in bytes."""
    places = _places(output)
    if places is None:
        yield from broken("D6", f"the run left no {ARTIFACT} that could be measured")
        return
    script, artifact, data_dir, tokenizer = places
    try:
        measured = measure_run(
            script=script, artifact=artifact, data_dir=data_dir, tokenizer=tokenizer, env=output.env
        )
    except AutoresearchError as error:
        yield from broken("D6", f"the run cannot be measured: {error}")
        return
    yield from compare_run(measured, result, limit=limit)


def score_again(result: OwnResult, output: RunOutput) -> Iterator[Violation]:
    """Yield D7 where the artifact alone does not give the score, in a process of our own."""
    from autoresearch.golf.trials.protocol import NoAnswerError
    from autoresearch.golf.trials.reload import check_reload, reload_score

    places = _places(output)
    if places is None:
        return
    script, artifact, data_dir, tokenizer = places
    try:
        again = reload_score(
            script=script, artifact=artifact, data_dir=data_dir, tokenizer=tokenizer, env=output.env
        )
    except NoAnswerError as error:
        yield from broken("D7", f"the artifact alone gives no score: {error}")
        return
    except AutoresearchError as error:
        yield from doubt("D7", f"the artifact could not be scored again: {error}")
        return
    yield from check_reload(result.val_bpb, again)


def _places(output: RunOutput) -> tuple[Path, Path, Path, Path] | None:
    artifact = output.folder / ARTIFACT
    data, tokenizer = output.env.get("DATA_PATH"), output.env.get("TOKENIZER_PATH")
    if output.script_path is None or not artifact.is_file() or not data or not tokenizer:
        return None
    return output.script_path, artifact, Path(data), Path(tokenizer)
