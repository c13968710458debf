"""Starts writers and syncs on a store and kills them with SIGKILL at random moments.

Run as ``python killing.py STORE KILLS SEED``. Every acknowledgement is written to a file of its own
the moment it is given, so that what is in those files must be in the log for ever.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from autoresearch import events
from autoresearch.log import FileLog, Schema, open_log
from autoresearch.projections.tables import event_table

SCHEMA = Schema((event_table("note_added"),))
WRITERS = 2


def write(log: FileLog, name: str, said: int) -> None:
    """Append for ever, one by one and in batches, and say what was acknowledged."""
    dice = random.Random(time.time_ns())
    with log.writer("camp", name) as writer:
        while True:
            texts = [f"{name} {os.getpid()} {time.monotonic_ns()} {n}" for n in range(batch(dice))]
            notes = [events.NoteAdded(text=text, author=name) for text in texts]
            receipts = writer.append_many(notes)
            lines = [f"{receipt.event_id}\t{receipt.hash}\n" for receipt in receipts]
            os.write(said, "".join(lines).encode())


def batch(dice: random.Random) -> int:
    return dice.choice([1, 1, 1, 2, 30])


def sync(log: FileLog, said: int) -> None:
    """Order, sync, read and connect for ever, and say which tips were seen."""
    while True:
        os.write(said, f"{log.tip()}\n".encode())
        log.sync()
        with log.connect() as connection:
            connection.execute("SELECT count(*) FROM note_added").fetchall()


def start(root: Path, name: str, said: Path) -> int:
    """Start one process and return its id."""
    child = os.fork()
    if child:
        return child
    handle = os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    log = open_log(root, SCHEMA, lambda line: None)
    try:
        if name == "sync":
            sync(log, handle)
        else:
            write(log, name, handle)
    except BaseException as error:
        os.write(2, f"{name}: {type(error).__name__}: {error}\n".encode())
    os._exit(1)


def main(root: Path, kills: int, seed: int) -> int:
    """Kill that many processes and return how many ended by themselves, which none should."""
    dice = random.Random(seed)
    own_way = 0
    names = [*(f"w{n}" for n in range(WRITERS)), "sync"]
    for _ in range(0, kills, len(names)):
        children = {
            start(root, name, root.with_name(f"{'tips' if name == 'sync' else 'acks'}-{name}"))
            for name in names
        }
        time.sleep(dice.uniform(0.005, 0.15))
        for child in dice.sample(sorted(children), len(children)):
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            own_way += not os.WIFSIGNALED(status)
    return own_way


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
