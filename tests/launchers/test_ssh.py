"""The launcher ssh, against a server on this machine's loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from five_experiments import finish_with_a_kill

import autoresearch
from autoresearch.config import Config
from autoresearch.launchers.ssh import Plugin
from autoresearch.testing import LauncherContract

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
if SSHD is None or shutil.which("ssh") is None:
    pytest.skip("there is no sshd; apt-get install openssh-server", allow_module_level=True)
SERVER = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
MaxStartups 100
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Start a server of our own, and return the options with which ssh finds it."""
    folder = tmp_path_factory.mktemp("sshd")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(SERVER.format(port=port, folder=folder))
    Path("/run/sshd").mkdir(exist_ok=True) if os.getuid() == 0 else None
    assert SSHD is not None
    log = (folder / "log").open("w")
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=log)
    given = ["-p", str(port), "-i", str(folder / "key"), "-o", "IdentitiesOnly=yes"]
    given += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known"]
    given += ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-F", "none"]
    host = f"{getpass.getuser()}@127.0.0.1"
    end = time.monotonic() + 15
    while subprocess.run(
        ["ssh", *given, host, "true"], capture_output=True, check=False
    ).returncode:
        if time.monotonic() > end:
            server.kill()
            server.wait()
            pytest.skip(f"sshd does not work here: {(folder / 'log').read_text()[-300:]}")
        time.sleep(0.2)
    yield given
    server.terminate()
    server.wait()
    log.close()


def settings(options: list[str], folder: Path, host: str = "127.0.0.1") -> dict[str, object]:
    """Return the plugin's table for a folder that the server uses."""
    source = Path(autoresearch.__file__).parents[1]
    return {
        "hosts": [f"{getpass.getuser()}@{host}"],
        "python": f"env PYTHONPATH={source} {sys.executable}",
        "folder": str(folder),
        "options": options,
        "poll_seconds": 0.1,
    }


class TestSsh(LauncherContract):
    """The conformance tests of the kit, over loopback."""

    @pytest.fixture
    def plugin(self) -> Plugin:
        """The launcher under test."""
        return Plugin()

    @pytest.fixture
    def config(self, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Config:
        """One host."""
        return Config(plugins={"ssh": settings(options, tmp_path_factory.mktemp("host"))})

    @pytest.fixture
    def launcher(self) -> str:
        """Its name in the configuration."""
        return "ssh"


def test_campaign_with_a_kill_in_the_middle(tmp_path: Path, options: list[str]) -> None:
    """Every run is started once, decided, and has its artifact."""
    table = settings(options, tmp_path / "host")
    text = "\n".join(f"{name} = {value!r}" for name, value in table.items())
    finish_with_a_kill(tmp_path, "ssh", text.replace("'", '"'))


def test_host_that_does_not_answer_refuses_the_start_in_one_line(
    tmp_path: Path, options: list[str]
) -> None:
    """And a start that is refused leaves nothing."""
    plugin = Plugin()
    table = {**settings(options, tmp_path), "hosts": ["nobody@127.0.0.1"]}
    config = Config(launcher="ssh", plugins={"ssh": table})
    plugin.configure(config)
    (told,) = plugin.check_launcher(config) or ()
    assert told.startswith("nobody@127.0.0.1 cannot be reached: ")
    assert "with this release of autoresearch" in told
    assert plugin.check_launcher(Config(launcher="ssh")) is not None
