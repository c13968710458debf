"""Campaigns that start from scripts as public records have them, not from the starter."""

from __future__ import annotations

import base64
import bz2
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Idea, Verdict
from autoresearch.golf.packing import MARK, adopted, packed_bytes, unpacked
from autoresearch.testing import make_project
from autoresearch.testing.builders import git

# What three families of records print, train and write; a table stands in for their network, and
# the seconds that it sleeps for their GPUs.
SLIDING = """
import glob, io, lzma, math, os, time
RATE = float(os.environ.get("MATRIX_LR", 0.04))
started = time.perf_counter()
loss = 2.0 + (RATE - 0.06) ** 2 * 100
for step in range(1, 6):
    time.sleep(0.01)
    spent = 1000 * (time.perf_counter() - started)
    print(f"step:{step}/5 train_loss:{loss + 1 / step:.4f} train_time:{spent:.0f}ms step_avg:1.0ms")
with open("final_model.int6.xz", "wb") as file:
    file.write(lzma.compress(os.urandom(3000)))
model, code = os.path.getsize("final_model.int6.xz"), os.path.getsize(__file__)
print(f"Serialized model int6+lzma: {model} bytes")
print(f"Code size: {code} bytes")
print(f"Total submission size int6+lzma: {model + code} bytes")
def eval_val(loss):
    return loss, loss / math.log(2) * 0.41
val_loss, val_bpb = eval_val(loss + 0.02)
print(f"final_int6_roundtrip_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
val_loss, val_bpb = eval_val(loss)
print(f"final_int6_sliding_window_exact stride:64 val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
"""
LEGAL = (
    SLIDING.replace("final_int6_sliding_window_exact stride:64", "legal_ttt_exact")
    .replace("final_model.int6.xz", "final_model.ptz")
    .replace("int6+lzma", "int6+zlib")
    .replace("lzma", "zlib")
)
PHASED = (
    SLIDING.replace("final_int6_roundtrip_exact", "diagnostic quantized")
    .replace("final_int6_sliding_window_exact stride:64", "quantized_ttt_phased")
    .replace("int6+lzma", "quantized+bz2")
    .replace("lzma", "bz2")
)


def in_lzma(text: str) -> str:
    """Pack as the smallest records do."""
    filters = [{"id": lzma.FILTER_LZMA2}]
    body = base64.b85encode(lzma.compress(text.encode(), format=lzma.FORMAT_RAW, filters=filters))
    return (
        f'import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("{body.decode()}"),'
        'format=L.FORMAT_RAW,filters=[{"id":L.FILTER_LZMA2}]))\n'
    )


def in_zlib(text: str) -> str:
    """Pack with a name for the literal and a compiled text."""
    body = base64.b64encode(zlib.compress(text.encode())).decode()
    return (
        f'from zlib import decompress\nimport base64\nDATA = b"{body}"\n'
        'exec(compile(decompress(base64.b64decode(DATA)).decode(), "train_gpt.py", "exec"))\n'
    )


def in_bz2(text: str) -> str:
    """Pack in a third way."""
    return f"import bz2\nexec(bz2.decompress({bz2.compress(text.encode())!r}))\n"


@pytest.mark.parametrize("pack", [in_lzma, in_zlib, in_bz2, lambda text: in_zlib(in_lzma(text))])
def test_packed_text_is_found_without_running_it(pack: Callable[[str], str]) -> None:
    """Through every codec and layer, the text comes out as it went in."""
    assert unpacked(pack(SLIDING)) == SLIDING


@pytest.mark.parametrize(
    "source",
    [
        SLIDING,
        "exec(open('other.py').read())\n",
        "import zlib\nexec(zlib.decompress(fetch()))\n",
        in_lzma(SLIDING) + "print('more')\n",
        "def broken(:\n",
        'import zlib\nexec(zlib.decompress(b"not compressed"))\n',
    ],
)
def test_what_does_more_than_unpack_stays_as_it_is(source: str) -> None:
    """A script that is not all packed, or not packed at all, is edited as it is."""
    assert unpacked(source) is None


def test_a_small_blob_cannot_fill_the_memory() -> None:
    """What is unpacked is bounded, whatever the blob says."""
    bomb = in_zlib("#" * 50_000_000)
    assert len(bomb) < 100_000
    assert len(unpacked(bomb) or "") <= 4_000_000


def test_packed_again_it_has_the_size_of_the_smallest_records() -> None:
    """The mark of the unpacked text does not count."""
    source = (Path(__file__).parents[2] / "train_gpt.py").read_text(encoding="utf-8")
    packed = in_lzma(source)
    assert abs(packed_bytes(adopted(packed) or "") - len(packed)) < 100


def edited(before: str, after: str) -> type:
    """A generator that makes one edit of the script."""

    class Editor:
        @autoresearch.hookimpl
        def propose_idea(self, source: str) -> Idea | None:
            if before not in source:
                return None
            changed = source.replace(before, after)
            return Idea(direction="rate", description="rate", hypothesis="faster", source=changed)

    return Editor


def campaign(
    folder: Path, script: str, plugin: object, **beside: str
) -> tuple[autoresearch.Campaign, list[str]]:
    """A campaign of two experiments that starts from a script, and what it told.

    With files ``beside`` it, the first of them is what runs and is given the script.
    """
    project = make_project(folder, settings="", files={"train_gpt.py": script, **beside})
    told: list[str] = []
    settings = {
        "preset": "golf", "launcher": "local", "script": "train_gpt.py", "data": [],
        "in_scope": ["train_gpt.py"], "cwd": ".",
        "command": ["{python}", *list(beside)[:1], "{script}"],
    }  # fmt: skip
    plugins = (plugin, "no:script_ideas", "no:catalogue")
    begun = autoresearch.start(
        project, tag="t1", overrides=settings, plugins=plugins, tell=told.append
    )
    begun.run(2, plugins=plugins, wait=False, tell=told.append)
    return begun, told


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (SLIDING, "final_int6_sliding_window"),
        (LEGAL, "legal_ttt"),
        (in_lzma(PHASED), "quantized_ttt_phased"),
    ],
    ids=["sliding", "legal", "packed"],
)
def test_a_campaign_from_a_record_reaches_a_kept_experiment(
    script: str, line: str, tmp_path: Path
) -> None:
    """The score is found, the edit passes the audit, and a better score is kept."""
    project = tmp_path / "project"
    edit = edited('"MATRIX_LR", 0.04', '"MATRIX_LR", 0.05')
    begun, told = campaign(project, script, edit())
    first, second = begun.history.experiments
    assert [first.verdict, second.verdict] == [Verdict.KEEP, Verdict.KEEP], told
    assert first.measurement["score"] == second.measurement["score"] == line
    assert any(f"the line {line!r}" in text for text in told)
    # The stand-in for the weights is of 3,000 random bytes, which no codec makes smaller.
    assert first.metrics["artifact_bytes"] - len(script) == pytest.approx(3200, abs=400)
    head = git(project, "show", "autoresearch/t1:train_gpt.py")
    assert head.startswith(MARK) == (unpacked(script) is not None)
    assert (project / "train_gpt.py").read_text(encoding="utf-8") == script
