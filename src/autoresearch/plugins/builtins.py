"""The plugins that come with autoresearch, as names: nothing here imports them.

Later ones answer first, so the order says who wins: a person's queue over every other generator,
the policies that ask for more evidence over the greedy one.
"""

from __future__ import annotations

from functools import cache

from attrs import frozen

from autoresearch.config import Config
from autoresearch.presets import presets


@frozen(kw_only=True)
class BuiltIn:
    """A plugin of this package: the class ``Plugin`` of a module, or ``module:Class``.

    ``needs`` is a module that it cannot do without, and the extra of this package that brings it;
    ``preset`` makes it active in campaigns that start from that preset; ``measures`` only in those
    whose noise is set, or will be measured; ``launches`` only in those whose launcher it is.
    """

    name: str
    module: str
    default: bool = True
    preset: str = ""
    needs: str = ""
    measures: bool = False
    launches: bool = False

    def starts_active(self, config: Config) -> bool:
        """Whether it takes part without being named."""
        if self.measures and config.metric.sd == 0 and config.noise.runs < 2:
            return False
        if self.launches:
            return config.launcher == self.name
        return self.default or (self.preset != "" and config.preset == self.preset)


_ALWAYS = (
    BuiltIn(name="script_ideas", module="autoresearch.ideas.script"),
    BuiltIn(name="search", module="autoresearch.ideas.search", default=False),
    BuiltIn(name="catalogue", module="autoresearch.ideas.catalogue", default=False),
    BuiltIn(name="openai", module="autoresearch.ideas.openai_ideas", default=False, needs="openai"),
    BuiltIn(name="agent", module="autoresearch.ideas.agent", default=False),
    BuiltIn(name="queue_ideas", module="autoresearch.ideas.queue"),
    BuiltIn(name="crash_fixes", module="autoresearch.ideas.fixes"),
    BuiltIn(name="greedy", module="autoresearch.policies.greedy"),
    BuiltIn(
        name="evidence",
        module="autoresearch.policies.evidence",
        default=False,
        preset="plain",
        measures=True,
    ),
    BuiltIn(name="plateau", module="autoresearch.rules:Plateau"),
    BuiltIn(name="dead_end", module="autoresearch.rules:DeadEnd"),
    BuiltIn(name="regression", module="autoresearch.rules:Regression"),
    BuiltIn(name="local", module="autoresearch.launchers.local"),
    BuiltIn(
        name="observed", module="autoresearch.launchers.observed", default=False, launches=True
    ),
    BuiltIn(name="modal", module="autoresearch.launchers.modal", needs="modal"),
    BuiltIn(name="slurm", module="autoresearch.launchers.slurm", needs="submitit"),
    BuiltIn(name="ssh", module="autoresearch.launchers.ssh"),
    BuiltIn(name="analysis", module="autoresearch.policies.analysis"),
    BuiltIn(name="pattern_metrics", module="autoresearch.policies.pattern_metrics"),
)


@cache
def built_ins() -> tuple[BuiltIn, ...]:
    """Return the plugins of this package, those of its presets last."""
    of_presets = (
        BuiltIn(**item._asdict(), default=False, preset=preset.name)
        for preset in presets().values()
        for item in preset.plugins
    )
    return (*_ALWAYS, *of_presets)
