"""Reading a score from any script's output."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from autoresearch.config import Config, MetricConfig
from autoresearch.errors import ConfigError, PluginError
from autoresearch.model import Change, Idea
from autoresearch.policies import pattern_metrics
from autoresearch.testing import MetricExtractorContract, run_output


class TestContract(MetricExtractorContract):
    """It is a sound extractor."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin's own class."""
        return pattern_metrics.Plugin


def extract(folder: Path, log: str | bytes, **metric: str) -> dict[str, float] | None:
    """Return what the plugin reads from a log."""
    plugin = pattern_metrics.Plugin()
    config = MetricConfig(**{"name": "accuracy", **metric})
    plugin.configure(Config(preset="plain", metric=config))
    found = plugin.extract_metrics(run_output(folder, log))
    return None if found is None else dict(found)


@pytest.mark.parametrize(
    ("log", "value"),
    [
        ("accuracy=0.91\n", 0.91),
        ("accuracy: 0.91", 0.91),
        ("epoch 3 accuracy = 9.1e-1, loss=3", 0.91),
        ('{"accuracy": 0.91, "loss": 2}', 0.91),
        ("Accuracy: +.91.\n", 0.91),
        ("accuracy=-3", -3.0),
        ("accuracy=1_000", 1000.0),
        ("accuracy=0.91,loss=3", 0.91),
        ("accuracy=0.91\naccuracy=0,93\naccuracy=1,234\n", 0.91),
        ("accuracy=12,345.6", 12345.6),
        ("accuracy=1,234,567", 1234567.0),
        ("accuracy: tensor(0.91, device='cuda:0')", 0.91),
        ("accuracy=np.float64(0.91)", 0.91),
        ("\x1b[32maccuracy=0.91\x1b[0m", 0.91),
        ("accuracy=0.91\ntrain/accuracy=0.5 val/accuracy: 0.4\n", 0.91),
        ("accuracy=0.91\nbest accuracy: 0.95\n", 0.91),
        ("INFO accuracy=0.91\nbest accuracy: 0.95\n", 0.91),
        ("Final accuracy: 0.91\n", 0.91),
        ("accuracy=0.1\r\naccuracy=0.91\r\n", 0.91),
        ("10%\raccuracy=0.5\raccuracy=0.91\r", 0.91),
        ("accuracy=0.1\naccuracy=0.2 accuracy=0.91\nbye\n", 0.91),
        ("accuracy=0.91\nprint(f'accuracy={x}')\n", 0.91),
        ("val_accuracy=0.5\naccuracy=0.91\nval_accuracy=0.6\ntop-accuracy=1", 0.91),
        ("\xff\xfe accuracy=0.91 \x00", 0.91),
    ],
)
def test_the_last_printed_value_counts(tmp_path: Path, log: str, value: float) -> None:
    """Usual ways to print a number are understood, and a longer name is another name."""
    assert extract(tmp_path, log) == {"accuracy": value}


@pytest.mark.parametrize(
    "log", ["", "no score", "accuracy=", "accuracy=high", "val_accuracy=1", "accuracy=1.5.2"]
)
def test_no_number_is_no_metric(tmp_path: Path, log: str) -> None:
    """An absent metric is absent."""
    assert extract(tmp_path, log) is None


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "NaN", "Infinity"])
def test_a_last_value_that_is_not_finite_is_absent(tmp_path: Path, word: str) -> None:
    """A run that ended in NaN did not end with the good number that it printed before."""
    assert extract(tmp_path, f"accuracy=0.9\naccuracy={word}\n") is None


def test_a_missing_log_is_no_metric(tmp_path: Path) -> None:
    """A run that left no output has no score."""
    output = run_output(tmp_path, "accuracy=1")
    output.log_path.unlink()
    plugin = pattern_metrics.Plugin()
    plugin.configure(Config(preset="plain", metric=MetricConfig(name="accuracy")))
    assert plugin.extract_metrics(output) is None


def test_the_size_is_read_too(tmp_path: Path) -> None:
    """A script that prints its artifact's size under the configured name is believed."""
    log = "artifact_bytes: 1234567\naccuracy=0.9\n"
    assert extract(tmp_path, log) == {"accuracy": 0.9, "artifact_bytes": 1234567.0}


@pytest.mark.parametrize(
    ("name", "log", "value"),
    [
        ("val/loss", '{"epoch": 1, "val": {"loss": 0.9}}\n', 0.9),
        ("Acc@1", "Acc@1: 76.1 Acc@10: 93.0 mAcc@1: 3\n", 76.1),
        ("acc", "mean@acc: 3\nacc: 0.5\nacc@5: 0.9\n", 0.5),
        ("val_loss", "step 100 | train_loss 1.0000 | val_loss 1.1360\n", 1.136),
        ("val_acc", "train acc: 0.95\nEpoch 3/3 - val acc: 91.2\n", 91.2),
        ("val_loss", "step 1 | val_loss 1.1 |\nval_loss: 1.3\nstep 2 | val_loss 1.2 |\n", 1.3),
        ("val_loss", "step 1 | val_loss 1.1 |\nstep 2 | val_loss nan |\n", None),
        ("loss", "step 1 | val_loss 1.1 |\n", None),
    ],
)
def test_what_a_line_means_is_read_where_nothing_is_under_the_bare_name(
    tmp_path: Path, name: str, log: str, value: float | None
) -> None:
    """Cells of a table, objects in JSON, two words; a bare name counts before them."""
    assert extract(tmp_path, log, name=name) == (None if value is None else {name: value})


@pytest.mark.parametrize(
    ("shown", "value"), [("1,234.60", 1234.6), ("0,93", None), ("1,005", None), ("nan", None)]
)
def test_a_pattern_may_match_thousands_but_no_decimal_comma(
    tmp_path: Path, shown: str, value: float | None
) -> None:
    """1,234.60 is no 1; what may be either is no score, and neither is nan."""
    found = extract(tmp_path, f"ppl 7\nppl {shown}\n", pattern=r"ppl ([\d.,]+|nan)")
    assert found in (None, {"accuracy": 7.0}) if value is None else found == {"accuracy": value}
    assert (found is None) == (shown == "nan")


def test_a_pattern_replaces_the_usual_forms(tmp_path: Path) -> None:
    """With a pattern only the pattern counts, its last match first."""
    log = "accuracy=0.1\ntop1 0.7 top1 0.8\ntop1 none\n"
    assert extract(tmp_path, log, pattern=r"top1 (\S+)") == {"accuracy": 0.8}


@pytest.mark.parametrize("pattern", ["accuracy (", "accuracy", r"(a)(b)"])
def test_a_pattern_without_exactly_one_group_is_refused(tmp_path: Path, pattern: str) -> None:
    """The error names the pattern and stands before the first run."""
    with pytest.raises(ConfigError, match=r"metric\.pattern"):
        extract(tmp_path, "", pattern=pattern)


@pytest.mark.parametrize(
    ("reader", "read"), [("golf", False), ("", True), ("pattern_metrics", True)]
)
def test_a_metric_with_a_reader_of_its_own_is_left_to_it(
    tmp_path: Path, reader: str, read: bool
) -> None:
    """Two readers would contradict each other, so this one is silent where another is named."""
    plugin = pattern_metrics.Plugin()
    plugin.configure(Config(metric=MetricConfig(name="val_bpb", reader=reader)))
    found = plugin.extract_metrics(run_output(tmp_path, "val_bpb=1.2"))
    assert found == ({"val_bpb": 1.2} if read else None)


def test_a_large_log_costs_little(tmp_path: Path) -> None:
    """Reading starts at the end, and overlong lines are passed over, also across blocks."""
    filler = b"step 1 loss 2\n" * 1_500_000
    log = filler + b"accuracy=0.4\n" + b"x" * 3_000_000 + b" accuracy=0.5\n" + b"done\n" * 400_000
    output = run_output(tmp_path, log)
    begin = time.perf_counter()
    assert pattern_metrics.read(
        output.log_path, {"accuracy": pattern_metrics._printed("accuracy")}
    ) == {"accuracy": 0.4}
    assert time.perf_counter() - begin < 10


def test_a_value_on_the_seam_of_two_blocks_is_whole(tmp_path: Path) -> None:
    """A line that lies across a block's border is put together again."""
    for extra in range(-3, 14):
        tail = b"\n" + b"y" * 998 + b"\n"
        log = b"accuracy=0.1\naccuracy=0.875" + tail * ((1 << 20) // len(tail)) + b"z" * extra
        output = run_output(tmp_path / str(extra), log)
        wanted = {"accuracy": pattern_metrics._printed("accuracy")}
        assert pattern_metrics.read(output.log_path, wanted) == {"accuracy": 0.875}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    """Windows shells redirect into UTF-16, with or without a byte order mark."""
    assert extract(tmp_path, "epoch 1\r\naccuracy=0.91\r\n".encode(encoding)) == {"accuracy": 0.91}


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("accuracy: 0.91\naccuracy: 87.50%\n", "'accuracy: 0.91' and as 'accuracy: 87.50%'"),
        ("[rank0] accuracy=0.9 [rank1] accuracy=0.8\n", "several ranks"),
    ],
)
def test_numbers_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, log: str, reason: str
) -> None:
    """Percent and fraction, or several ranks: the failure says what was printed and what to do."""
    with pytest.raises(PluginError, match=reason) as caught:
        extract(tmp_path, log)
    assert "set metric.pattern" in str(caught.value)


def test_units_of_other_names_do_not_matter(tmp_path: Path) -> None:
    """A word before the name makes it another number."""
    assert extract(tmp_path, "accuracy: 87.50%\nTest accuracy: 0.91\n") == {"accuracy": 87.5}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12.3 MB", 12_300_000),
        ("12.3MB", 12_300_000),
        ("16,000,000 bytes", 16_000_000),
        ("1,234 bytes", 1_234),
        ("1,234", 1_234),
        ("2 MiB", 2 * 2**20),
        ("3 KiB", 3 * 2**10),
        ("812 B", 812),
        ("812", 812),
    ],
)
def test_sizes_may_have_units(tmp_path: Path, text: str, size: int) -> None:
    """What people print for a size is read in bytes."""
    assert extract(tmp_path, f"accuracy=1\nsize: {text}\n", size="size") == {
        "accuracy": 1.0,
        "size": pytest.approx(size),
    }


def test_a_size_in_an_unknown_unit_is_no_size(tmp_path: Path) -> None:
    """Better none than one that is wrong by a thousand."""
    assert extract(tmp_path, "accuracy=1\nsize: 12\nsize: 3 Mbit\nsize: 1 TB\n", size="size") == {
        "accuracy": 1.0,
        "size": 12,
    }


@pytest.mark.parametrize(
    ("script", "refused"),
    [
        ("print('accuracy: 0.99')\n", True),
        ("best = 0.99\nprint(f'accuracy: {best}')\n", True),
        ("best = 0.99\nshown = best\nprint('accuracy:', shown)\n", True),
        ("best = 0.5\nbest += 0.1\nprint(f'accuracy: {best}')\n", False),
        ("def tell(best):\n    print(f'accuracy: {best}')\n", False),
    ],
)
def test_a_score_that_is_a_literal_is_refused(script: str, refused: bool) -> None:
    """A constant is one behind a variable as well; a value that changes is none."""
    plugin = pattern_metrics.Plugin()
    plugin.configure(Config(preset="plain", metric=MetricConfig(name="accuracy")))
    idea = Idea(direction="d", description="d", hypothesis="h")
    before = "accuracy = len('x')\nprint(f'accuracy: {accuracy}')\n"
    change = Change(idea=idea, before=before, after=script, files={"train.py": script})
    assert bool(plugin.audit_change(change)) is refused
