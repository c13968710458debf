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


def test_a_package_is_known_by_all_its_files(load, tmp_path, monkeypatch):
    """A change in a neighbour of the plugin's module changes the digest of the distribution."""
    package, info = tmp_path / "site" / "extpack", tmp_path / "site" / "extpack-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extpack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[autoresearch]\nextpack = extpack:MINE\n")
    code = "from autoresearch.testing import KeepBetter\nfrom . import words\nMINE = KeepBetter\n"
    (package / "__init__.py").write_text(code)
    (package / "words.py").write_text("WORD = 'one'\n")
    monkeypatch.syspath_prepend(package.parent)
    first = load("extpack").active["extpack"]
    (package / "words.py").write_text("WORD = 'two'\n")
    second = load("extpack").active["extpack"]
    assert first.startswith("1.0 ")
    assert first != second


def test_a_plugin_typed_at_a_prompt_has_a_digest_too(load):
    """A class whose text is nowhere is known by its name."""
    scope: dict[str, object] = {}
    exec("from autoresearch.testing import KeepBetter\nclass Typed(KeepBetter): ...", scope)
    name = hashlib.sha256(b"Typed").hexdigest()[:12]
    assert load(scope["Typed"]).active["typed"] == f"0 {name}"
