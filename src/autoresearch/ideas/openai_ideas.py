"""Asks a language model for ideas and for their code, behind any OpenAI-compatible server.

Needs the extra ``openai``. Chat completions with a JSON schema are used because that is what such
servers enforce best; what comes back is checked as if there were no schema. Whatever goes wrong is
one PluginError, and the next generator answers instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from attrs import frozen

from autoresearch.config import Config, setting
from autoresearch.errors import PluginError
from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas import answers, prompts
from autoresearch.ideas.answers import AnswerError, Ground
from autoresearch.ideas.known import known
from autoresearch.ideas.script import script_of
from autoresearch.model import Cost, Idea, Workspace
from autoresearch.text import block, one_line

if TYPE_CHECKING:
    from openai import OpenAI

T = TypeVar("T")
_NAME = "openai"


@frozen(kw_only=True)
class Settings:
    """Which server and model, how long, and how much it is shown."""

    model: str = setting("gpt-5-mini", "name of the model, as the server knows it")
    base_url: str = setting("", "address of an OpenAI-compatible server; empty: OpenAI's own")
    api_key_env: str = setting("OPENAI_API_KEY", "environment variable that holds the key")
    temperature: float = setting(-1.0, "sampling temperature; negative: the server's default")
    max_tokens: int = setting(8000, "longest answer, tokens")
    timeout_seconds: float = setting(180.0, "longest wait for one answer, seconds")
    retries: int = setting(2, "times the client repeats a request after a rate limit or an outage")
    attempts: int = setting(2, "answers asked for; a bad one is sent back with what was wrong")
    max_source_chars: int = setting(
        80_000, "characters of the editable files that are shown, the script first"
    )
    known: bool = setting(True, "also show the known effects, where `knowledge` names a file")
    schema: bool = setting(True, "ask the server to enforce the JSON schema")
    usd_per_million_in: float = setting(0.0, "price of a million tokens read, US dollars")
    usd_per_million_out: float = setting(0.0, "price of a million tokens written, US dollars")


@frozen(kw_only=True)
class Usage:
    """Tokens that one request used, all attempts together, as the server counted them."""

    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0

    def plus(self, tokens_in: int, tokens_out: int) -> Usage:
        """Return the sum with the tokens of one more answer."""
        return Usage(
            model=self.model,
            tokens_in=self.tokens_in + tokens_in,
            tokens_out=self.tokens_out + tokens_out,
        )


class Plugin:
    """Proposes, implements ideas in words and repairs crashes; ``usage`` is of the last answer."""

    def __init__(self) -> None:
        self._config, self._settings, self.usage = Config(), Settings(), Usage()
        self._unreported = Usage()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[tool.autoresearch.plugins.openai]``."""
        self._config, self._settings = config, config.settings(_NAME, Settings)

    @hookimpl
    def propose_idea(self, history: History, source: str, files: Mapping[str, str]) -> Idea:
        """Return an idea that was checked; PluginError when none could be had."""
        fixed = frozenset(self._config.env)
        shown = {**files, script_of(history): source}
        ground = Ground(history=history, source=source, author=_NAME, fixed=fixed, files=files)
        asked = prompts.question(
            history, self._shown(shown, script_of(history)), fixed, self._facts(history.metric)
        )
        return self._ask(
            (prompts.SYSTEM, asked), prompts.SCHEMA, lambda text: answers.read(text, ground)
        )

    @hookimpl
    def implement_idea(self, idea: Idea, workspace: Workspace) -> Mapping[str, str]:
        """Return the files into which an idea in words was written, or with a crash repaired."""
        script, files = workspace.script, _editable(workspace)
        asked = prompts.task(idea, self._shown(files, script))
        return self._ask(
            (prompts.IMPLEMENT, asked),
            prompts.CHANGE,
            lambda text: answers.read_change(text, files, script),
        )

    def _shown(self, files: Mapping[str, str], script: str) -> dict[str, str]:
        """Return the files, the script first, up to the number of characters that are shown."""
        room, shown = self._settings.max_source_chars, {}
        for path in sorted(files, key=lambda path: (path != script, path)):
            shown[path] = files[path][:room]
            room -= len(shown[path])
        return shown

    def _facts(self, metric: str) -> tuple[str, ...]:
        rows = known(self._config.knowledge) if self._settings.known else ()
        return tuple(row.sentence(metric) for row in rows)

    def _ask(self, told: tuple[str, str], schema: dict[str, Any], read: Callable[[str], T]) -> T:
        """Ask until an answer holds; a bad one goes back to the model with what was wrong."""
        self.usage = Usage(model=self._settings.model)
        messages = [
            {"role": "system", "content": told[0]},
            {"role": "user", "content": told[1]},
        ]
        attempts = 0
        with _client(self._settings) as client:
            while True:
                attempts += 1
                request = _request(messages, schema, self._settings)
                answer = _complete(client, request, self._settings)
                self._count(answer)
                text = _text(answer)
                try:
                    return read(text)
                except AnswerError as error:
                    if attempts >= self._settings.attempts:
                        raise
                    messages += _correction(text, error)

    def _count(self, answer: Any) -> None:
        used = getattr(answer, "usage", None)
        read, written = _tokens(used, "prompt_tokens"), _tokens(used, "completion_tokens")
        self.usage = self.usage.plus(read, written)
        self._unreported = self._unreported.plus(read, written)

    @hookimpl
    def report_costs(self) -> list[Cost]:
        """Report the tokens of all answers since the last call, the useless ones included."""
        spent, self._unreported = self._unreported, Usage()
        if not spent.tokens_in and not spent.tokens_out:
            return []
        settings = self._settings
        usd = spent.tokens_in * settings.usd_per_million_in / 1e6
        usd += spent.tokens_out * settings.usd_per_million_out / 1e6
        return [Cost(tokens_in=spent.tokens_in, tokens_out=spent.tokens_out, usd=usd)]


def _editable(workspace: Workspace) -> dict[str, str]:
    """Return the text of every editable file of a worktree by path."""
    found = {workspace.script: workspace.read_script()}
    if not workspace.editable:  # a worktree may be large
        return found
    for place in workspace.path.rglob("*"):
        path = place.relative_to(workspace.path).as_posix()
        if workspace.allows(path) and place.is_file() and not place.is_symlink():
            found[path] = place.read_bytes().decode("utf-8")
    return found


def _correction(text: str, error: AnswerError) -> list[dict[str, str]]:
    return [
        {"role": "assistant", "content": block(text, 20_000)},
        {"role": "user", "content": f"{error}. Answer again with one JSON object."},
    ]


def _client(settings: Settings) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError:
        raise PluginError(
            "the package openai is not installed; install autoresearch[openai]"
        ) from None
    key = os.environ.get(settings.api_key_env, "")
    if not key and not settings.base_url:
        raise PluginError(
            f"environment variable {settings.api_key_env} is empty; put an API key into it or set "
            "plugins.openai.base_url to a server that needs none"
        )
    return OpenAI(
        api_key=key or "none",
        base_url=settings.base_url or None,
        timeout=settings.timeout_seconds,
        max_retries=settings.retries,
    )


def _complete(client: OpenAI, request: dict[str, Any], settings: Settings) -> Any:
    from openai import OpenAIError

    try:
        return client.chat.completions.create(**request)
    except OpenAIError as error:
        _fail(error, settings)
    except ValueError as error:  # a body that claims to be JSON and is not
        _fail(error, settings)


def _request(
    messages: list[dict[str, str]], schema: dict[str, Any], settings: Settings
) -> dict[str, Any]:
    request: dict[str, Any] = {"model": settings.model, "messages": messages}
    # Only OpenAI's own newer models insist on the new name; the others know the old one.
    limit = "max_tokens" if settings.base_url else "max_completion_tokens"
    request[limit] = settings.max_tokens
    if settings.temperature >= 0:
        request["temperature"] = settings.temperature
    if settings.schema:
        shape = {"name": "experiment", "schema": schema, "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": shape}
    return request


def _fail(error: Exception, settings: Settings) -> NoReturn:
    key = os.environ.get(settings.api_key_env, "")
    told = str(error).replace(key, "***") if key else str(error)
    server = settings.base_url or "OpenAI"
    raise PluginError(
        f"{server} gave no answer: {type(error).__name__}: {one_line(told, 200)}; "
        "check the server, the key and the model's name"
    ) from None


def _text(answer: Any) -> str:
    """Return the text of a completion; its shape is whatever the server chose to send."""
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise AnswerError("the model's answer was not used: it has no choices; ask again")
    message = getattr(choices[0], "message", None)
    reason, content = getattr(choices[0], "finish_reason", None), getattr(message, "content", None)
    refusal = getattr(message, "refusal", None)
    if refusal:
        raise AnswerError(f"the model refused: {one_line(str(refusal))}; choose another model")
    if reason in ("length", "content_filter"):
        raise AnswerError(
            f"the model's answer ended early ({reason}); raise plugins.openai.max_tokens"
        )
    if not isinstance(content, str) or not content.strip():
        raise AnswerError("the model's answer was not used: it is empty; ask again")
    return content


def _tokens(usage: Any, name: str) -> int:
    count = getattr(usage, name, 0)
    return count if type(count) is int and count >= 0 else 0
