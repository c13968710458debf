"""What a score was measured with, as one digest: only scores under one lock are compared."""

from __future__ import annotations

from attrs import asdict, frozen

from autoresearch.durable import digest
from autoresearch.golf.audits.region import evaluation_region
from autoresearch.golf.audits.tree import parse_script
from autoresearch.golf.reading.own_result import OwnResult


@frozen(kw_only=True)
class Lock:
    """Digests of evaluation code, tokenizer and validation data, and the name of the hardware.

    ``evaluation`` is empty for a script in which no evaluation code was found.
    """

    evaluation: str
    tokenizer: str
    validation: str
    hardware: str

    @property
    def digest(self) -> str:
        """One sha256 over all four, in a fixed order."""
        text = "\0".join(f"{name}={value}" for name, value in sorted(asdict(self).items()))
        return digest(text)


def evaluation_digest(source: str) -> str:
    """Digest of the evaluation code of a script, the same however it is laid out or commented.

    Empty where there is none, or where the source does not compile.
    """
    try:
        return evaluation_region(parse_script(source)).digest
    except (SyntaxError, ValueError):
        return ""


def lock_of(source: str, result: OwnResult) -> Lock:
    """The lock of a finished run: of the script that ran and of what its result was measured on."""
    return Lock(
        evaluation=evaluation_digest(source),
        tokenizer=result.tokenizer_digest,
        validation=result.val_digest,
        hardware=result.hardware,
    )


def comparable(one: Lock, other: Lock) -> bool:
    """Whether two scores may be compared without saying more."""
    return not differences(one, other)


def differences(one: Lock, other: Lock) -> tuple[str, ...]:
    """What two locks do not share, in words for a person: ``evaluation``, ``hardware``..."""
    mine, theirs = asdict(one), asdict(other)
    return tuple(name for name in mine if mine[name] != theirs[name])
