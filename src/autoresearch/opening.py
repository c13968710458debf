"""How a campaign comes into being, and how one that exists is found again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, frozen

from autoresearch import events, setup
from autoresearch.campaign import Campaign, silent
from autoresearch.codec import canonical, decode
from autoresearch.config import Config, unstructure
from autoresearch.cycle import Tell, beginning, write_text
from autoresearch.errors import ConfigError, WorkspaceError, telling
from autoresearch.events import CampaignResumed, CampaignStarted
from autoresearch.evidence import HIDES
from autoresearch.frozen import alike
from autoresearch.git import top_level
from autoresearch.log import FileLog, Recorded, SnapshotStore
from autoresearch.plugins import Plugins
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.projections.tables import open_store
from autoresearch.settings import FILE_NAME, Loaded, flat, from_record, load
from autoresearch.workspace import Lab, check_tag

if TYPE_CHECKING:
    import duckdb

_BY_HAND = "settings given by hand"  # their names, in the recorded environment


def start(
    project: Path | str = ".",
    *,
    tag: str | None = None,
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    plugins: Sequence[object] = (),
    today: date | None = None,
    tell: Tell = silent,
) -> Campaign:
    """Start a campaign: check the ground, create the branch, record how it began.

    A campaign that has no score yet, because its baseline failed or was not run, is started again
    under its tag, with the settings and the commit of now. ``tell`` gets a line for what looks
    wrong and does not prevent the start. Raises an AutoresearchError that says what is missing. A
    campaign that could not start leaves no branch, no lab and no fact.
    """
    folder = Path(project).resolve()
    root = top_level(folder)
    before = _to_correct(root, tag)
    given = {**(given_by_hand(before) if before else {}), **(overrides or {})}
    loaded = load(root, file=config, environ=environ, overrides=given)
    _check_place_of_settings(folder, root, loaded)
    if tag is not None:
        _undo_killed_start(root, check_tag(tag), loaded.config)
    free = before.tag if before else setup.free_tag(root, tag, today or date.today())
    ground = setup.check_ground(root, loaded.config)
    active = Plugins.load(loaded.config, root, plugins)
    written = [item.file_name for item in active.projections(loaded.config)]
    setup.check_files(root, ("results.tsv", "notes.md", *written))
    setup.check_reader(loaded.config, active)
    setup.check_launcher(root, loaded.config, active, tell)
    ground = setup.unpack(root, free, loaded.config, ground, active)
    if ground.unpacked:
        tell(f"{loaded.config.script} is packed; it is edited unpacked, in a commit of its own")
    campaign = Campaign(root, free, store_of(root), loaded.config)
    campaign.started_with = active
    _record_start(campaign, _began(campaign, ground, active, loaded), ground, before, tell)
    setup.hide(root, (*setup.FILES, *written))
    _write_files(campaign, campaign.lab.folder, campaign.project)
    return campaign


def _record_start(
    campaign: Campaign,
    began: events.CampaignStarted,
    ground: setup.Ground,
    before: Campaign | None,
    tell: Tell,
) -> None:
    """Make the lab and record the fact; a new campaign that cannot begin leaves neither."""
    with campaign.log.writer(campaign.tag) as writer:
        try:
            # The deed before the fact: a log cannot take back that a campaign started.
            _prepare_lab(campaign, ground.base, before, tell)
            setup.check_checkout(campaign.lab, campaign.config, ground, tell)
            for text in ground.files.values():
                campaign.log.sources.put(text)
            writer.append(began)
        except BaseException:
            if before is None:
                campaign.lab.remove()
            raise


def _began(
    campaign: Campaign, ground: setup.Ground, active: Plugins, loaded: Loaded
) -> events.CampaignStarted:
    config = loaded.config
    told = {**setup.environment(), _BY_HAND: " ".join(loaded.by_hand)}
    text = ground.files[config.script]
    return beginning(campaign.tag, config, ground.base, text, active.active, told)


def _to_correct(root: Path, tag: str | None) -> Campaign | None:
    """Return the campaign to start again: the named one, or the last one if its baseline failed."""
    if not (root / ".autoresearch").is_dir():
        return None
    known = tags(store_of(root))
    chosen = tag if tag is not None else next(reversed(known), None)
    if chosen not in known:
        return None
    campaign = open_campaign(root, chosen)
    history = campaign.history
    named = tag is not None or history.baseline is not None
    return campaign if named and history.may_start_again else None


def _prepare_lab(campaign: Campaign, base: str, before: Campaign | None, tell: Tell) -> None:
    if before is None:
        campaign.lab.create(base)
        return
    history = before.history
    ours = {item.commit for item in history.experiments}
    ours |= {history.started.base_commit} if history.started else set()
    kept = campaign.lab.restart(base, ours.__contains__)
    if kept:
        tell(f"your own commit on {campaign.lab.branch} is kept as {kept}")


def given_by_hand(campaign: Campaign) -> dict[str, Any]:
    """Return the settings that the command line or the environment gave when a campaign started."""
    started = campaign.history.started
    if started is None:
        return {}
    recorded = dict(flat(started.config))
    names = started.environment.get(_BY_HAND, "").split()
    return {name: recorded[name] for name in names if name in recorded}


def changes_since_start(campaign: Campaign, wanted: Config) -> list[str]:
    """Return a line for each setting that is another now than when the campaign was started.

    A setting that is newer than the campaign is not among them.
    """
    assert campaign.history.started is not None
    old, new = (
        {name: tuple(value) if isinstance(value, list) else value for name, value in flat(table)}
        for table in (campaign.history.started.config, unstructure(wanted))
    )
    return [
        f"{name} is {new[name]!r} now, and was {old[name]!r} when the campaign was started"
        for name in new
        if name in old and old[name] != new[name]
    ]


def _undo_killed_start(root: Path, tag: str, config: Config) -> None:
    """Remove the lab of a start that was killed before it recorded its fact."""
    lab = Lab(project=root, tag=tag, script=config.script)
    if lab.folder.exists() and tag not in tags(store_of(root)):
        with store_of(root).writer(tag):  # not while another process is still at it
            lab.remove()


def _check_place_of_settings(folder: Path, root: Path, loaded: Loaded) -> None:
    """A file of settings in a subfolder is not read, which nobody would expect in silence."""
    if loaded.file is None and folder != root and (folder / FILE_NAME).is_file():
        raise ConfigError(
            f"{folder / FILE_NAME} is not at the top of the repository; move it to {root} and "
            "write its paths from there"
        )


def _write_files(campaign: Campaign, *folders: Path) -> list[Path]:
    written = []
    history = campaign.history
    for projection in (ResultsTsv(), NotesMd()):
        text = projection.render(history)
        for folder in folders:
            write_text(folder / projection.file_name, text)
            written.append(folder / projection.file_name)
    return written


def write_projections(root: Path, log: FileLog) -> tuple[Path, ...]:
    """Write results.tsv and notes.md of every campaign; the last active one's also in root.

    Where root has such a file that no campaign wrote, nothing is written.
    """
    written: list[Path] = []
    active = campaigns(log)
    try:
        setup.check_files(root, ("results.tsv", "notes.md"))
    except WorkspaceError:
        return ()
    for entry in active:
        campaign = Campaign(root, entry.tag, log, _recorded_config(entry))
        campaign.lab.folder.mkdir(parents=True, exist_ok=True)
        folders = [campaign.lab.folder, *([root] if entry == active[-1] else [])]
        written += _write_files(campaign, *folders)
    return tuple(written)


def open_campaign(project: Path | str = ".", tag: str | None = None) -> Campaign:
    """Open a campaign that exists: the one named, or the one that was active last.

    Raises WorkspaceError when there is none, and ConfigError when its settings cannot be read.
    """
    campaign = look_at(project, tag)
    if campaign.unread:
        raise ConfigError(campaign.unread)
    return campaign


def look_at(project: Path | str = ".", tag: str | None = None) -> Campaign:
    """Open a campaign to be read, also one whose settings cannot be: ``unread`` says why.

    Raises WorkspaceError when there is none.
    """
    root = top_level(Path(project).resolve())
    log = existing_store(root)
    active = {entry.tag: entry for entry in campaigns(log)}
    chosen = check_tag(tag) if tag is not None else next(reversed(active), None)
    if not active:
        raise no_campaign(root)
    if chosen is None or chosen not in active:
        known = ", ".join(sorted(active))
        raise WorkspaceError(
            f"there is no campaign {chosen!r}; known: {known}; start one with init"
        )
    try:
        return Campaign(root, chosen, log, _recorded_config(active[chosen]))
    except ConfigError as error:
        campaign = Campaign(root, chosen, log, Config(preset="plain"))
        campaign.unread = str(error)
        return campaign


def connect(
    project: Path | str = ".", at: int | None = None, *, external: bool = False
) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection over the histories of all campaigns of a project, to read only.

    It sees everything acknowledged so far, or up to position ``at``; also while campaigns run.
    It reads and writes no other file, and loads no extension, unless ``external`` is True.
    Raises WorkspaceError when the project has no campaign yet.
    """
    return existing_store(top_level(Path(project).resolve())).connect(at=at, external=external)


def existing_store(root: Path) -> FileLog:
    """Open the store of a project that has one; raises WorkspaceError where there is none."""
    if not os.path.lexists(root / ".autoresearch"):  # a link to what is not mounted is told
        raise no_campaign(root)
    return store_of(root)


def no_campaign(place: Path) -> WorkspaceError:
    """Return the error that says how to begin."""
    return WorkspaceError(f"{place} has no campaign yet; start one with autoresearch init")


def _recorded_config(entry: Entry) -> Config:
    if entry.started is None:
        raise ConfigError(f"campaign {entry.tag} was started by a newer release; upgrade this one")
    return from_record(entry.started.config)


def tags(log: FileLog) -> tuple[str, ...]:
    """Return the tags of all campaigns in a store, the one that was active last at the end."""
    return tuple(entry.tag for entry in campaigns(log))


def store_of(root: Path) -> FileLog:
    """Open the store of a project; it hides itself from git."""
    folder = root / ".autoresearch"
    with telling(f"cannot write {folder}", "make it a folder that can be written"):
        folder.mkdir(exist_ok=True)
        hidden = folder / ".gitignore"
        if not hidden.exists():
            hidden.write_text(HIDES, encoding="utf-8")
    return open_store(folder)


# --- which campaigns a store has ---------------------------------------------------------------

WORTH = 200  # events behind the index from which on it is written again
_INDEX = "campaigns 1"  # a release that keeps other facts counts on


@frozen(kw_only=True)
class Entry:
    """A campaign: its newest start as recorded, and where and when it was started or resumed last.

    ``position`` is that of the start, ``active`` that of the last activity, ``at`` its time.
    """

    tag: str
    position: int
    schema_version: int
    payload: str
    active: int
    at: str

    @property
    def started(self) -> CampaignStarted | None:
        """The start itself; None when it was recorded by a newer release."""
        found = decode(CampaignStarted.type_name, self.schema_version, self.payload)
        return found if isinstance(found, CampaignStarted) else None


def campaigns(log: FileLog) -> tuple[Entry, ...]:
    """Return all campaigns of a store up to its tip, the one that was active last at the end.

    A small index spares reading the whole log. It is a snapshot in the store, so it is only used
    while the log still has the tip that it was made from; one that is missing, damaged or of
    another log is made again from the events.
    """
    snapshots, tip = SnapshotStore(log.ordering), log.tip()
    known, position = _load(snapshots)
    for record in log.read(after=position, until=tip.position):
        known = _with(known, record)
    if tip.position - position >= WORTH or (position == 0 and known):
        entries = {tag: asdict(entry) for tag, entry in known.items()}
        snapshots.save(_INDEX, tip, canonical(entries).encode())
    return tuple(sorted(known.values(), key=lambda entry: entry.active))


def _with(known: Mapping[str, Entry], record: Recorded) -> Mapping[str, Entry]:
    before = known.get(record.campaign)
    if record.type == CampaignStarted.type_name:
        entry = alike(Entry, record, tag=record.campaign, active=record.position)
    elif record.type == CampaignResumed.type_name and before is not None:
        entry = evolve(before, active=record.position, at=record.at)
    else:
        return known
    return {**known, record.campaign: entry}


def _load(snapshots: SnapshotStore) -> tuple[Mapping[str, Entry], int]:
    found = snapshots.load(_INDEX)
    if found is None:
        return {}, 0
    try:
        plain: dict[str, dict[str, Any]] = json.loads(found[1])
        return {tag: Entry(**fields) for tag, fields in plain.items()}, found[0].position
    except (ValueError, TypeError, AttributeError):
        return {}, 0  # of another release
