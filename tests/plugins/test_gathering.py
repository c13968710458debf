"""What several plugins give together; a clash names both."""

import click
import pytest
from attrs import frozen

from autoresearch import Config, History, hookimpl
from autoresearch.errors import PluginError
from autoresearch.testing import FixedMetrics, history, run_output


class More(FixedMetrics):
    """Another extractor."""


def test_metrics_are_merged(only, tmp_path):
    """Each extractor adds its names; equal values for one name agree."""
    plugins, failures = only(
        FixedMetrics({"score": 1.0, "size": 5}), More({"size": 5.0, "params": 7})
    )
    found = plugins.extract_metrics(run_output(tmp_path))
    assert found == {"score": 1.0, "size": 5.0, "params": 7.0}
    assert all(type(value) is float for value in found.values())
    assert failures == []


def test_two_values_for_one_name_are_an_error(only, tmp_path):
    """The failure names both plugins and both values; nobody wins, not even a third."""

    class Third(FixedMetrics):
        """Agrees with the first."""

    plugins, failures = only(
        FixedMetrics({"score": 1.0, "size": 5}), More({"score": 1.5}), Third({"score": 1.0})
    )
    assert plugins.extract_metrics(run_output(tmp_path)) == {"size": 5.0}
    assert [failure.error for failure in failures] == [
        "answer refused: two values for 'score': 1.0 from third and 1.5 from more; neither is used"
    ]


class Measures:
    """Says what a score was measured with."""

    def __init__(self, **measurement):
        self.measurement = measurement

    @hookimpl
    def measure_run(self):
        return self.measurement


def test_measurements_are_merged_and_clash_alike(only, tmp_path):
    """What two plugins tell differently is left out, and is told."""

    class Others(Measures):
        """Another plugin."""

    plugins, failures = only(Measures(data="a", code="x"), Others(data="b", hardware="H100"))
    assert plugins.measure_run(run_output(tmp_path)) == {"code": "x", "hardware": "H100"}
    assert "two values for 'data': 'b' from others and 'a' from measures" in failures[0].error
    plugins, failures = only(Measures(data=1))
    assert plugins.measure_run(run_output(tmp_path)) == {}
    assert failures[0].error == "answer refused: a measurement holds 1; give text"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "1.0", True, [1.0]])
def test_what_is_no_number_is_absent(only, tmp_path, value):
    """A value that is not finite is told and left out; the others stand."""
    plugins, failures = only(FixedMetrics({"score": value, "size": 5}))
    assert plugins.extract_metrics(run_output(tmp_path)) == {"size": 5.0}
    (failure,) = failures
    assert failure.error.startswith("answer refused: metric 'score': ")
    assert failure.error.endswith("is not a finite number; leave an absent metric out")


def test_metrics_that_are_no_mapping_are_refused(only, tmp_path):
    """A list of pairs is not a mapping."""

    class Pairs:
        @hookimpl
        def extract_metrics(self):
            return [("score", 1.0)]

    plugins, failures = only(Pairs())
    assert plugins.extract_metrics(run_output(tmp_path)) == {}
    assert "is not a mapping of names to numbers" in failures[0].error


@frozen
class View:
    """A projection that shows how many experiments there are."""

    file_name: object = "view.txt"

    def render(self, history: History) -> str:
        return f"{len(history.experiments)} of {1 / len(history.experiments)}\n"


def offering(name: str, *views: object) -> object:
    """Return a plugin that offers projections."""

    def register_projections(self):
        return views

    return type(name, (), {"register_projections": hookimpl(register_projections)})()


def test_projections_are_gathered(only):
    """Each is called by its file's name and renders the history."""
    plugins, _ = only(offering("A", View("a.txt")), offering("B", View("b.txt")))
    views = plugins.projections(Config())
    assert [view.file_name for view in views] == ["b.txt", "a.txt"]
    assert views[0].render(history([1.1])) == "1 of 1.0\n"


def test_a_projection_that_fails_says_so_in_its_file(only):
    """The loop goes on writing the others; the failure names the plugin."""
    plugins, failures = only(offering("A", View("a.txt")))
    text = plugins.projections(Config())[0].render(history())
    assert text == "a.txt could not be made by plugin a: ZeroDivisionError: division by zero\n"
    assert [(item.plugin, item.hook) for item in failures] == [("a", "register_projections")]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (View(), "is not a sequence of Projection"),
        ([object()], "is not of type Projection"),
    ],
)
def test_what_is_no_projection_is_refused(only, answer, error):
    """A plugin offers a list of things with a file name and a text."""

    class Offers:
        @hookimpl
        def register_projections(self):
            return answer

    plugins, failures = only(Offers())
    assert plugins.projections(Config()) == ()
    assert failures[0].error.endswith(error)


def test_a_projection_renders_text(only):
    """Bytes are not the text of a file."""

    class Bytes(View):
        def render(self, history):
            return b"best"

    plugins, failures = only(offering("A", Bytes("a.txt")))
    assert "bytes is not the text of a.txt" in plugins.projections(Config())[0].render(history())
    assert len(failures) == 1


def test_two_projections_of_one_file_are_refused(only):
    """Both plugins are named; so is the loop, whose own files are taken."""
    plugins, _ = only(offering("A", View()), offering("B", View()))
    with pytest.raises(PluginError, match=r"view\.txt is written by b and by plugin a; rename"):
        plugins.projections(Config())
    plugins, _ = only(offering("A", View("notes.md")))
    with pytest.raises(PluginError, match=r"notes\.md is written by autoresearch and by plugin a"):
        plugins.projections(Config())


@pytest.mark.parametrize("name", ["../view.txt", "", "a/b", 7, "/etc/passwd"])
def test_a_projection_stays_in_its_folder(only, name):
    """A file name leads nowhere else."""
    plugins, failures = only(offering("A", View(name)))
    assert plugins.projections(Config()) == ()
    assert "is not the name of a file; leave folders out" in failures[0].error


def test_commands_are_added(only):
    """A plugin adds a command to the command line."""

    class Hello:
        @hookimpl
        def register_commands(self, cli):
            @cli.command()
            def hello():
                """Greet."""

    plugins, failures = only(Hello())
    cli = click.Group()
    plugins.register_commands(cli)
    assert list(cli.commands) == ["hello"]
    assert failures == []


@pytest.mark.parametrize("how", ["replaces", "removes", "raises"])
def test_commands_that_are_there_stay(only, how):
    """A plugin that takes a command away, or breaks half way, has added nothing."""

    class Greedy:
        @hookimpl
        def register_commands(self, cli):
            cli.add_command(click.Command("more"))
            if how == "replaces":
                cli.add_command(click.Command("start"))
            elif how == "removes":
                del cli.commands["start"]
            else:
                raise RuntimeError("half way")

    plugins, failures = only(Greedy())
    start = click.Command("start")
    cli = click.Group(commands=[start])
    plugins.register_commands(cli)
    assert cli.commands == {"start": start}
    assert failures[0].hook == "register_commands"
