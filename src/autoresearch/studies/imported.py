"""Turns the rows of a foreign history into the facts of a campaign, in memory or in the store."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from autoresearch import events
from autoresearch.campaign import Campaign
from autoresearch.config import Config
from autoresearch.cycle import beginning
from autoresearch.durable import digest
from autoresearch.errors import WorkspaceError
from autoresearch.folding import empty, foresee
from autoresearch.git import Git
from autoresearch.history import IMPORTED, History, imported_from
from autoresearch.model import RunStatus, Verdict
from autoresearch.opening import open_campaign, store_of, tags, write_projections
from autoresearch.presets import presets
from autoresearch.settings import load
from autoresearch.setup import FILES, environment, hide
from autoresearch.studies import columns, ledgers
from autoresearch.studies.columns import Reading
from autoresearch.studies.rows import Past
from autoresearch.text import one_line
from autoresearch.workspace import Lab, check_tag

AUTHOR = "import"
Fact = tuple[events.Event, str]


@frozen(kw_only=True)
class Plan:
    """What an import would write: the meaning of every file, and what becomes of its rows.

    ``facts`` come in their order, each with its id; ``history`` is what they fold to.
    """

    tag: str
    config: Config
    readings: tuple[Reading, ...]
    facts: tuple[Fact, ...]
    history: History
    new: int
    known: int
    notes: tuple[str, ...] = ()
    lacking: tuple[Past, ...] = field(default=())  # rows that are no experiment

    @property
    def verdicts(self) -> Mapping[str, int]:
        """How many of all experiments had each verdict."""
        return Counter(str(item.verdict) for item in self.history.experiments)

    @property
    def problems(self) -> Mapping[str, int]:
        """What was wrong with rows, and how often; texts of single rows are left out."""
        told = (p for reading in self.readings for row in reading.rows for p in row.problems)
        return Counter(re.sub(r"'.*?'|[\d,]+ B$", "…", problem) for problem in told)


def plan(
    sources: Sequence[str],
    project: Path,
    *,
    tag: str | None = None,
    asked: Mapping[str, str] = {},
    better: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] = {},
    stored: bool = True,
) -> Plan:
    """Read histories and say what they would become; nothing is written.

    ``settings`` have dotted names, such as ``metric.sd``. ``stored`` False leaves the project's
    store alone, for a history that is only looked at. Raises WorkspaceError for what cannot be
    read, and for a tag whose campaign was run here.
    """
    readings = [
        columns.interpret(ledgers.read(source, project), asked, better or "") for source in sources
    ]
    _must_have_one_metric(readings)
    config, notes = _config(readings[0], project, environ, settings)
    tag = check_tag(tag or _tag(sources[0]))
    commits = _resolved(project, readings) if stored else {}
    before = _begun(project, tag) if stored else None
    if before is not None:
        config = before.config
        told = _Teller(before.history, config, commits, lambda name: bool(before.log.find(name)))
    else:
        told = _Teller(empty(tag), config, commits, lambda _: False)
        told.tell(_began(tag, config, project, sources, stored=stored), f"import/{tag}")
    for reading in readings:
        told.take(reading.rows)
    return Plan(
        tag=tag, config=config, readings=tuple(readings), facts=tuple(told.facts),
        history=told.history, new=told.new, known=told.known, notes=notes,
        lacking=tuple(told.lacking),
    )  # fmt: skip


def _must_have_one_metric(readings: Sequence[Reading]) -> None:
    first = readings[0]
    if odd := [each for each in readings if each.metric != first.metric]:
        raise WorkspaceError(
            f"{odd[0].table.source} has the metric {odd[0].metric}, {first.table.source} has "
            f"{first.metric}; import them under tags of their own"
        )


def _begun(project: Path, tag: str) -> Campaign | None:
    """Return the campaign that an earlier import began under a tag, None where there is none."""
    if not (project / ".autoresearch").is_dir() or tag not in tags(store_of(project)):
        return None
    campaign = open_campaign(project, tag)
    if imported_from(campaign.history) is None:
        raise WorkspaceError(f"campaign {tag} was run here; import under another --tag")
    return campaign


def _began(
    tag: str, config: Config, project: Path, sources: Sequence[str], *, stored: bool
) -> events.CampaignStarted:
    """Return how a campaign begins that is taken over: at the commit of now, by these files."""
    base = Git(project).commit_of("HEAD")
    if stored and base is None:
        raise WorkspaceError(
            f"{project} has no commit yet; make one first: git commit --allow-empty -m start"
        )
    facts = {**environment(), IMPORTED: ", ".join(Path(source).name for source in sources)}
    return beginning(tag, config, base or "", _script(project, config), {}, facts)


def write(made: Plan, project: Path) -> Campaign:
    """Write a plan into the store: one append, so that no kill leaves half a history."""
    log = store_of(project)
    campaign = Campaign(project, made.tag, log, made.config)
    started = made.history.started
    assert started is not None
    with log.writer(made.tag) as writer:
        log.sources.put(_script(project, made.config))
        _keep_commits(campaign.lab, made)
        campaign.lab.create(started.base_commit)
        if made.facts:
            writer.append_many([e for e, _ in made.facts], event_ids=[i for _, i in made.facts])
    hide(project, FILES)
    write_projections(project, log)
    return campaign


def _tag(source: str) -> str:
    path = Path(source)
    stem = re.sub(r"\.(tsv|csv|jsonl?|md|txt)$", "", path.name)
    if stem in ("results", "ledger", "notes", "experiments", "history", "log"):
        stem = f"{path.resolve().parent.name}-{stem}"
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-") or "imported"


def _config(
    first: Reading,
    project: Path,
    environ: Mapping[str, str] | None,
    settings: Mapping[str, Any],
) -> tuple[Config, tuple[str, ...]]:
    """Return the settings: the project's, or those of the preset whose metric this is."""
    given: dict[str, Any] = {
        "metric.name": first.metric,
        "metric.better": "lower" if first.lower else "higher",
        **settings,
    }
    config = load(project, environ=environ, overrides=given).config
    for name, preset in presets().items():
        if config.preset != name and preset.settings.get("metric", {}).get("name") == first.metric:
            config = load(project, environ=environ, overrides={"preset": name, **given}).config
    noise = f"{config.metric.sd:g}" if config.metric.sd else "unknown (--set metric.sd=… says it)"
    notes = [f"settings of the preset {config.preset}: noise {noise}"]
    sized = sum(row.size is not None for row in first.rows if row.score is not None)
    if limit := config.limits.artifact_bytes:
        scored = sum(row.score is not None for row in first.rows)
        notes[0] += f", artifacts under {limit:,} B (known for {sized} of {scored} scores)"
    return config, tuple(notes)


def _script(project: Path, config: Config) -> str:
    try:
        return (project / config.script).read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return ""  # the history of a script that is not here


def _resolved(project: Path, readings: Iterable[Reading]) -> dict[str, str]:
    """Return the whole id of every commit that a history names and this repository has."""
    named = {row.commit for reading in readings for row in reading.rows if row.commit}
    asked = [name for name in named if re.fullmatch(r"[0-9a-f]{7,64}", name)]
    told = Git(project).run(
        "cat-file", "--batch-check", stdin="".join(f"{name}^{{commit}}\n" for name in asked)
    )
    pairs = zip(asked, told.splitlines(), strict=False)
    return {name: line.split()[0] for name, line in pairs if line.split()[1:2] == ["commit"]}


def _keep_commits(lab: Lab, made: Plan) -> None:
    """Give every commit that is here the ref of its experiment, so that nothing collects it."""
    for fact, _ in made.facts:
        if isinstance(fact, events.CommitMade) and fact.ref:
            Git(lab.project).run("update-ref", fact.ref, fact.commit)


class _Teller:
    """Tells rows as facts, each once: a row is known again by its texts."""

    def __init__(
        self,
        history: History,
        config: Config,
        commits: Mapping[str, str],
        is_known: Callable[[str], bool],
    ) -> None:
        self.history, self.config, self.commits = history, config, commits
        self.facts: list[Fact] = []
        self.lacking: list[Past] = []
        self.new = self.known = 0
        self._is_known = is_known
        self._seen: Counter[str] = Counter()

    def take(self, rows: Iterable[Past]) -> None:
        """Take rows in their order."""
        for row in rows:
            text = "\x1f".join(f"{name}={value}" for name, value in row.cells.items() if value)
            self._seen[text] += 1
            key = f"import/{self.history.campaign}/{digest(text)[:24]}/{self._seen[text]}"
            if self._is_known(f"{key}/row"):
                self.known += 1
                continue
            self.new += 1
            for number, event in enumerate(self._events(row, digest(key)[:12])):
                self.tell(event, f"{key}/{number or 'row'}")

    def tell(self, event: events.Event, name: str) -> None:
        """Tell one fact under its id."""
        self.facts.append((event, name))
        self.history = foresee(self.history, event)

    def _events(self, row: Past, idea: str) -> Iterator[events.Event]:
        back = self._target(row) if row.status == "backtrack" else None
        lacking = row.aside or (row.status == "backtrack" and back is None)
        number = None if lacking or back is not None else self.history.next_number
        problems = [*row.problems, *([row.aside] if row.aside else [])]
        if row.status == "backtrack" and back is None:
            problems.append("goes back to a commit that no kept row has")
        yield events.HistoryImported(
            source=row.source,
            row=row.number,
            commit=row.commit[:200],
            metric=row.score,
            status=row.status,
            description=one_line(row.description, 1_000),
            problems=tuple(problems),
            experiment=number,
            cells={key: one_line(text, 2_000) for key, text in row.cells.items() if text},
        )
        if lacking:
            self.lacking.append(evolve(row, aside=problems[-1]))
        elif number is not None:
            yield from self._experiment(row, number, idea)
        elif back is not None:
            yield events.Backtracked(
                after_experiment=self.history.next_number - 1,
                to_experiment=back,
                commit=self.history.experiments[back].commit,
                reason=one_line(row.description, 500),
                author=AUTHOR,
            )

    def _target(self, row: Past) -> int | None:
        named = self.commits.get(row.commit, row.commit)
        kept = [item.number for item in self.history.kept if named and item.commit == named]
        return kept[-1] if kept else None

    def _experiment(self, row: Past, number: int, idea: str) -> Iterator[events.Event]:
        history, tag = self.history, self.history.campaign
        run = f"{tag}-{number}-0"
        where = f"{row.source}, row {row.number}"
        yield events.IdeaProposed(
            experiment=number,
            idea=idea,
            direction="baseline" if number == 0 else one_line(row.direction, 80),
            description=one_line(row.description, 300),
            hypothesis=one_line(row.reasoning or row.description, 2_000),
            author=AUTHOR,
        )
        if row.reasoning:
            yield events.ReasoningRecorded(
                experiment=number,
                hypothesis=one_line(row.reasoning, 2_000),
                evidence=row.cells.get("evidence", "") or f"not recorded ({where})",
                risk=row.cells.get("risk", "") or "not recorded",
            )
        if re.fullmatch(r"[0-9a-f]{7,64}", row.commit):
            here = self.commits.get(row.commit)
            head = None if history.head is None else history.experiments[history.head].commit
            yield events.CommitMade(
                experiment=number,
                commit=here or row.commit,
                parent=head or (history.started.base_commit if history.started else ""),
                ref=f"refs/autoresearch/{tag}/{number}" if here else "",
            )
        status = RunStatus.CRASHED if row.status == "crash" else RunStatus.COMPLETED
        yield events.RunRequested(
            experiment=number, run=run, index=0, seed=self.config.seed, launcher=AUTHOR,
            command=(), timeout_seconds=self.config.limits.timeout_seconds,
        )  # fmt: skip
        if row.seconds or row.usd:
            yield events.CostIncurred(
                kind="run", source=AUTHOR, experiment=number, seconds=row.seconds, usd=row.usd
            )
        yield events.RunFinished(
            run=run, experiment=number, status=status.value, seconds=row.seconds,
            detail=one_line(row.description, 500) if row.status == "crash" else "",
        )  # fmt: skip
        yield events.MetricsExtracted(run=run, experiment=number, metrics=self._numbers(row))
        if row.stage:
            yield events.RunLocked(run=run, experiment=number, measurement={"stage": row.stage})
        if lesson := row.cells.get("lesson", ""):
            yield events.AnalysisRecorded(
                experiment=number, result=row.cells.get("result", ""), lesson=lesson,
                versus_expected=row.cells.get("vs expected", ""), why=row.cells.get("why", ""),
                author=AUTHOR,
            )  # fmt: skip
        yield self._verdict(row, number, where)

    def _numbers(self, row: Past) -> dict[str, float]:
        metric = self.config.metric
        found = {name: value for name, value in row.numbers.items() if name != metric.name}
        found |= {} if row.size is None else {metric.size: float(row.size)}
        return found if row.score is None else {**found, metric.name: row.score}

    def _verdict(self, row: Past, number: int, where: str) -> events.Decided:
        """Return the verdict as written, but nothing over the limit is kept."""
        verdict, reason = row.status or Verdict.DISCARD.value, f"{row.status} in {where}"
        limit, best = self.config.limits.artifact_bytes, self.history.best_metric
        if verdict == Verdict.KEEP and limit and row.size is not None and row.size >= limit:
            verdict = Verdict.DISCARD.value
            reason += f", but the artifact has {row.size:,} B and must be under {limit:,} B"
        return events.Decided(
            experiment=number,
            verdict=verdict,
            reason="; ".join((reason, *row.problems)),
            author=AUTHOR,
            metric=row.score,
            delta=None if row.score is None or best is None else row.score - best,
            artifact_bytes=row.size,
        )
