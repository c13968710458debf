"""What comes with autoresearch keeps the contracts; strategies say so beside their tests."""

import pytest

from autoresearch import Config
from autoresearch.golf import plugin as golf
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.testing import (
    AuditContract,
    DecisionPolicyContract,
    KeepBetter,
    ObserverContract,
    ProjectionContract,
    RecordingObserver,
)


class TestGolfAudit(AuditContract):
    """The challenge's rules."""

    @pytest.fixture
    def plugin(self) -> object:
        """The module, as it is loaded in a campaign."""
        return golf

    @pytest.fixture
    def config(self) -> Config:
        """The challenge's preset."""
        return Config(preset="golf")


@pytest.mark.parametrize("projection", [ResultsTsv(), NotesMd()], ids=["results", "notes"])
class TestFiles(ProjectionContract):
    """The two files of the protocol."""


class TestRecordingObserver(ObserverContract):
    """The fake that remembers."""

    @pytest.fixture
    def plugin(self) -> object:
        """A class, so that each test has a new one."""
        return RecordingObserver


class TestKeepBetter(DecisionPolicyContract):
    """The smallest policy."""

    @pytest.fixture
    def plugin(self) -> object:
        """A class."""
        return KeepBetter
