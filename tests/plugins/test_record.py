"""What a campaign records about its plugins, and how a difference is told."""

import hashlib

DECIDE = """
__version__ = "{version}"

@hookimpl
def decide(candidate):
    return Decision(verdict="discard", reason="no")
"""


def test_version_and_digest_of_the_source_are_recorded(load, write):
    """Each active plugin is known by its version and the first 12 digits of its sha256."""
    path = write("mine", DECIDE.format(version="1.0"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load().active["mine"] == f"1.0 {digest[:12]}"


def test_the_same_plugins_differ_in_nothing(load, write):
    """Loading again after a crash finds what was recorded."""
    write("mine", DECIDE.format(version="1.0"))
    recorded = dict(load().active)
    assert load().diff(recorded) == ()


def test_every_difference_is_a_line(load, write):
    """Added, removed and changed plugins are told by name, with what they were and are."""
    path = write("mine", DECIDE.format(version="1.0"))
    write("gone", DECIDE.format(version="1.0"))
    recorded = dict(load().active)
    path.write_text(path.read_text().replace("1.0", "1.1"))
    (path.parent / "gone.py").unlink()
    write("new", DECIDE.format(version="2.0"))
    lines = load().diff(recorded)
    assert [line.split(" ")[:2] for line in lines] == [
        ["removed", "gone"],
        ["changed", "mine:"],
        ["added", "new"],
    ]
    assert recorded["mine"] in lines[1]


def test_an_edit_at_once_is_the_code_that_runs(load, write):
    """No cached bytecode runs under the digest of a newer source."""
    path = write("mine", DECIDE.format(version="1.0"))
    load()
    path.write_text(path.read_text().replace("1.0", "1.1"))
    assert load().active["mine"].startswith("1.1 ")
