"""Asks language models for ideas, for their code and for analyses, behind any OpenAI-like server.

Needs the extra ``openai``. One experiment is one conversation: what is refused, by the checks here,
by an audit, a reviewer or a patch that does not fit, goes back into it with the reason, and no more
answers are paid for than the setting ``attempts`` allows. Then the next author has the turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from attrs import define, evolve, field

from autoresearch.config import Config
from autoresearch.desk import Desk
from autoresearch.errors import PluginError, SuspendedError
from autoresearch.frozen import alike
from autoresearch.history import History, script_of
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.ideas import answers, hyperparameters, prompts
from autoresearch.ideas.answers import AnswerError, Ground
from autoresearch.ideas.catalogue import known
from autoresearch.ideas.client import Client, Message, Settings, check, worst_case
from autoresearch.ideas.script import Menu, menu
from autoresearch.model import Analysis, Cost, Experiment, Idea, Remark, Verdict, Workspace
from autoresearch.text import block

T = TypeVar("T")
_CHOICES = 40  # values of the files among which a small model chooses
REST_SECONDS = 600.0  # after which a conversation whose answers are used up may be begun anew


@define
class _Talk:
    """A conversation about one experiment; ``idea`` is the newest that it brought to the loop."""

    number: int
    model: str
    messages: list[Message]
    calls: int = 0
    idea: str = ""
    told: int = 0  # refusals by the loop that the model has heard of
    since: float = field(factory=time.monotonic)


class Plugin(WithTable[Settings]):
    """Proposes, implements ideas in words, repairs crashes, and analyses where it is asked to."""

    name, Settings = "openai", Settings

    def __init__(self) -> None:
        super().__init__()
        self._client = Client(self._settings)
        self._talk: _Talk | None = None
        self._gone: dict[str, str] = {}  # models that cannot be asked, with the reason
        self._novelty = answers.Novelty()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[tool.autoresearch.plugins.openai]``; ConfigError for what cannot work."""
        super().configure(config)
        check(self._settings, config.limits.usd)
        self._client = Client(self._settings)

    # --- ideas ----------------------------------------------------------------------------------

    @hookimpl
    def propose_idea(
        self, history: History, source: str, rng: Random, files: Mapping[str, str], desk: Desk
    ) -> Idea | None:
        """Return an idea that was checked, None when the answers for this experiment are used up.

        Raises PluginError with the last refusal when none of them could be used.
        """
        script = script_of(history)
        files = {**files, script: source}
        ground = Ground(
            history=history,
            source=source,
            author=self.name,
            fixed=frozenset(self._config.env),
            files=files,
            novelty=self._novelty.against(desk),
            menu=self._menu(files, history),
        )
        schema = self._schema(files, history, ground.menu)
        talk = self._conversation(history, files, desk, rng, schema)
        if talk.calls >= self._settings.attempts:
            return None
        idea = self._ask(talk, schema, desk, lambda text: answers.read(text, ground))
        named = f"{self.name}/{talk.model}" if len(self._settings.names) > 1 else self.name
        idea = evolve(idea, author=named)
        talk.idea = idea.id
        return idea

    @hookimpl
    def quote_call(self, history: History, files: Mapping[str, str], desk: Desk) -> list[Cost]:
        """Return the worst case of the next question: its answer by the dearest of the models."""
        if self.name in history.suspended:
            return []
        schema = self._schema(files, history, self._menu(files, history))
        messages = self._question(history, files, desk, schema)
        quoted = (
            worst_case(name, messages, schema, self._settings) for name in self._settings.names
        )
        return [max(quoted, key=lambda cost: cost.usd)]

    def _question(
        self,
        history: History,
        files: Mapping[str, str],
        desk: Desk,
        schema: Mapping[str, Any],
    ) -> list[Message]:
        return prompts.question(
            desk,
            self._settings,
            self._ordered(files, script_of(history)),
            sorted(self._config.env),
            self._facts(history.metric),
            schema,
            "compact" if "change" in schema["properties"] else "system",
        )

    def _conversation(
        self,
        history: History,
        files: Mapping[str, str],
        desk: Desk,
        rng: Random,
        schema: Mapping[str, Any],
    ) -> _Talk:
        """Return the conversation about the next experiment, with what the loop refused of it."""
        talk = self._talk
        if talk is not None and talk.number == history.next_number and talk.model not in self._gone:
            new = [x for x in desk.refused if x.idea == talk.idea and talk.idea][talk.told :]
            if new and talk.calls < self._settings.attempts:
                talk.told += len(new)
                talk.messages.append(self._correction(talk, new[-1].stage, new[-1].reason))
            if new or time.monotonic() - talk.since < REST_SECONDS:
                return talk
        messages = self._question(history, files, desk, schema)
        self._talk = _Talk(history.next_number, self._choose(history, rng), messages)
        return self._talk

    def _choose(self, history: History, rng: Random) -> str:
        """Return a model: each is chosen as often as it is likely to be the best by its record."""
        names = [name for name in self._settings.names if name not in self._gone]
        if not names:  # when a person has them asked again, all are
            reasons, self._gone = "; ".join(dict.fromkeys(self._gone.values())), {}
            raise SuspendedError(reasons)
        return max(
            names, key=lambda name: rng.betavariate(*_record(f"{self.name}/{name}", history))
        )

    def _menu(self, files: Mapping[str, str], history: History) -> Menu:
        """Return what a small model chooses from; nothing for another one."""
        return menu(history, files, self._config, _CHOICES) if self._settings.compact else {}

    def _schema(
        self, files: Mapping[str, str], history: History, choices: Menu
    ) -> Mapping[str, Any]:
        if choices:
            return prompts.compact_schema(choices)
        script = script_of(history)
        paths = list(self._ordered(files, script))
        variables = [
            item.name
            for item in hyperparameters(files[script])
            if item.form == "environment" and item.name not in self._config.env
        ]
        decided = max((item.number for item in history.decided), default=0)
        return prompts.idea_schema(paths, variables[:200], decided)

    # --- code and analyses ----------------------------------------------------------------------

    @hookimpl
    def implement_idea(self, idea: Idea, workspace: Workspace, desk: Desk) -> Mapping[str, str]:
        """Return the files into which an idea in words was written, or with a crash repaired."""
        script, files = workspace.script, workspace.read_editable()
        schema = prompts.change_schema(list(self._ordered(files, script)))
        messages = prompts.task(idea, self._settings, self._ordered(files, script), schema)
        return self._ask(
            self._single(desk, messages),
            schema,
            desk,
            lambda text: answers.read_change(text, files, script),
        )

    @hookimpl(wrapper=True)
    def analyze_run(
        self, experiment: Experiment, history: History, desk: Desk
    ) -> Generator[None, Analysis | None, Analysis | None]:
        """Let the numbers say what came out, and the model why and what it teaches."""
        made = yield
        asked = self._settings.analyze and self.name not in history.suspended
        if not asked or made is None or not experiment.runs or experiment.number == 0:
            return made
        schema = prompts.ANALYSIS
        messages = prompts.analysis(experiment, desk, self._settings, made, schema)
        words = self._ask(self._single(desk, messages), schema, desk, answers.read_words)
        return evolve(made, **words, author=self.name)

    @hookimpl
    def summarize(self, history: History, since: int, desk: Desk) -> list[Remark] | None:
        """Return what the model sees in the experiments from one on; one answer is paid for."""
        if not self._settings.digest or self._settings.compact:
            return None
        schema = prompts.remarks_schema(max(item.number for item in history.decided))
        messages = prompts.digest(desk, self._settings, since, schema)
        talk = self._single(desk, messages)
        talk.calls = self._settings.attempts - 1
        return self._ask(talk, schema, desk, answers.read_remarks)

    def _single(self, desk: Desk, messages: list[Message]) -> _Talk:
        rng = Random(desk.history.next_number)
        return _Talk(-1, self._choose(desk.history, rng), messages)

    # --- one conversation -----------------------------------------------------------------------

    def _ask(
        self, talk: _Talk, schema: Mapping[str, Any], desk: Desk, read: Callable[[str], T]
    ) -> T:
        """Ask until an answer holds or the answers are used up; what is refused goes back."""
        while True:
            text, problem = self._answer(talk, schema, desk)
            talk.messages.append({"role": "assistant", "content": block(text, 20_000) or "..."})
            try:
                if problem:
                    raise AnswerError(f"the model's answer was not used: {problem}")
                return read(text)
            except AnswerError as error:
                desk.refuse(str(error), error.stage)
                if talk.calls >= self._settings.attempts:
                    raise
                talk.messages.append(self._correction(talk, error.stage, str(error)))

    def _correction(self, talk: _Talk, stage: str, reason: str) -> Message:
        last = talk.calls + 1 >= self._settings.attempts
        return prompts.correction(self._settings, stage, reason, last=last)

    def _answer(self, talk: _Talk, schema: Mapping[str, Any], desk: Desk) -> tuple[str, str]:
        """Return one answer, paid for and recorded, and why it is none; another model if one is
        gone for good."""
        left = desk.usd_left
        if left == 0:
            raise PluginError("limits.usd is used up; no model is asked")
        worst = worst_case(talk.model, talk.messages, schema, self._settings).usd
        if left is not None and left < worst:
            raise PluginError(
                f"limits.usd has {left:.4g} left, and an answer of {talk.model} may take "
                f"{worst:.4g}; no model is asked"
            )
        desk.asked(talk.model, *(item["content"] for item in talk.messages))
        try:
            reply = self._client.ask(talk.model, talk.messages, schema)
        except SuspendedError as error:
            self._gone[talk.model] = str(error)
            talk.model = self._choose(
                desk.history, Random(talk.number)
            )  # raises where none is left
            return self._answer(talk, schema, desk)
        talk.calls += 1
        talk.since = time.monotonic()
        usd = reply.usd(talk.model, self._settings)
        desk.answered(
            reply.model or talk.model,
            reply.text,
            alike(Cost, reply, usd=usd or 0.0),
            usd=usd,
            tokens_cached=reply.tokens_cached,
            request=reply.request,
        )
        return reply.text, reply.problem

    # --- what is shown --------------------------------------------------------------------------

    @staticmethod
    def _ordered(files: Mapping[str, str], script: str) -> dict[str, str]:
        return {
            path: files[path] for path in sorted(files, key=lambda path: (path != script, path))
        }

    def _facts(self, metric: str) -> Sequence[str]:
        rows = known(self._config.knowledge) if self._settings.known else ()
        return tuple(prompts.data(row.sentence(metric), 600) for row in rows)


def _record(author: str, history: History) -> tuple[int, int]:
    """Return one more than an author's ideas that were kept, and than those that were not."""
    own = [item for item in history.decided if item.idea.author == author]
    kept = sum(item.verdict is Verdict.KEEP for item in own)
    refused = sum(item.author == author for item in history.refusals)
    return 1 + kept, 1 + len(own) - kept + refused
