"""The launcher for Modal, against a volume in a folder and calls that are processes here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from attrs import define, evolve, field

from autoresearch.config import Config
from autoresearch.errors import AutoresearchError, ConfigError
from autoresearch.frozen import alike
from autoresearch.launchers.modal import (
    Plugin,
    Settings,
    launch,
    make_ready,
    order_for,
)
from autoresearch.launchers.modal_remote import (
    ModalRemote,
    RemoteAwayError,
    RemoteEndedError,
    RemoteError,
    RemoteTimeoutError,
    explain,
    explain_call,
    verdict_in,
)
from autoresearch.model import RunHandle, RunOutput, RunRequest, RunStatus, Workspace

ROOT = Path(__file__).parents[2]
CALL = "import sys, modal_train; print('\\n' + modal_train.train.local(sys.stdin.read()))"
QUICK = Settings(poll_seconds=0.0)


@define
class Loopback:
    """A remote place on this machine: every call runs modal_train.py's function in a process."""

    volume: Path
    orders: list[dict[str, Any]] = field(factory=list)
    calls: dict[str, subprocess.Popen[str]] = field(factory=dict)
    claims: dict[str, dict[str, str]] = field(factory=dict)
    says: dict[str, str | RemoteError] = field(factory=dict)
    away: bool = False
    filled: list[tuple[str, int]] = field(factory=list)

    def claimed(self, name: str) -> dict[str, str] | None:
        self._reach()
        return self.claims.get(name)

    def spawn(self, order: str, gpu: str, timeout_seconds: float) -> str:
        self._reach()
        call = f"fc-{len(self.orders)}"
        self.orders.append({**json.loads(order), "gpu": gpu, "limit": timeout_seconds})
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CALL],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "AUTORESEARCH_RUNS": str(self.volume)},
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(order)
        process.stdin.close()
        process.stdin = None
        self.calls[call] = process
        asked = self.orders[-1]
        claim = {"call": call, "script_digest": asked["script_digest"]}
        self.claims.setdefault(asked["name"], claim)
        return call

    def verdict(self, call: str) -> str | None:
        self._reach()
        if call in self.says:
            said = self.says[call]
            if isinstance(said, RemoteError):
                raise said
            return said
        if self.calls[call].poll() is None:
            return None
        self.says[call] = self.calls[call].communicate()[0].splitlines()[-1]
        return self.verdict(call)

    def cancel(self, call: str) -> None:
        self._reach()
        self.end(call)

    def read(self, path: str) -> bytes | None:
        self._reach()
        file = self.volume / path
        return file.read_bytes() if file.exists() else None

    def lacks(self, name: str) -> bool:
        self._reach()
        return not (self.volume / "datasets" / name).exists()

    def fill(self, variant: str, train_shards: int) -> None:
        (self.volume / "datasets" / f"fineweb10B_{variant}").mkdir(parents=True)
        self.filled.append((variant, train_shards))

    def end(self, call: str) -> None:
        process = self.calls[call]
        if process.returncode is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.communicate()

    def _reach(self) -> None:
        if self.away:
            raise RemoteAwayError("modal does not answer: no network")


@pytest.fixture
def remote(tmp_path: Path) -> Any:
    """A remote whose processes end with the test."""
    pytest.importorskip("modal")
    place = Loopback(tmp_path / "volume")
    yield place
    for call in place.calls:
        place.end(call)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A worktree with a script that trains in no time."""
    (tmp_path / "lab").mkdir()
    space = Workspace(path=tmp_path / "lab", script="train_gpt.py", project=ROOT)
    space.script_path.write_text(
        "import os\nprint('val_bpb:1.21 seed', os.environ['SEED'])\n"
        "open('final_model.int8.ptz', 'wb').write(b'abc')\n"
    )
    return space


@pytest.fixture
def request_for(tmp_path: Path, workspace: Workspace) -> RunRequest:
    """A request as the loop makes it, with the places of this machine filled in."""
    return RunRequest(
        name="night-1-0",
        campaign="night",
        experiment=1,
        index=0,
        command=(sys.executable, str(workspace.script_path)),
        seed=7,
        launcher="modal",
        timeout_seconds=60.0,
        folder=tmp_path / "run",
    )


def finish(handle: RunHandle, seconds: float = 30.0) -> RunOutput:
    end = time.monotonic() + seconds
    while (output := handle.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return output


def test_a_run_from_order_to_price(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """The verdict, the log and the packed model come back, and the price is that of eight GPUs."""
    handle = launch(request_for, workspace, remote, QUICK)
    assert isinstance(handle, RunHandle)
    assert handle.reference == "fc-0"
    output = finish(handle)
    assert (output.status, output.exit_code, output.detail) == (RunStatus.COMPLETED, 0, "")
    assert output.log_path.read_text() == "val_bpb:1.21 seed 7\n"
    assert (output.folder / "final_model.int8.ptz").read_bytes() == b"abc"
    assert output.gpu_seconds == pytest.approx(8 * output.seconds, abs=0.01)
    assert output.cost_usd == pytest.approx(output.gpu_seconds * 0.001097, abs=1e-5)
    assert remote.orders[0]["gpu"] == "H100:8"
    assert remote.orders[0]["limit"] == 1260.0  # 60, 900 before its first step, 300 to spare


def test_a_job_beside_a_run_has_one_gpu_and_what_the_run_left(
    request_for: RunRequest, workspace: Workspace, remote: Loopback, tmp_path: Path
) -> None:
    """Seven GPUs do not wait for the eighth."""
    asked = evolve(request_for, campaign_id="one")
    finish(launch(asked, workspace, remote, QUICK))
    workspace.script_path.write_text("print(open('final_model.int8.ptz').read())")
    job = evolve(asked, name="night-1-0-reload", beside=asked.name, folder=tmp_path / "job")
    output = finish(launch(job, workspace, remote, QUICK))
    assert output.log_path.read_text() == "abc\n"
    assert remote.orders[1]["gpu"] == "H100"
    assert output.gpu_seconds == output.seconds


def test_the_volume_is_filled_once_when_a_campaign_starts(remote: Loopback) -> None:
    """No data have to be here; a Modal that is away is told, and data of others are their own."""
    told: list[str] = []
    golf = ("data/datasets/fineweb10B_sp1024", "data/tokenizers")
    for wanted in (golf, golf, ("data/mine",)):
        make_ready(remote, wanted, Settings(train_shards=10), told.append)
    assert remote.filled == [("sp1024", 10)]
    line = "autoresearch-data lacks fineweb10B_sp1024; filling it with 10 shards takes minutes"
    assert told == [line]
    remote.away = True
    make_ready(remote, (), Settings(), told.append)
    assert told[1:] == ["modal does not answer: no network; runs wait for it"]


def test_a_server_that_never_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client would try for a minute without a word."""
    pytest.importorskip("modal")
    monkeypatch.setattr("autoresearch.launchers.modal_remote._ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name in ("TOKEN_ID", "TOKEN_SECRET"):
            monkeypatch.setenv(f"MODAL_{name}", "x")
        monkeypatch.setenv("MODAL_SERVER_URL", f"http://127.0.0.1:{port}")
        away = alike(ModalRemote, Settings(), script=ROOT / "modal_train.py")
        with pytest.raises(RemoteAwayError, match=r"modal does not answer within 0\.5 seconds"):
            away.lacks("datasets")


def test_another_torch_is_another_deployment() -> None:
    """What was deployed with one version does not answer for another."""
    one, other = (
        alike(ModalRemote, Settings(torch=torch), script=ROOT / "modal_train.py")
        for torch in ("2.9.1", "2.11.0")
    )
    assert one.deployment != other.deployment


def test_places_of_this_machine_are_translated(
    request_for: RunRequest, workspace: Workspace
) -> None:
    """The interpreter and the script get the names that they have in the container."""
    order = order_for(request_for, workspace, QUICK)
    assert order["command"] == ["python", "train_gpt.py"]
    assert order["source"] == workspace.script_path.read_text()
    assert order["env"] == {"SEED": "7", "RUN_ID": "night-1-0"}


def test_a_finished_run_is_read_without_asking(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """Launching a finished name again starts nothing and needs no network."""
    output = finish(launch(request_for, workspace, remote, QUICK))
    remote.away = True
    assert launch(request_for, workspace, remote, QUICK).poll() == output
    assert len(remote.orders) == 1


def test_a_crash_before_the_call_was_noted(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """The call that entered itself under the name is found, although its id was never kept here."""
    handle = launch(request_for, workspace, remote, QUICK)
    (handle.folder.control / "modal_call.json").unlink()
    handle = launch(request_for, workspace, remote, QUICK)
    assert handle.reference == "fc-0"
    assert finish(handle).status is RunStatus.COMPLETED
    assert len(remote.orders) == 1


def test_a_second_call_leads_to_the_first(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """A call that was beaten to the name says so, and the handle follows the other one."""
    first = launch(request_for, workspace, remote, QUICK)
    other = launch(evolve(request_for, folder=request_for.folder / "b"), workspace, remote, QUICK)
    (other.folder.control / "modal_call.json").write_text('{"call": "fc-late"}')
    remote.says["fc-late"] = json.dumps({"status": "duplicate", "call_id": "fc-0"})
    assert finish(other).status is RunStatus.COMPLETED
    assert other.reference == first.reference == "fc-0"


def test_a_forgotten_result_is_in_the_volume(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """When Modal no longer knows the result of a call, the kept verdict counts."""
    handle = launch(request_for, workspace, remote, QUICK)
    remote.calls["fc-0"].communicate(timeout=30)
    remote.says["fc-0"] = RemoteEndedError("modal failed (OutputExpiredError): too old")
    output = finish(handle)
    assert output.status is RunStatus.COMPLETED
    assert output.log_path.read_text() == "val_bpb:1.21 seed 7\n"


def test_no_network_is_waited_for(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """A run ordered while Modal is away starts when it is back, once."""
    remote.away = True
    handle = launch(request_for, workspace, remote, QUICK)
    assert (handle.poll(), handle.reference) == (None, "")
    remote.away = False
    assert finish(handle).status is RunStatus.COMPLETED
    assert len(remote.orders) == 1


def test_patience_ends(request_for: RunRequest, workspace: Workspace, remote: Loopback) -> None:
    """An hour after its deadline a run that nobody hears of is given up as infra_failed."""
    remote.away = True
    handle = launch(request_for, workspace, remote, QUICK)
    late = evolve(handle, clock=lambda: time.time() + 1260 + 3601)
    output = late.poll()
    assert output is not None
    assert output.status is RunStatus.INFRA_FAILED
    away = "modal does not answer: no network"
    assert output.detail == (
        f"gave up after 4860 seconds: {away}; it may still run, look on modal.com: {away}"
    )


def test_a_stopped_run_is_cancelled(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """stop() ends the call, keeps the output so far, and the next poll says why."""
    workspace.script_path.write_text(
        "import time; print('val_bpb:9.9', flush=True); time.sleep(60)"
    )
    handle = launch(request_for, workspace, remote, QUICK)
    end = time.monotonic() + 30
    while remote.read("night-1-0/run.log") != b"val_bpb:9.9\n":
        assert time.monotonic() < end
        time.sleep(0.02)
    handle.stop("hopeless")
    output = handle.poll()
    assert output is not None
    assert (output.status, output.detail) == (RunStatus.STOPPED_EARLY, "hopeless")
    assert output.log_path.read_text() == "val_bpb:9.9\n"
    assert output.cost_usd > 0
    assert remote.calls["fc-0"].returncode is not None


def test_output_arrives_while_the_run_goes_on(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """The log so far is brought here, so that a doomed run can be seen and stopped."""
    workspace.script_path.write_text("import time; print('step:1', flush=True); time.sleep(60)")
    handle = launch(request_for, workspace, remote, QUICK)
    now = [time.time()]
    handle.clock = lambda: now[0]
    end = time.monotonic() + 30
    while not (handle.log_path.exists() and handle.log_path.read_bytes() == b"step:1\n"):
        assert time.monotonic() < end
        now[0] += 16
        assert handle.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RemoteTimeoutError("ended by Modal's own limit"), RunStatus.TIMED_OUT),
        (RemoteEndedError("the remote function raised ValueError: no"), RunStatus.INFRA_FAILED),
        (RemoteEndedError("modal failed (InternalFailure): oops"), RunStatus.INFRA_FAILED),
    ],
)
def test_failures_of_a_call(
    request_for: RunRequest,
    workspace: Workspace,
    remote: Loopback,
    error: RemoteError,
    status: RunStatus,
) -> None:
    """Each kind of failure has its status, and its line is the detail."""
    remote.says["fc-0"] = error
    output = finish(launch(request_for, workspace, remote, QUICK))
    assert (output.status, output.detail) == (status, str(error))


def test_the_end_of_a_call_and_a_question_that_failed_are_told_apart() -> None:
    """Of what the real client raises only a definite end of the call ends the run."""
    modal = pytest.importorskip("modal")
    known = modal.exception
    told = {
        known.FunctionTimeoutError("t"): RemoteTimeoutError,
        known.OutputExpiredError("old"): RemoteEndedError,
        known.InternalFailure("i"): RemoteEndedError,
        known.RemoteError("r"): RemoteEndedError,
        ValueError("mine"): RemoteEndedError,
        known.ConnectionError("c"): RemoteAwayError,
        known.ResourceExhaustedError("busy"): RemoteAwayError,
        known.InternalError("500"): RemoteAwayError,
        known.PermissionDeniedError("p"): RemoteAwayError,
        known.NotFoundError("n"): RemoteAwayError,
        known.AuthError("a"): RemoteAwayError,
        OSError("unreachable"): RemoteAwayError,
    }
    assert {error: type(explain_call(error)) for error in told} == told
    assert type(explain(known.ResourceExhaustedError("busy"))) is RemoteAwayError
    assert type(explain(known.PermissionDeniedError("p"))) is RemoteError
    assert type(explain(ValueError("no functions provided"))) is RemoteError
    assert "modal token new" in str(explain(known.AuthError("Token missing")))


def test_equal_tags_of_two_projects_do_not_meet(
    request_for: RunRequest, workspace: Workspace, remote: Loopback, tmp_path: Path
) -> None:
    """The name in the shared workspace carries the campaign, so that both runs happen."""
    mine = evolve(request_for, campaign_id="commit 1")
    theirs = evolve(request_for, campaign_id="commit 2", seed=8, folder=tmp_path / "theirs")
    outputs = [finish(launch(asked, workspace, remote, QUICK)) for asked in (mine, theirs)]
    logs = [output.log_path.read_text() for output in outputs]
    assert logs == ["val_bpb:1.21 seed 7\n", "val_bpb:1.21 seed 8\n"]
    names = [asked["name"] for asked in remote.orders]
    assert len(set(names)) == 2
    assert all(name.startswith("night-1-0-") for name in names)
    assert [asked["env"]["RUN_ID"] for asked in remote.orders] == ["night-1-0"] * 2


def test_a_name_belongs_to_one_script(
    request_for: RunRequest, workspace: Workspace, remote: Loopback, tmp_path: Path
) -> None:
    """A name that another script has, here or over there, is refused, and nothing is spawned."""
    finish(launch(evolve(request_for, script_digest="a" * 64), workspace, remote, QUICK))
    with pytest.raises(AutoresearchError, match="started with script aaaaaaaaaaaa, not with bbbb"):
        launch(evolve(request_for, script_digest="b" * 64), workspace, remote, QUICK)
    other = evolve(request_for, script_digest="b" * 64, folder=tmp_path / "other")
    output = finish(launch(other, workspace, remote, QUICK))
    assert output.status is RunStatus.INFRA_FAILED
    assert "was started with script aaaaaaaaaaaa, not with bbbbbbbbbbbb" in output.detail
    assert len(remote.orders) == 1


def test_a_verdict_of_another_script_is_refused(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """What the call found under the name in the volume has to be of this script."""
    verdict = {"status": "completed", "exit_code": 0, "detail": "", "seconds": 1.0}
    remote.says["fc-0"] = json.dumps({**verdict, "script_digest": "c" * 64})
    output = finish(launch(request_for, workspace, remote, QUICK))
    assert output.status is RunStatus.INFRA_FAILED
    assert "was started with script cccccccccccc" in output.detail


def test_a_question_that_failed_is_no_end(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """With a known call a refused question is asked again, also when patience is over."""
    handle = launch(request_for, workspace, remote, QUICK)
    remote.calls["fc-0"].communicate(timeout=30)
    remote.says["fc-0"] = '{"status": "completed", "exit_code": 0, "detail": "", "seconds": 2.0}'
    remote.away = True
    handle.clock = lambda: time.time() + 10**6
    assert handle.poll() is None
    remote.away = False
    assert finish(handle).status is RunStatus.COMPLETED
    assert len(remote.orders) == 1


def test_a_stop_that_did_not_arrive_is_tried_again(
    request_for: RunRequest, workspace: Workspace, remote: Loopback
) -> None:
    """A run counts as stopped once Modal took the cancelling, not before."""
    workspace.script_path.write_text("import time; time.sleep(60)")
    handle = launch(request_for, workspace, remote, QUICK)
    remote.away = True
    handle.stop("hopeless")
    assert handle.poll() is None
    assert remote.calls["fc-0"].poll() is None
    remote.away = False
    output = finish(handle)
    assert (output.status, output.detail) == (RunStatus.STOPPED_EARLY, "hopeless")
    assert remote.calls["fc-0"].returncode is not None


@define
class Forgetful(Loopback):
    """A place whose volume cannot be read for a while."""

    shut: bool = True

    def read(self, path: str) -> bytes | None:
        if self.shut:
            raise RemoteAwayError("modal does not answer: no volume")
        return Loopback.read(self, path)


def test_a_verdict_waits_for_its_evidence(
    request_for: RunRequest, workspace: Workspace, tmp_path: Path
) -> None:
    """A run is over here only when its log and its model are here."""
    pytest.importorskip("modal")
    remote = Forgetful(tmp_path / "volume")
    handle = launch(request_for, workspace, remote, QUICK)
    remote.calls["fc-0"].wait(timeout=30)
    assert handle.poll() is None
    assert handle.poll() is None
    remote.shut = False
    output = finish(handle)
    assert output.status is RunStatus.COMPLETED
    assert (output.folder / "final_model.int8.ptz").read_bytes() == b"abc"


@pytest.mark.parametrize(
    "said",
    [
        RemoteEndedError("modal failed (InternalFailure): oops"),
        '{"status": "infra_failed", "detail": "no disk"}',
    ],
)
def test_a_failed_machine_is_paid_for(
    request_for: RunRequest, workspace: Workspace, remote: Loopback, said: str | RemoteError
) -> None:
    """A run that Modal lost accounts the time since its call, at most to Modal's own limit."""
    handle = launch(request_for, workspace, remote, QUICK)
    remote.says["fc-0"] = said
    handle.clock = lambda: time.time() + 100
    output = finish(handle)
    assert output.status is RunStatus.INFRA_FAILED
    assert output.seconds == pytest.approx(100, abs=30)
    assert output.gpu_seconds == pytest.approx(8 * output.seconds, abs=0.01)
    assert output.cost_usd > 0.5


@pytest.mark.parametrize("seconds", ["-5", "NaN", "Infinity"])
def test_an_impossible_time_is_refused(seconds: str) -> None:
    """A verdict cannot earn money."""
    with pytest.raises(RemoteEndedError, match="but must be 0 or more"):
        verdict_in('{"status": "completed", "seconds": ' + seconds + "}")


def test_a_verdict_that_is_none_is_refused() -> None:
    """Text that is no verdict is a failure with its reason, not a traceback."""
    for text in ("", "[]", "{}", "null"):
        with pytest.raises(RemoteError, match="the verdict of the remote function"):
            verdict_in(text)


def test_without_a_token_the_line_says_what_to_do(
    request_for: RunRequest, workspace: Workspace, tmp_path: Path
) -> None:
    """The real client without a token makes the run infra_failed with the command to run."""
    pytest.importorskip("modal")
    script = (
        "import sys; from pathlib import Path\n"
        "from autoresearch.launchers.modal import Plugin\n"
        "from autoresearch.model import RunRequest, Workspace\n"
        "lab, project, folder = map(Path, sys.argv[1:])\n"
        "request = RunRequest(name='n', campaign='c', experiment=0, index=0, command=('x',),\n"
        "                     launcher='modal', folder=folder)\n"
        "space = Workspace(path=lab, script='train_gpt.py', project=project)\n"
        "output = Plugin().launch_run(request, space).poll()\n"
        "print(output.status, output.detail)\n"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", script, str(workspace.path), str(ROOT), str(tmp_path / "r")],
        env=environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ended.stdout == (
        "infra_failed modal has no valid token; run `modal token new` and start again\n"
    )


def test_the_table_of_settings(request_for: RunRequest, workspace: Workspace) -> None:
    """GPU and price come from the plugin's table; the script has to be in the project."""
    plugin = Plugin()
    plugin.configure(Config(plugins={"modal": {"gpu": "H100", "module": "gone.py"}}))
    with pytest.raises(AutoresearchError, match=r"finds no .*gone\.py; put modal_train\.py there"):
        plugin.launch_run(request_for, workspace)
    assert plugin.launch_run(evolve(request_for, launcher="local"), workspace) is None
    assert [Settings(gpu=gpu).all_gpus for gpu in ("H100", "H100:8")] == [1, 8]


@pytest.mark.parametrize("option", ["--nproc_per_node=8", "--nproc-per-node 8"])
def test_processes_and_gpus_have_to_agree(
    request_for: RunRequest, workspace: Workspace, option: str
) -> None:
    """A torchrun for eight GPUs is refused on one before anything is paid."""
    asked = evolve(request_for, command=("torchrun", *option.split(), "train_gpt.py"))
    assert order_for(asked, workspace, Settings(gpu="H100:8"))["script"] == "train_gpt.py"
    with pytest.raises(AutoresearchError, match="starts 8 processes, but gpu is 'H100'"):
        order_for(asked, workspace, Settings(gpu="H100"))


@pytest.mark.parametrize("gpu", ["", "H100:", "H100:0", "H100:x", "8", "H 100"])
def test_a_gpu_that_is_none(gpu: str) -> None:
    """A GPU setting that Modal would refuse, or that has no price, is refused first."""
    with pytest.raises(ConfigError, match="write a type and a number, as in H100:8"):
        Settings(gpu=gpu)
