"""One question to a language model: over either interface that servers speak, and at what price.

OpenAI's own server is asked through its Responses interface, every other one through chat
completions, unless the setting ``api`` says otherwise. What a server refuses of a request (a
schema, a temperature, the name of a limit) is left out of the next one. Bodies are read as JSON
and not trusted: whatever goes wrong is one line.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import define, frozen

from autoresearch.config import setting
from autoresearch.errors import AutoresearchError, ConfigError, OutageError, SuspendedError, needs
from autoresearch.model import Cost
from autoresearch.text import one_line

if TYPE_CHECKING:
    from openai import OpenAI

Message = dict[str, str]

PRICES_AS_OF = "June 2026"
# US dollars for a million tokens read, read from the provider's cache, and written, as published.
_PRICES: Mapping[str, tuple[float, float, float]] = {
    "gpt-5.5": (5.0, 0.5, 30.0),
    "gpt-5.4": (2.5, 0.25, 15.0),
    "gpt-5.4-mini": (0.75, 0.075, 4.5),
    "gpt-5.4-nano": (0.2, 0.02, 1.25),
    "gpt-5.2": (1.75, 0.175, 14.0),
    "gpt-5.1": (1.25, 0.125, 10.0),
    "gpt-5": (1.25, 0.125, 10.0),
    "gpt-5-mini": (0.25, 0.025, 2.0),
    "gpt-5-nano": (0.05, 0.005, 0.4),
    "gpt-4.1": (2.0, 0.5, 8.0),
    "gpt-4.1-mini": (0.4, 0.1, 1.6),
    "gpt-4.1-nano": (0.1, 0.025, 0.4),
    "gpt-4o": (2.5, 1.25, 10.0),
    "gpt-4o-mini": (0.15, 0.075, 0.6),
    "o4-mini": (1.1, 0.275, 4.4),
}
_OWN_HOSTS = ("api.openai.com", "eu.api.openai.com", "us.api.openai.com")
_LARGEST_BODY = 4_000_000  # characters
_DEGRADATIONS = 5
_BYTES = 3  # to a token at the least: tokenizers of these models take 3 to 5 of prose and code
_FOR_GOOD = "insufficient_quota|API key not valid"  # said with a 429 and a 400
_SHAPES = ("json_schema", "json_object", "prompt")
# What the longest answer is called: OpenAI's own newer models refuse the name that others know.
_LIMITS = {
    ("responses", True): ("max_output_tokens",),
    ("responses", False): ("max_output_tokens",),
    ("chat", True): ("max_completion_tokens", "max_tokens"),
    ("chat", False): ("max_tokens", "max_completion_tokens"),
}


@frozen(kw_only=True)
class Settings:
    """Which server and models, how long, how much they are shown, and what they cost."""

    model: str = setting("gpt-5-mini", "name of the model, as the server knows it")
    models: tuple[str, ...] = setting(
        (), "several models instead, which share the questions by their success"
    )
    base_url: str = setting("", "address of an OpenAI-compatible server; empty: OpenAI's own")
    api: str = setting("auto", "responses, chat, or auto: responses for OpenAI's own server")
    api_key_env: str = setting("OPENAI_API_KEY", "environment variable that holds the key")
    headers: Mapping[str, str] = setting({}, "further headers of every request")
    query: Mapping[str, str] = setting({}, "further query parameters, such as api-version")
    body: Mapping[str, Any] = setting({}, "further fields of the request's body")
    reasoning_effort: str = setting("", "how long a reasoning model thinks; empty: its default")
    temperature: float = setting(-1.0, "sampling temperature; negative: the server's default")
    max_tokens: int = setting(8000, "longest answer with its hidden thoughts, tokens")
    timeout_seconds: float = setting(180.0, "longest wait for one answer, seconds")
    retries: int = setting(2, "times the client repeats a request after a rate limit or an outage")
    attempts: int = setting(
        3, "answers paid for one experiment at most, those to refused ideas included"
    )
    prompt_tokens: int = setting(
        12_000, "of the campaign's memory in a prompt, tokens; dead ends and digest always stay"
    )
    max_source_chars: int = setting(
        80_000, "characters of the editable files that are shown, the script first"
    )
    documents: tuple[str, ...] = setting(
        ("README.md",), "tracked files with rules or advice that are shown too"
    )
    templates: str = setting("", "folder whose files replace the prompts of the same name")
    known: bool = setting(True, "also show the known effects, where `knowledge` names a file")
    schema: bool = setting(True, "ask the server to enforce the JSON schema")
    compact: bool = setting(False, "ask for the few fields that a small model can fill")
    digest: bool = setting(True, "have the model look back on every ten experiments")
    analyze: bool = setting(False, "have the model write the ANALYSIS block of each experiment")
    usd_per_million_in: float = setting(
        -1.0, f"price of a million tokens read, US dollars; negative: as of {PRICES_AS_OF}"
    )
    usd_per_million_cached: float = setting(
        -1.0, "the same for those from the provider's cache; negative: as for any"
    )
    usd_per_million_out: float = setting(
        -1.0, f"price of a million tokens written, US dollars; negative: as of {PRICES_AS_OF}"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The models that may be asked."""
        return self.models or (self.model,)

    @property
    def address(self) -> str:
        """The server's address, empty for OpenAI's own."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL", "")

    @property
    def own(self) -> bool:
        """Whether the server is OpenAI's own."""
        return not self.address or urlsplit(self.address).hostname in _OWN_HOSTS

    @property
    def is_held(self) -> bool:
        """Whether the server is said to hold a model to a schema, so that no prompt shows it."""
        return self.schema and self.own

    @property
    def interface(self) -> str:
        """The interface that is spoken: responses or chat."""
        return self.api if self.api != "auto" else "responses" if self.own else "chat"


def check(settings: Settings, limit_usd: float) -> None:
    """Refuse settings that cannot work: an unknown interface, no attempt, an unknown price."""
    if settings.api not in ("auto", "responses", "chat"):
        raise ConfigError(
            f"plugins.openai.api is {settings.api!r}; set it to auto, responses or chat"
        )
    if settings.attempts < 1:
        raise ConfigError(f"plugins.openai.attempts is {settings.attempts}; set it to 1 or more")
    for model in settings.names if limit_usd > 0 else ():
        if price(model, settings) is None:
            raise ConfigError(
                f"the price of {model} is not known, so limits.usd cannot hold; set "
                "plugins.openai.usd_per_million_in and usd_per_million_out (0 where it is free)"
            )


def price(model: str, settings: Settings) -> tuple[float, float, float] | None:
    """Return the US dollars for a million tokens read, cached and written; None when unknown.

    A dated name such as ``gpt-5-mini-2025-08-07`` costs what the name without its date costs.
    """
    read, written = settings.usd_per_million_in, settings.usd_per_million_out
    if read >= 0 and written >= 0:
        cached = settings.usd_per_million_cached
        return (read, cached if cached >= 0 else read, written)
    name = model.rpartition("/")[2]
    return _PRICES.get(name) or _PRICES.get(name.partition("-20")[0])


def worst_case(
    model: str, messages: Sequence[Message], schema: Mapping[str, Any] | None, settings: Settings
) -> Cost:
    """Return what one answer may cost at the most: the question is read as tokens of 3 bytes, and
    ``max_tokens`` are written. A price that is not known counts as 0; see `check`.
    """
    asked = [item["content"] for item in messages] + [json.dumps(schema or {})]
    tokens = sum(len(text.encode("utf-8", "replace")) for text in asked) // _BYTES + 1
    rates = price(model, settings) or (0.0, 0.0, 0.0)
    usd = (tokens * max(rates[:2]) + settings.max_tokens * rates[2]) / 1e6
    return Cost(tokens_in=tokens, tokens_out=settings.max_tokens, usd=usd)


@frozen(kw_only=True)
class Reply:
    """What came back; ``problem`` says why its ``text`` is not an answer, where it is none."""

    text: str
    problem: str = ""
    model: str = ""
    request: str = ""
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0

    def usd(self, asked: str, settings: Settings) -> float | None:
        """Return what it cost, None when the price is not known."""
        rates = price(asked, settings)
        if rates is None:
            return None
        fresh = max(0, self.tokens_in - self.tokens_cached)
        counts = (fresh, self.tokens_in - fresh, self.tokens_out)
        return sum(count * rate for count, rate in zip(counts, rates, strict=True)) / 1e6


@define
class _Dialect:
    """What one model of a server takes, as far as its refusals have told."""

    shape: int
    limits: tuple[str, ...]
    temperature: bool = True
    effort: bool = True

    def yields(self, said: str, settings: Settings) -> bool:
        """Leave out what a refusal names; False when there is nothing to leave out."""
        if any(word in said for word in ("context", "too long", "too large")):
            return False
        if self.temperature and settings.temperature >= 0 and "temperature" in said:
            self.temperature = False
        elif self.effort and settings.reasoning_effort and "reasoning" in said:
            self.effort = False
        elif "max_" in said and "token" in said and self.limits:
            self.limits = self.limits[1:]
        elif self.shape < len(_SHAPES) - 1:
            self.shape += 1
        else:
            return False
        return True


class Client:
    """Asks models of one server; what they refuse of a request is remembered for the next one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dialects: dict[str, _Dialect] = {}

    def ask(self, model: str, messages: Sequence[Message], schema: Mapping[str, Any]) -> Reply:
        """Return the reply to a conversation whose answer should have the ``schema``.

        Raises OutageError where another time may help and SuspendedError where a person must.
        """
        shape = 0 if self._settings.schema else len(_SHAPES) - 1
        limits = _LIMITS[self._settings.interface, self._settings.own]
        dialect = self._dialects.setdefault(model, _Dialect(shape, limits))
        start = time.monotonic()
        with self._connect() as client:
            for _ in range(_DEGRADATIONS):
                body, request = self._once(client, model, messages, schema, dialect)
                if body is not None:
                    return self._reply(body, request, time.monotonic() - start)
        raise OutageError(f"{self._server} refuses every form of the request; try another model")

    @property
    def _server(self) -> str:
        return self._settings.address or "OpenAI"

    def _connect(self) -> OpenAI:
        settings = self._settings
        with needs("openai", SuspendedError):
            from openai import OpenAI
        key = os.environ.get(settings.api_key_env, "")
        if not key and settings.own:
            raise SuspendedError(
                f"environment variable {settings.api_key_env} is empty; put an API key into it or "
                "set plugins.openai.base_url to a server that needs none"
            )
        return OpenAI(
            api_key=key or "none",
            base_url=settings.address or None,
            timeout=settings.timeout_seconds,
            max_retries=settings.retries,
            default_headers=dict(settings.headers),
            default_query=dict(settings.query),
        )

    def _once(
        self,
        client: OpenAI,
        model: str,
        messages: Sequence[Message],
        schema: Mapping[str, Any],
        dialect: _Dialect,
    ) -> tuple[Any, str]:
        """Return body and id of one answer; a body of None when the request must be another."""
        from openai import APIStatusError, OpenAIError

        responses = self._settings.interface == "responses"
        request = _request(model, messages, schema, dialect, self._settings)
        request["extra_body"] = dict(self._settings.body)
        place = client.responses if responses else client.chat.completions
        try:
            raw = place.with_raw_response.create(**request)
            answer = raw.http_response
            text = answer.text
            if len(text) > _LARGEST_BODY:
                raise ValueError(f"its body has {len(text):,} characters")
            body = json.loads(text) or {}
            told, status = _error_in(body)
            if not told:
                return body, str(answer.headers.get("x-request-id", ""))
        except APIStatusError as error:
            told, status = f"{type(error).__name__}: {error}", error.status_code
            told += f": {error.response.text}" if isinstance(error.body, list) else ""
        except (OpenAIError, ValueError, RecursionError) as error:
            told, status = f"{type(error).__name__}: {error}", None
        if status in (400, 422) and dialect.yields(told.lower(), self._settings):
            return None, ""
        raise self._failure(told, status)

    def _failure(self, told: str, status: int | None) -> AutoresearchError:
        for secret in (
            os.environ.get(self._settings.api_key_env, ""),
            *self._settings.headers.values(),
            *self._settings.query.values(),
        ):
            told = told.replace(secret, "***") if len(secret) > 7 else told
        lasting = status in (401, 402, 403, 404) or re.search(_FOR_GOOD, told)
        kind = SuspendedError if lasting else OutageError
        return kind(
            f"{self._server} gave no answer: {one_line(told, 200)}; "
            "check the server, the key and the model's name"
        )

    def _reply(self, body: Any, request: str, seconds: float) -> Reply:
        body = body if isinstance(body, dict) else {}
        read = _read_responses if self._settings.interface == "responses" else _read_chat
        text, problem = read(body)
        used = _table(body, "usage")
        details = _table(used, "prompt_tokens_details") or _table(used, "input_tokens_details")
        tokens_in = _count(used, "prompt_tokens") or _count(used, "input_tokens")
        return Reply(
            text=text,
            problem=problem or ("" if text.strip() else "it is empty; ask again"),
            model=one_line(str(body.get("model") or ""), 100),
            request=one_line(request or str(body.get("id") or ""), 100),
            tokens_in=tokens_in,
            tokens_cached=min(tokens_in, _count(details, "cached_tokens")),
            tokens_out=_count(used, "completion_tokens") or _count(used, "output_tokens"),
            seconds=seconds,
        )


# --- requests -------------------------------------------------------------------------------------


def _request(
    model: str,
    messages: Sequence[Message],
    schema: Mapping[str, Any],
    dialect: _Dialect,
    settings: Settings,
) -> dict[str, Any]:
    effort = settings.reasoning_effort if dialect.effort else ""
    kind = _SHAPES[dialect.shape]
    wanted: dict[str, Any] = {"type": kind}
    shape = {"name": "experiment", "schema": schema, "strict": True} if kind == _SHAPES[0] else {}
    request: dict[str, Any] = {"model": model}
    if settings.interface == "responses":
        request |= {"input": list(messages), "store": False, **_length(dialect, settings)}
        request |= {"reasoning": {"effort": effort}} if effort else {}
        return request if kind == "prompt" else request | {"text": {"format": wanted | shape}}
    request |= {"messages": list(messages), **_length(dialect, settings)}
    request |= {"reasoning_effort": effort} if effort else {}
    wanted |= {"json_schema": shape} if shape else {}
    return request if kind == "prompt" else request | {"response_format": wanted}


def _length(dialect: _Dialect, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(dialect.limits[:1], settings.max_tokens)
    if settings.temperature >= 0 and dialect.temperature:
        found["temperature"] = settings.temperature
    return found


# --- answers; their shape is whatever the server chose to send ------------------------------------


def _error_in(body: Any) -> tuple[str, int | None]:
    """Return what a body says went wrong, and with which status: routers send that with 200."""
    table = body if isinstance(body, dict) else {}
    choices = table.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else table
    error = first.get("error") if isinstance(first, dict) and not table.get("output") else None
    if not error:
        return "", None
    told = error if isinstance(error, dict) else {"message": error}
    code = told.get("code")
    named = f"error {code}: " if code else "error: "
    return f"{named}{told.get('message')}", code if type(code) is int else None


def _read_chat(body: Mapping[str, Any]) -> tuple[str, str]:
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return "", "it has no choices; ask again"
    message = _table(choice, "message")
    text = _text(message.get("content"))
    return text, _problem(message.get("refusal"), choice.get("finish_reason"))


def _read_responses(body: Mapping[str, Any]) -> tuple[str, str]:
    output = body.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    parts = [
        part
        for item in items
        if item.get("type") == "message" and isinstance(item.get("content"), list)
        for part in item["content"]
        if isinstance(part, dict)
    ]
    refusal = next((part["refusal"] for part in parts if part.get("refusal")), None)
    reason = _table(body, "incomplete_details").get("reason")
    return _text(parts), _problem(refusal, reason)


def _problem(refusal: Any, reason: Any) -> str:
    if refusal:
        return f"the model refused: {one_line(str(refusal), 100)}; choose another idea"
    if reason in ("length", "max_output_tokens"):
        return f"it ended early ({reason}); write less, or raise plugins.openai.max_tokens"
    return f"it ended early ({reason}); choose another idea" if reason == "content_filter" else ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _table(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def _count(usage: Mapping[str, Any], name: str) -> int:
    count = usage.get(name)
    return count if type(count) is int and count >= 0 else 0
