"""The remote function of modal_train.py, run here: its body, its app, and the way in."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autoresearch.launchers.modal import Settings

# The client says so of every local call of a function with volumes; here a folder stands for them.
pytestmark = pytest.mark.filterwarnings("ignore:The train function is executing locally")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "modal_train.py"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A folder in the place of the volume that keeps runs."""
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def modal_train(volume: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, imported as Modal imports it, with `volume` as its volume."""
    pytest.importorskip("modal")
    spec = importlib.util.spec_from_file_location("modal_train", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RUNS", volume)
    return module


def order(source: str, **changes: Any) -> str:
    given = {
        "name": "night-1-0",
        "script": "train_gpt.py",
        "source": source,
        "command": [sys.executable, "train_gpt.py"],
        "env": {},
        "timeout_seconds": 30,
        "max_log_bytes": 1_000_000,
        "keep": ["final_model.int8.ptz"],
    }
    return json.dumps({**given, **changes})


def carry_out(modal_train: ModuleType, asked: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(modal_train.train.local(asked))
    return answer


def test_a_script_runs_and_everything_is_kept(
    modal_train: ModuleType, volume: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Output goes to the caller and the volume; the verdict and the model stay in the volume."""
    source = (
        "import os, sys\nprint('val_bpb:1.2', os.environ['ITERATIONS'])\n"
        "print('to stderr', file=sys.stderr)\nopen('final_model.int8.ptz', 'wb').write(b'abc')\n"
    )
    found = carry_out(modal_train, order(source, env={"ITERATIONS": "20"}))
    assert (found["status"], found["exit_code"], found["detail"]) == ("completed", 0, "")
    kept = volume / "night-1-0"
    assert (kept / "run.log").read_text() == "val_bpb:1.2 20\nto stderr\n"
    assert (kept / "final_model.int8.ptz").read_bytes() == b"abc"
    assert json.loads((kept / "outcome.json").read_text()) == found
    assert capfd.readouterr().out == "val_bpb:1.2 20\nto stderr\n"


def test_a_name_runs_once(modal_train: ModuleType, volume: Path) -> None:
    """An order whose verdict is in the volume is answered from there."""
    first = carry_out(modal_train, order("print('once')"))
    (volume / "night-1-0" / "run.log").unlink()
    assert carry_out(modal_train, order("print('once')")) == first
    assert not (volume / "night-1-0" / "run.log").exists()


def test_a_name_belongs_to_one_script(modal_train: ModuleType) -> None:
    """A verdict of another script under the same name is not passed off as this one's."""
    carry_out(modal_train, order("print('first')"))
    found = carry_out(modal_train, order("print('second')"))
    assert found["status"] == "refused"
    assert "the run 'night-1-0' was started with script" in found["detail"]
    assert found["detail"].endswith("; use another tag")


@pytest.mark.parametrize(
    ("source", "status", "code", "detail"),
    [
        ("raise SystemExit(3)", "crashed", 3, "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "crashed", -11, "killed by signal 11"),
        ("while True: print('x' * 9999)", "crashed", None, "printed more than 1000000 bytes"),
    ],
)
def test_a_script_that_fails(
    modal_train: ModuleType, source: str, status: str, code: int | None, detail: str
) -> None:
    """Exit codes, signals and floods are crashes with their reason."""
    found = carry_out(modal_train, order(source))
    assert (found["status"], found["exit_code"], found["detail"]) == (status, code, detail)


def test_a_script_that_hangs(
    modal_train: ModuleType, volume: Path, alive: Callable[[int], bool]
) -> None:
    """At the deadline the command and its children are killed, own sessions or not."""
    source = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    began = time.monotonic()
    found = carry_out(modal_train, order(source, timeout_seconds=1.0))
    assert time.monotonic() - began < 20
    assert (found["status"], found["exit_code"]) == ("timed_out", None)
    assert found["detail"] == "killed at its deadline of 1 seconds"
    child = int((volume / "night-1-0" / "run.log").read_text())
    while alive(child):
        assert time.monotonic() < began + 20
        time.sleep(0.02)


STEP = "step:1/9 train_loss:7.1"
FINAL = "final_int8_zlib_roundtrip_exact val_loss:2.1 val_bpb:1.2244"


@pytest.mark.parametrize(
    ("lines", "status", "detail"),
    [
        (["warmup_step:1/20"], "timed_out", "killed at its deadline of 2.5 seconds"),
        ([STEP], "timed_out", "killed 1 seconds after its first training step"),
        ([STEP, "step:9/9 val_loss:2 val_bpb:1.3"], "timed_out", "killed 1 seconds after its "),
        ([STEP, FINAL], "completed", "killed 1 seconds after its first training step, its score "),
    ],
)
def test_the_deadline_counts_from_the_first_training_step(
    modal_train: ModuleType, lines: list[str], status: str, detail: str
) -> None:
    """What comes before has a limit of its own, and a printed score is not lost by a kill."""
    shown = "".join(f"print({line!r}, flush=True)\n" for line in lines)
    source = f"import time\ntime.sleep(0.2)\n{shown}time.sleep(60)\n"
    began = time.monotonic()
    found = carry_out(modal_train, order(source, timeout_seconds=1.0, before_seconds=1.5))
    taken = time.monotonic() - began
    assert (found["status"], found["exit_code"]) == (status, None)
    assert found["detail"].startswith(detail)
    assert (taken > 2.4) if lines[0] != STEP else (1.1 < taken < 2.4)


def test_a_line_may_come_in_two_pieces(modal_train: ModuleType) -> None:
    """The score is seen, and the middle of a line is no line."""
    source = (
        "import sys, time\n"
        "for part in ('x' * 5000 + 'step:1/9', '\\nfinal_int8 val_loss:2 val', '_bpb:1.2244 t'):\n"
        "    sys.stdout.write(part); sys.stdout.flush(); time.sleep(0.3)\n"
        "time.sleep(60)\n"
    )
    found = carry_out(modal_train, order(source, timeout_seconds=0.5, before_seconds=1.0))
    assert (found["status"], found["val_bpb"]) == ("completed", 1.2244)
    assert found["detail"] == "killed at its deadline of 1.5 seconds, its score was printed"


def test_data_are_near_and_compilations_are_kept(
    modal_train: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A campaign's data set is looked for by its name, copied to the disk, and missed in a line."""
    monkeypatch.setattr(modal_train.modal, "is_local", lambda: False)
    monkeypatch.setattr(modal_train, "DATA", tmp_path)
    shards = tmp_path / "datasets" / "fineweb10B_sp8192"
    asked = {"env": {"DATA_PATH": "/home/me/datasets/fineweb10B_sp8192", "SEED": "7"}}
    with pytest.raises(OSError, match=r"fineweb10B_sp8192; fill the volume: modal run .*prepare"):
        modal_train.environment(asked)
    shards.mkdir(parents=True)
    (shards / "fineweb_val_000000.bin").write_bytes(b"abc")
    partial = shards.with_name("fineweb10B_sp8192.partial")
    partial.touch()
    with pytest.raises(OSError, match=r"no whole .*fineweb10B_sp8192; fill the volume"):
        modal_train.environment(asked)
    partial.unlink()
    seen = modal_train.environment(asked)
    assert Path(seen["DATA_PATH"]).parent != shards.parent
    assert (Path(seen["DATA_PATH"]) / "fineweb_val_000000.bin").read_bytes() == b"abc"
    assert seen["TOKENIZER_PATH"] == str(tmp_path / "tokenizers" / "fineweb_1024_bpe.model")
    assert seen["TORCHINDUCTOR_CACHE_DIR"] == "/cache/inductor"
    assert seen["TRITON_CACHE_DIR"] == "/cache/triton"
    assert (seen["RELOAD_CHECK"], seen["SEED"]) == ("0", "7")
    beside = modal_train.environment({**asked, "beside": "night-1-0"})
    assert beside["DATA_PATH"] == str(shards)
    typed = modal_train.environment({**asked, "typed": {"DATA_PATH": "/x", "RELOAD_CHECK": "1"}})
    assert (typed["DATA_PATH"], typed["RELOAD_CHECK"]) == ("/x", "1")


def test_machines_are_asked_for_with_their_cores_and_memory(modal_train: ModuleType) -> None:
    """Unasked, Modal gives an eighth of a core and 128 MiB."""
    asked = modal_train.train._spec_
    assert (asked.cpu, asked.memory) == (16.0, 65_536)
    assert list(asked.volumes) == ["/data", "/runs", "/cache"]


def test_a_script_that_closes_its_output(modal_train: ModuleType) -> None:
    """The end of the output is not the end of the script."""
    source = "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(0.5)\nos._exit(4)\n"
    assert carry_out(modal_train, order(source))["exit_code"] == 4


def test_a_command_that_does_not_exist(modal_train: ModuleType) -> None:
    """A missing program is the fault of the image, not of the idea."""
    found = carry_out(modal_train, order("", command=["no-such-program"]))
    assert found["status"] == "infra_failed"
    assert "no-such-program" in found["detail"]


def test_the_script_sees_no_credentials(
    modal_train: ModuleType, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables with which a container talks to Modal are not passed on."""
    monkeypatch.setenv("MODAL_TASK_SECRET", "hunter2")
    carry_out(modal_train, order("import os; print(dict(os.environ))"))
    assert "hunter2" not in (volume / "night-1-0" / "run.log").read_text()


def test_the_image_has_the_versions_of_this_project(modal_train: ModuleType) -> None:
    """What the image installs is pinned as here; torch is the challenge's, unless it is set."""
    pins = dict(
        re.findall(r"^([\w.-]+)==([\w.+-]+)$", (ROOT / "constraints.txt").read_text(), re.M)
    )
    named = dict(re.findall(r'"(\w+)==([\w.]+)"', SCRIPT.read_text()))
    assert set(named) == {"numpy", "sentencepiece", "psutil", "huggingface_hub"}
    assert {name: pins[name] for name in named} == named
    assert modal_train.TORCH == Settings().torch == "2.9.1"
    environ = {**os.environ, "AUTORESEARCH_TORCH": "2.11.0"}
    ask = "import modal_train; print(modal_train.TORCH)"
    told = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, env=environ, capture_output=True)
    assert told.stdout.decode().strip() == "2.11.0"


def test_a_fault_of_the_function_itself_is_a_verdict(
    modal_train: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError over there does not read as a network error here: it is infra_failed."""
    monkeypatch.setattr(modal_train, "RUNS", Path("/proc/no-such-volume"))
    found = carry_out(modal_train, order("print('never')"))
    assert found["status"] == "infra_failed"
    assert found["detail"].startswith("the remote function failed, FileNotFoundError: ")


def test_the_evidence_is_kept_before_the_verdict(
    modal_train: ModuleType, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the verdict becomes visible the log and the model already are."""
    saved: list[set[str]] = []
    kept = volume / "night-1-0"
    names = lambda: {file.name for file in kept.iterdir()}  # noqa: E731
    monkeypatch.setattr(modal_train, "save", lambda: saved.append(names()))
    carry_out(modal_train, order("open('final_model.int8.ptz', 'wb').write(b'abc')"))
    evidence = {"run.log", "final_model.int8.ptz"}
    assert saved == [evidence, {*evidence, "outcome.json"}]


class Spy:
    """Stands for the function: carries an order out here, and remembers it."""

    def __init__(self, modal_train: ModuleType) -> None:
        self.here = modal_train.train.local
        self.options: dict[str, Any] = {}
        self.order: dict[str, Any] = {}
        self.orders: list[dict[str, Any]] = []

    def with_options(self, **options: Any) -> Spy:
        self.options = options
        return self

    def remote(self, asked: str) -> str:
        self.order = json.loads(asked)
        self.orders.append({**self.order, **self.options})
        answer: str = self.here(asked)
        return answer


@pytest.fixture
def by_hand(modal_train: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What ``modal run`` does, with this machine as the far one; a script lies in the folder."""
    spy = Spy(modal_train)
    monkeypatch.setattr(modal_train, "train", spy)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train_gpt.py").write_text(
        "import os\nprint('data', os.environ['DATA_PATH'])\n"
        "open('final_model.int8.ptz', 'wb').write(b'abc')\n"
    )
    return spy


def test_by_hand_the_model_is_kept_and_env_wins(
    modal_train: ModuleType, by_hand: Spy, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packed model is in the volume, and --env wins over the paths of the container."""
    monkeypatch.setattr(modal_train.modal, "is_local", lambda: False)
    monkeypatch.setattr(modal_train, "runs", type("Volume", (), {"reload": lambda self: None})())
    monkeypatch.setattr(modal_train, "save", lambda: None)
    monkeypatch.setattr(modal_train.modal, "current_function_call_id", lambda: "fc-1")
    claims = type("Claims", (), {"put": lambda *_, **__: True})()
    monkeypatch.setattr(modal_train, "claims", claims)
    modal_train.main(command=f"{sys.executable} train_gpt.py", env='{"DATA_PATH": "/mine"}')
    kept = volume / by_hand.order["name"]
    assert (kept / "run.log").read_text() == "data /mine\n"
    assert (kept / "final_model.int8.ptz").read_bytes() == b"abc"
    assert by_hand.options == {"gpu": "H100:8", "timeout": 2100}


RELOADS = """import os, sys
if os.environ.get("EVAL_ARTIFACT"):
    print('artifact_score {"val_bpb": %s}' % open(os.environ["EVAL_ARTIFACT"]).read())
else:
    open("final_model.int8.ptz", "w").write("1.5000")
    print("final_int8_zlib_roundtrip_exact val_loss:2.0 val_bpb:" + sys.argv[1])
"""


def test_by_hand_the_artifact_is_scored_again_on_one_gpu(
    modal_train: ModuleType, by_hand: Spy, tmp_path: Path
) -> None:
    """In a job of its own that has what the run left; another score ends with a line."""
    (tmp_path / "train_gpt.py").write_text(RELOADS)
    modal_train.main(command=f"{sys.executable} train_gpt.py 1.50001", env='{"A": "b"}')
    run, job = by_hand.orders
    assert (run["gpu"], job["gpu"]) == ("H100:8", "H100")
    assert job["name"] == f"{run['name']}-reload"
    assert job["typed"] == {"EVAL_ARTIFACT": "final_model.int8.ptz", "A": "b"}
    with pytest.raises(SystemExit, match=r"the artifact alone scores 1\.5, the run said 1\.4"):
        modal_train.main(command=f"{sys.executable} train_gpt.py 1.4")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"script": "gone.py"}, "cannot read the script gone.py"),
        ({"env": "ITERATIONS=500"}, "--env is 'ITERATIONS=500', not a JSON object; write it as in"),
        ({"env": "[1]"}, "--env is '[1]', not a JSON object"),
        ({"gpu": "H100"}, "--command starts 8 processes, but --gpu is 'H100'; make them the same"),
        ({"gpu": ""}, "--gpu is ''; write a type and a number, as in H100:8"),
    ],
)
def test_mistakes_by_hand_are_one_line(
    modal_train: ModuleType, by_hand: Spy, options: dict[str, str], line: str
) -> None:
    """A wrong option ends with its line and exit code 1 before anything is paid for."""
    with pytest.raises(SystemExit) as ended:
        modal_train.main(**options)
    said = str(ended.value.code)  # a text: Python prints it and exits with 1
    assert said.startswith(line)
    assert "\n" not in said
    assert by_hand.order == {}


def test_modal_run_without_a_token(tmp_path: Path) -> None:
    """The protocol's command says in one line how to get a token, and exits with 1."""
    pytest.importorskip("modal")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "modal", "run", str(SCRIPT)],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Token missing" in ended.stderr
    assert "modal token new" in ended.stderr.replace("\n", " ")


def test_modal_run_without_a_way_to_modal(tmp_path: Path) -> None:
    """The client would try for a minute in silence: one line, at once, and exit code 1."""
    pytest.importorskip("modal")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MODAL_TOKEN_ID": "ak-x"}
    environ |= {"MODAL_TOKEN_SECRET": "as-x", "MODAL_SERVER_URL": "http://127.0.0.1:9"}
    ended = subprocess.run(
        [sys.executable, "-m", "modal", "run", str(SCRIPT)],
        env=environ, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("modal cannot be reached at 127.0.0.1:9: ")
    assert ended.stderr.endswith("; check the network\n")
