"""Every error that a person can cause or correct; each is one line that ends with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class AutoresearchError(Exception):
    """A problem that a person can correct; it is printed as one line, and the exit code is 1."""


class ConfigError(AutoresearchError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class CodecError(AutoresearchError):
    """A value cannot be written as canonical JSON, or stored bytes cannot be read back."""


class LogError(AutoresearchError):
    """The event log cannot be opened, written or trusted."""


class StreamHeldError(LogError):
    """Another process is writing this stream; a stream has one writer at a time."""


class PluginError(AutoresearchError):
    """A plugin cannot be found or loaded, or returned what its hook does not allow."""


class OutageError(PluginError):
    """A mind gives no answer for now; it rests a while, longer each time, and is asked again."""


class SuspendedError(PluginError):
    """A mind can give no answer until a person acts: a wrong key, a model that is not there."""


class ProtocolError(AutoresearchError):
    """A step was tried out of the order that the research protocol fixes."""


class WorkspaceError(AutoresearchError):
    """Git, the lab, or a file that an experiment needs is not as it must be."""


class BlockedError(WorkspaceError):
    """Another program or the disk is in the way for now; the same step may work later."""


class DataError(AutoresearchError):
    """A data file is missing, or is not what its header says."""


def brought_by(module: str) -> str:
    """Return the command that installs a module: an extra of this package, where one has it."""
    from importlib.metadata import requires  # here: it costs more than all the errors together

    wanted = re.compile(rf"{re.escape(module)}\b.*extra == ['\"](?!dev|bench)(\w+)")
    extras = [found[1] for item in requires("autoresearch") or () if (found := wanted.match(item))]
    return "pip install " + (f"'autoresearch[{extras[0]}]'" if extras else module)


def why(error: Exception) -> str:
    """Return what went wrong with a file, without the number and the path that the system adds."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


@contextmanager
def telling(problem: str, advice: str) -> Iterator[None]:
    """Say in one line what could not be done with a file inside the block, why, and what to do."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise WorkspaceError(f"{problem}: {why(error)}; {advice}") from None


@contextmanager
def needs(package: str, kind: type[AutoresearchError] = AutoresearchError) -> Iterator[None]:
    """Say in one line what brings the package that an import inside the block lacks."""
    try:
        yield
    except ImportError:
        raise kind(f"the package {package} is not installed; {brought_by(package)}") from None
