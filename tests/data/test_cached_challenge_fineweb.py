"""The downloader against a loopback hub, through the real client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

DATASET = "datasets/fineweb10B_sp1024"
VAL = f"{DATASET}/fineweb_val_000000.bin"
TRAIN = f"{DATASET}/fineweb_train_000000.bin"
MODEL = "tokenizers/fineweb_1024_bpe.model"


def remote(path: str) -> str:
    return f"datasets/{path}"


def visible(data: Path) -> list[str]:
    names = (p.relative_to(data).as_posix() for p in data.rglob("*") if p.is_file())
    return sorted(name for name in names if not Path(name).name.startswith("."))


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """One line on stderr, exit code 1, no traceback."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


def start_and_reach(hub: Any, online: Any) -> subprocess.Popen[str]:
    """Start a download of one shard and wait until its transfer, held by the hub, has begun."""
    hub.hold[remote(TRAIN)] = threading.Event()
    words = ("--data-dir", online.folder / "data", "--train-shards", 1)
    process = subprocess.Popen(
        online.command("cached_challenge_fineweb.py", *words),
        env=online.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 30
    while "fineweb_train_000000.bin" not in hub.transfers() and time.monotonic() < until:
        time.sleep(0.02)
    return process


def test_a_full_run_brings_everything_in_the_order_of_the_challenge(hub: Any, online: Any) -> None:
    """Manifest, then validation, then training, then the tokenizer; each transferred once."""
    hub.publish(train=3, val=2)
    done = online.download("--variant", "sp1024", "--train-shards", 2)
    assert done.returncode == 0, done.stderr
    assert visible(online.folder / "data") == [
        f"{DATASET}/fineweb_train_000000.bin",
        f"{DATASET}/fineweb_train_000001.bin",
        f"{DATASET}/fineweb_val_000000.bin",
        f"{DATASET}/fineweb_val_000001.bin",
        "manifest.json",
        "tokenizers/fineweb_1024_bpe.model",
        "tokenizers/fineweb_1024_bpe.vocab",
    ]
    kinds = [name.split("_0")[0] for name in hub.transfers()]
    assert kinds[:5] == ["manifest.json", *["fineweb_val"] * 2, *["fineweb_train"] * 2]
    assert sorted(kinds[5:]) == ["fineweb_1024_bpe.model", "fineweb_1024_bpe.vocab"]
    assert "2 train shards of 200 tokens, 2 validation shards of 200 tokens" in done.stdout


def test_the_volume_of_modal_is_filled_by_the_same_script(hub: Any, online: Any) -> None:
    """The function of modal_train.py, run here: what was cut short is never taken for whole."""
    pytest.importorskip("modal")
    hub.publish()
    fill = "import sys, pathlib, modal_train as m; m.DATA = pathlib.Path(sys.argv[1]); "
    fill += "m.prepare_data.local('sp1024', int(sys.argv[2]))"
    ended = []
    partial = online.folder / "data" / f"{DATASET}.partial"
    for shards in ("1", "9"):
        command = [sys.executable, "-W", "ignore", "-c", fill, str(online.folder / "data"), shards]
        ended.append(subprocess.run(
            command, cwd=Path(__file__).parents[2], env=online.environment, capture_output=True,
            text=True, timeout=120, check=False,
        ))  # fmt: skip
        assert partial.exists() == (shards == "9")
    assert [item.returncode for item in ended] == [0, 1], ended[0].stderr
    assert f"{DATASET}/fineweb_train_000000.bin" in visible(online.folder / "data")
    assert "the data could not be fetched (exit code 1); run it again" in ended[1].stderr


def test_a_second_run_asks_the_hub_for_nothing(hub: Any, online: Any) -> None:
    """Whole files are kept, and the manifest is never refreshed."""
    hub.publish()
    assert online.download(1).returncode == 0
    hub.asked.clear()
    hub.files.clear()
    assert online.download(1).returncode == 0
    assert hub.asked == []


def test_the_hidden_positional_number_wins_over_the_flag(hub: Any, online: Any) -> None:
    """`2 --train-shards 1` means two shards."""
    hub.publish(train=2)
    assert online.download(2, "--train-shards", 1).returncode == 0
    assert (online.folder / "data" / DATASET / "fineweb_train_000001.bin").exists()


def test_zero_train_shards_bring_validation_and_tokenizer(hub: Any, online: Any) -> None:
    """Evaluating needs no training data."""
    hub.publish()
    assert online.download("--train-shards", 0).returncode == 0
    present = visible(online.folder / "data")
    assert VAL in present
    assert MODEL in present
    assert not any("train" in name for name in present)


def test_another_repository_and_root_come_from_the_environment(hub: Any, online: Any) -> None:
    """Community exports have the same layout elsewhere, also at the top of a repository."""
    hub.publish(train=1)
    hub.repository = "someone/export"
    hub.files = {path.removeprefix("datasets/"): body for path, body in hub.files.items()}
    more = {"MATCHED_FINEWEB_REPO_ID": "someone/export", "MATCHED_FINEWEB_REMOTE_ROOT_PREFIX": ""}
    done = online.download(1, **more)
    assert done.returncode == 0, done.stderr
    assert (online.folder / "data" / TRAIN).exists()


def test_documents_come_with_their_sidecar_before_the_shards(hub: Any, online: Any) -> None:
    """--with-docs fetches both files into the data folder itself."""
    hub.publish()
    for name in ("docs_selected.jsonl", "docs_selected.source_manifest.json"):
        hub.files[remote(name)] = name.encode()
    assert online.download(0, "--with-docs").returncode == 0
    assert (online.folder / "data" / "docs_selected.source_manifest.json").exists()
    names = hub.transfers()
    assert names.index("docs_selected.jsonl") < names.index("fineweb_val_000000.bin")


def test_files_are_hard_links_to_the_cache_of_the_client(hub: Any, online: Any) -> None:
    """16 GB of shards take 16 GB, not 32."""
    hub.publish()
    assert online.download(1).returncode == 0
    assert (online.folder / "data" / TRAIN).stat().st_nlink == 2


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no second file system to copy from")
def test_a_cache_on_another_disk_is_copied_from(hub: Any, online: Any, tmp_path: Path) -> None:
    """Where linking fails the file is copied, and is as whole."""
    import tempfile

    hub.publish()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as cache:
        if os.stat(cache).st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm is on the same file system")
        assert online.download(1, HF_HOME=cache).returncode == 0
    placed = online.folder / "data" / TRAIN
    assert placed.stat().st_nlink == 1
    assert placed.read_bytes() == hub.files[remote(TRAIN)]


def test_a_broken_connection_is_resumed_where_it_broke(
    hub: Any, online: Any, make_shard: Any, make_manifest: Any
) -> None:
    """The client asks for the missing range, and the file ends up identical."""
    hub.publish(train=1)
    tokens = 7_000_000
    published = make_manifest(1)
    published["shard_size"] = tokens
    hub.files[remote("manifest.json")] = json.dumps(published).encode()
    hub.files[remote(TRAIN)] = make_shard(tokens)
    hub.cut_once[remote(TRAIN)] = 12_000_000
    done = online.download(1)
    assert done.returncode == 0, done.stderr
    assert any(span.startswith("bytes=1") for _, path, span in hub.asked if path == remote(TRAIN))
    assert (online.folder / "data" / TRAIN).read_bytes() == hub.files[remote(TRAIN)]


def test_a_kill_in_the_middle_leaves_no_file_and_the_next_run_ends_it(
    hub: Any, online: Any
) -> None:
    """SIGKILL during a transfer: nothing under the final name, validation kept, then whole."""
    hub.publish(train=1)
    process = start_and_reach(hub, online)
    process.kill()
    process.communicate()
    data = online.folder / "data"
    assert not (data / TRAIN).exists()
    assert (data / VAL).exists()
    hub.hold.pop(remote(TRAIN)).set()
    hub.asked.clear()
    assert online.download(1).returncode == 0
    assert (data / TRAIN).read_bytes() == hub.files[remote(TRAIN)]
    assert "fineweb_val_000000.bin" not in hub.transfers()


def test_an_interrupt_ends_the_run_with_one_line(hub: Any, online: Any) -> None:
    """Ctrl-C in a stalled transfer: exit code 130 within seconds, nothing half placed."""
    hub.publish(train=1)
    process = start_and_reach(hub, online)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=15)
    assert process.returncode == 130
    assert said == "error: interrupted; run the same command again to go on\n"
    assert not (online.folder / "data" / TRAIN).exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("cut", "1124 bytes, expected 1224 for its 100 tokens"),
        ("magic", "it starts with 1, a shard starts with 20240520"),
        ("version", "shard version 2, expected 1"),
        ("empty", "0 bytes are fewer than a shard's header of 1024"),
    ],
)
def test_a_wrong_shard_on_the_hub_is_never_placed(
    hub: Any, online: Any, make_shard: Any, body: str, words: str
) -> None:
    """A published file that is cut short or is no shard ends the run with one line."""
    hub.publish(train=1)
    hub.files[remote(TRAIN)] = {
        "cut": make_shard(100)[:-100],
        "magic": make_shard(100, magic=1),
        "version": make_shard(100, version=2),
        "empty": b"",
    }[body]
    line = refused(online.download(1))
    assert words in line
    assert remote(TRAIN) in line
    assert not (online.folder / "data" / TRAIN).exists()


def test_a_truncated_file_that_is_already_here_is_set_right(hub: Any, online: Any) -> None:
    """The hard-linked cache copy is damaged too, so the bytes come from the hub again."""
    hub.publish()
    assert online.download(1).returncode == 0
    placed = online.folder / "data" / VAL
    os.truncate(placed, 700)
    hub.asked.clear()
    done = online.download(1)
    assert done.returncode == 0, done.stderr
    assert "is damaged (700 bytes" in done.stdout
    assert placed.read_bytes() == hub.files[remote(VAL)]
    assert hub.transfers() == ["fineweb_val_000000.bin"]


def test_validation_shorter_than_the_manifest_says_is_refused(
    hub: Any, online: Any, make_shard: Any
) -> None:
    """A whole shard with too few tokens is still a partial validation split."""
    hub.publish()
    hub.files[remote(VAL)] = make_shard(60)
    line = refused(online.download(1))
    assert "has 60 tokens, its manifest says 100" in line
    assert not (online.folder / "data" / TRAIN).exists()


def test_a_dangling_link_gives_way_to_the_file(hub: Any, online: Any) -> None:
    """Links into a cache that was cleared are replaced."""
    hub.publish()
    placed = online.folder / "data" / VAL
    placed.parent.mkdir(parents=True)
    placed.symlink_to(online.folder / "gone")
    assert online.download(0).returncode == 0
    assert not placed.is_symlink()
    assert placed.is_file()


def test_a_folder_in_the_place_of_a_file_is_named(hub: Any, online: Any) -> None:
    """What is in the way is not deleted."""
    hub.publish()
    (online.folder / "data" / VAL).mkdir(parents=True)
    assert "is not a file; move it away" in refused(online.download(0))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train-shards", "-1"], "--train-shards -1 is negative"),
        (["--variant", "sp"], "unknown variant 'sp'"),
        (["--variant", "gpt2"], "unknown variant 'gpt2'"),
        (["--variant", "byte261"], "unknown variant 'byte261'"),
        (["--workers", "0"], "--workers 0 is below 1"),
        (["--skip-manifest"], "run without --skip-manifest"),
    ],
)
def test_values_that_cannot_work_are_refused_offline(
    scripts: Any, words: list[str], said: str
) -> None:
    """One line, exit code 1, without asking the hub."""
    assert said in refused(scripts.download(*words))


def test_more_train_shards_than_exist_are_refused_with_the_number_there_is(
    hub: Any, online: Any
) -> None:
    """Nothing is downloaded but the manifest."""
    hub.publish(train=2)
    line = refused(online.download(3))
    assert "3 train shards asked, fineweb10B_sp1024 has 2; give --train-shards 2 or fewer" in line
    assert visible(online.folder / "data") == ["manifest.json"]


def test_a_stale_manifest_is_used_and_named_when_it_does_not_fit(hub: Any, online: Any) -> None:
    """A manifest of another export stays until somebody deletes it, and the error says so."""
    hub.publish()
    data = online.folder / "data"
    data.mkdir()
    (data / "manifest.json").write_text('{"datasets": [{"name": "fineweb10B_sp8192"}]}')
    line = refused(online.download(1))
    assert "no fineweb10B_sp1024 among its datasets (it has: fineweb10B_sp8192)" in line
    assert "delete that file if it is stale" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokenizers": []}, "no sp_bpe_1024 among its tokenizers (it has: none)"),
        ({"tokenizers": [{"name": "sp_bpe_1024", "path": ""}]}, "tokenizer sp_bpe_1024 names no"),
        (
            {"tokenizers": [{"name": "sp_bpe_1024", "path": "../../evil"}]},
            "../../evil lies outside the data folder",
        ),
        (
            {"datasets": [{"name": "fineweb10B_sp1024", "tokenizer_name": "sp_bpe_1024"}]},
            "has no usable stats",
        ),
        ({"datasets": None}, "it has no list of datasets"),
    ],
)
def test_a_manifest_with_a_hole_is_refused(
    scripts: Any, make_manifest: Any, change: dict[str, Any], said: str
) -> None:
    """The error names the manifest, the missing entry and what to do."""
    data = scripts.folder / "data"
    data.mkdir()
    (data / "manifest.json").write_text(json.dumps(make_manifest(1, **change)))
    line = refused(scripts.download("--skip-manifest"))
    assert said in line
    assert "manifest.json" in line


def test_a_manifest_without_validation_is_refused(scripts: Any, make_manifest: Any) -> None:
    """Validation is never partial, so it is never empty."""
    data = scripts.folder / "data"
    data.mkdir()
    (data / "manifest.json").write_text(json.dumps(make_manifest(1, val=0)))
    assert "has 0 validation shards" in refused(scripts.download())


def test_a_missing_repository_is_named_with_the_way_to_choose_another(
    hub: Any, online: Any
) -> None:
    """404 for the repository: one line."""
    line = refused(online.download(MATCHED_FINEWEB_REPO_ID="nobody/nothing"))
    assert "no dataset repository nobody/nothing" in line
    assert "MATCHED_FINEWEB_REPO_ID" in line


def test_a_gated_repository_is_named_with_the_way_in(hub: Any, online: Any) -> None:
    """Asking for access is something the person must do."""
    hub.gated = True
    assert "asks for access; request it, then run: hf auth login" in refused(online.download())


def test_a_missing_file_is_named_with_its_repository(hub: Any, online: Any) -> None:
    """404 for one shard: one line, and what came before it stays."""
    hub.publish(train=2)
    del hub.files[remote(f"{DATASET}/fineweb_train_000001.bin")]
    line = refused(online.download(2))
    assert "has no datasets/datasets/fineweb10B_sp1024/fineweb_train_000001.bin" in line
    assert (online.folder / "data" / VAL).exists()


def test_a_word_that_is_no_repository_is_refused(scripts: Any) -> None:
    """The client's own check of names becomes one line."""
    assert "owner/name" in refused(scripts.download(MATCHED_FINEWEB_REPO_ID="a b"))


def test_two_downloads_into_one_folder_take_turns(hub: Any, online: Any) -> None:
    """The second waits and then finds everything there: each file is transferred once."""
    hub.publish(train=2)
    words = ("--data-dir", online.folder / "data", "--train-shards", 2)
    both = [
        subprocess.Popen(
            online.command("cached_challenge_fineweb.py", *words),
            env=online.environment,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    names = hub.transfers()
    assert len(names) == len(set(names))
