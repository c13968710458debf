"""A job that makes a script answer the model tests, on whatever machine a launcher starts it.

It travels alone: nothing but Python's own library is imported, and what it is to do stands in its
last line. It trains a small network on random tokens and tells, one line for each step, what the
script printed and what its evaluation said of each text; those are judged where it came from.

A script that does not know the protocol is run inside this process, where its evaluation function,
its loss and the tokens among its arguments are found: see `Finder`.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import importlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "model_test_step "
MISSING = "model_test_missing "
_FOLDER = "model_tests"
_EVALUATES = re.compile(r"^_?(eval|evaluate|validate)(_|$)")
_SPAN = 12  # tokens that stand nowhere else, even in the text of 16 ids
_HEADER = struct.Struct("<256i")


def main(plan: dict[str, Any]) -> None:
    """Do what a plan says: its script, texts, networks and the seconds for everything."""
    folder = Path.cwd() / _FOLDER
    folder.mkdir(exist_ok=True)
    if sys.argv[1:2] == ["--find"]:
        Finder(plan, Path(sys.argv[2])).run()
        return
    script = folder / "train_gpt.py"
    script.write_text(plan["source"], encoding="utf-8")
    until = time.monotonic() + plan["seconds"]
    for network in plan["networks"]:
        for told in _network(plan, network, script, folder / network["name"], until):
            print(MARK + json.dumps({"network": network["name"], **told}), flush=True)


def _network(
    plan: dict[str, Any], network: dict[str, Any], script: Path, place: Path, until: float
) -> Iterator[dict[str, Any]]:
    """Train, score and ask one network; a step that fails is the last one."""
    speaks, artifact = plan["speaks"], plan["artifact"]
    data = place / "data"
    data.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, **plan["env"], **network["env"]}
    env["TOKENIZER_PATH"] = os.path.abspath(env["TOKENIZER_PATH"])  # each step has its own folder
    if artifact is None or not speaks:
        for split, text in (("train", network["train"]), ("val", "base")):
            write_shard(data / f"fineweb_{split}_000000.bin", plan["texts"][text])
        finds = not speaks and "torch" in plan["source"]
        words = [__file__, "--find", str(place)] if finds else [str(script)]
        own = {"DATA_PATH": str(data), "RUN_ID": "canary"}
        if finds:
            own |= {"TORCHDYNAMO_DISABLE": "1"}  # compiled code would not see who looks on
        told = _run(words, {**env, **own}, place if not finds else Path.cwd(), place, until)
        made = sorted(place.glob("*.ptz"), key=lambda path: path.stat().st_mtime)
        artifact = str(made[-1]) if made else None
        yield {"step": "run", **told, "artifact": artifact is not None}
        if told["reason"] and not (speaks and network["name"] == "whole"):
            return
    for text in network["asks"]:
        told = _asked(plan, text, script, place, artifact, env, until) if speaks else {"reason": ""}
        answer = place / text / "answer.npz"
        if not told["reason"] and answer.is_file():
            told["answer"] = base64.b64encode(answer.read_bytes()).decode()
        yield {"step": text, **told}
        if told["reason"]:
            return


def _asked(
    plan: dict[str, Any], text: str, script: Path, place: Path, artifact: str | None,
    env: dict[str, str], until: float,
) -> dict[str, Any]:  # fmt: skip
    folder = place / text
    folder.mkdir(exist_ok=True)
    write_shard(folder / "tokens.bin", plan["texts"][text])
    asked = plan["asked"] if text in ("base", "flipped") else []
    asking = request_in(folder, folder / "tokens.bin", artifact, asked)
    told = _run([str(script)], {**env, **asking}, folder, folder, until)
    if not told["reason"] and not (folder / "answer.npz").is_file():
        told["reason"] = "it wrote no answer"
    return told


def request_in(
    folder: Path, tokens: Path, artifact: str | None, asked: Sequence[int] = ()
) -> dict[str, str]:
    """Write the request of a model test; return the variable that gives it to a script.

    The answer will be ``answer.npz`` in the same folder.
    """
    request = {
        "schema": 1,
        "artifact": artifact,
        "tokens": str(tokens),
        "distribution_at": list(asked),
        "output": str(folder / "answer.npz"),
    }
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    return {"MODEL_TEST": str(folder / "request.json")}


def _run(
    words: list[str], env: dict[str, str], cwd: Path, logs: Path, until: float
) -> dict[str, Any]:
    """Run a Python program until it ends or the time is over, and tell what matters of it."""
    reason, output = run_whole(
        [sys.executable, *words], env=env, cwd=cwd, logs=logs, seconds=until - time.monotonic()
    )
    lines = output.splitlines()
    scores = [line for line in lines if "val_bpb" in line]
    missing = [line.removeprefix(MISSING) for line in lines[-1:] if line.startswith(MISSING)]
    return {"reason": reason, "output": "\n".join(scores[-8:]), "missing": "".join(missing)}


def run_whole(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, logs: Path, seconds: float
) -> tuple[str, str]:
    """Run a program with all its children, which end with it or at the deadline.

    Returns why it did not end well, in one line and empty where it did, and its output; that and
    its errors are in files in ``logs``.
    """
    started = time.monotonic()
    with (logs / "stdout.txt").open("wb") as out, (logs / "stderr.txt").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(timeout=max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    output = (logs / "stdout.txt").read_text("utf-8", "replace")
    errors = (logs / "stderr.txt").read_text("utf-8", "replace")
    if code is None:
        return f"not finished after {time.monotonic() - started:.0f} s", output
    last = (errors.strip() or output.strip() or "no output").splitlines()[-1]
    return ("" if code == 0 else f"exit status {code}: {last[:300]}"), output


def write_shard(path: Path, ids: str) -> None:
    """Write a shard of uint16 ids, which are given in base 64."""
    body = base64.b64decode(ids)
    path.write_bytes(_HEADER.pack(20240520, 1, len(body) // 2, *[0] * 253) + body)


class Finder:
    """Runs a script that does not know the protocol, and looks on while it evaluates.

    Whichever function is named as one that evaluates and is given the validation tokens is called
    again with the other texts in their place. What a target got is what the cross entropy said of
    it when it came up first, with gradients or without: a score that is the mean of that was made
    before anything was learnt from its target, and once. The last evaluation counts.
    """

    def __init__(self, plan: dict[str, Any], place: Path) -> None:
        import numpy as np

        torch: Any = importlib.import_module("torch")  # its types would take minutes to read

        self.np, self.torch = np, torch
        self.plan, self.place = plan, place
        self.texts = {
            name: np.frombuffer(base64.b64decode(ids), "<u2").astype(np.int64)
            for name, ids in plan["texts"].items()
        }
        self.asks = next(n["asks"] for n in plan["networks"] if n["name"] == place.name)
        self.seen: dict[int, float] | None = None  # what each target got, by its place in the text
        self.rows: dict[int, Any] = {}  # the distributions that are asked for
        self.ids, self.spans = self.texts["base"], dict[bytes, int]()
        self.lost = 0  # targets that stand nowhere in the text
        self.missing = "no function named as one that evaluates was given the validation tokens"

    def run(self) -> None:
        """Execute the script as a program; what could not be found is told at its end."""
        os.chdir(self.place)
        script = self.place.parent / "train_gpt.py"
        sys.argv = [str(script)]
        functional = self.torch.nn.functional
        functional.cross_entropy = self._watched(functional.cross_entropy)
        names: dict[str, Any] = {"__name__": "__judged__", "__file__": str(script)}
        sys.modules["__judged__"] = sys.modules["__main__"]
        tree = ast.parse(self.plan["source"])
        last = tree.body[-1]
        ends = isinstance(last, ast.If) and "__main__" in ast.unparse(last.test)
        body, end = (tree.body[:-1], last.body) if ends else (tree.body, [])
        try:
            for part in (body, end):
                exec(compile(ast.Module(part, []), str(script), "exec"), names)
                for name, value in list(names.items()):
                    if _EVALUATES.match(name) and callable(value):
                        names[name] = self._again(value)
        finally:  # most of them leave through sys.exit
            if not (self.place / "base" / "answer.npz").is_file():
                print(f"{MISSING}{self.missing}")

    def _watched(self, entropy: Any) -> Any:
        def cross_entropy(input: Any, target: Any, *rest: Any, **named: Any) -> Any:
            if self.seen is not None and input.ndim == 2:
                targets = target.detach().reshape(-1).cpu().numpy().astype(self.np.int64)
                self._see(input.detach().float(), targets, self.seen)
            return entropy(input, target, *rest, **named)

        return cross_entropy

    def _see(self, logits: Any, targets: Any, seen: dict[int, float]) -> None:
        places = self._places(targets)
        self.lost += places.count(-1)
        new = [i for i, place in enumerate(places) if place > 0 and place not in seen]
        logs = logits[new].log_softmax(-1).cpu().numpy()
        for row, i in zip(logs, new, strict=True):
            if places[i] not in seen:
                seen[places[i]] = float(row[targets[i]])
                if places[i] - 1 in self.plan["asked"]:
                    self.rows[places[i] - 1] = row

    def _places(self, targets: Any) -> list[int]:
        """Where in the text targets stand, by the span that begins with each; -1 for nowhere."""
        found, last = [], -2
        for i, target in enumerate(targets):
            whole = i + _SPAN <= len(targets) or i == 0  # what is shorter stands in many places
            place = self.spans.get(targets[i : i + _SPAN].tobytes(), -1) if whole else -1
            if place < 0 < last + 1 < len(self.ids) and self.ids[last + 1] == target:
                place = last + 1  # near the end of a window
            found.append(place)
            last = place if place >= 0 else -2
        return found

    def _again(self, evaluate: Any) -> Any:
        def evaluates(*given: Any, **named: Any) -> Any:
            base = self.texts["base"]
            if self.seen is None and any(map(self._is_base, (*given, *named.values()))):
                try:
                    for text in self.asks:
                        self._answer(text, evaluate, given, named, base)
                except Exception as error:  # another text may be one that it cannot take
                    self.missing = f"its evaluation of another text failed: {error!r:.200}"
            return evaluate(*given, **named)

        return evaluates

    def _is_base(self, value: Any) -> bool:
        same = isinstance(value, self.torch.Tensor) and value.ndim == 1 and not value.is_complex()
        if not same or not 0 < len(self.texts["base"]) - len(value) + 1 <= len(value):
            return False
        return bool((value.cpu().long().numpy() == self.texts["base"][: len(value)]).all())

    def _answer(self, text: str, evaluate: Any, given: Any, named: Any, base: Any) -> None:
        np, ids = self.np, self.texts[text]

        def instead(value: Any) -> Any:
            if not self._is_base(value):
                return value
            tokens = ids[: len(ids) - (len(base) - len(value))]
            return self.torch.from_numpy(tokens.copy()).to(value)

        self.seen, self.rows, self.ids, self.lost = {}, {}, ids, 0
        self.spans = {ids[i : i + _SPAN].tobytes(): i for i in range(len(ids))}
        try:
            with self._kept((*given, *named.values())):
                found = evaluate(*map(instead, given), **{k: instead(v) for k, v in named.items()})
        finally:
            seen, self.seen = self.seen, None
        numbers = [float(n) for n in (found if isinstance(found, tuple) else ())[:2]]
        if len(numbers) < 2:
            self.missing = "its evaluation gave back no loss and score"
            return
        if not seen or (self.lost and len(seen) < len(ids) - 1):
            self.missing = (
                f"the loss saw {len(seen)} of {len(ids) - 1} targets, {self.lost} elsewhere"
            )
            return
        asked = sorted(self.rows) if text in ("base", "flipped") else []
        loss, bpb = numbers
        (self.place / text).mkdir(exist_ok=True)
        np.savez(
            self.place / text / "answer.npz",
            log_probs=np.array(list(seen.values())),
            positions=np.array(list(seen)),
            distributions=np.stack([self.rows[i] for i in asked]) if asked else np.zeros((0, 1)),
            distribution_positions=np.array(asked, dtype=np.int64) + 1,
            val_loss=loss,
            val_bpb=bpb,
            val_tokens=len(seen),
            val_bytes=round(len(seen) * loss / (np.log(2.0) * bpb)) if bpb > 0 else 0,
        )

    @contextlib.contextmanager
    def _kept(self, given: Sequence[Any]) -> Iterator[None]:
        """Leave networks and chance as they were: an evaluation may learn from what it scored."""
        whole = [value for value in given if isinstance(value, self.torch.nn.Module)]
        weights = [{k: v.clone() for k, v in module.state_dict().items()} for module in whole]
        parts = [(part, part.training) for module in whole for part in module.modules()]
        learning = [(p, p.requires_grad) for module in whole for p in module.parameters()]
        chance = self.torch.get_rng_state()
        try:
            yield
        finally:
            self.torch.set_rng_state(chance)
            for module, held in zip(whole, weights, strict=True):
                module.load_state_dict(held)
            for part, training in parts:
                part.training = training
            for parameter, asked in learning:
                parameter.requires_grad_(asked).grad = None
