"""Promotes what may beat the best: in each stage, what is not clearly worse there."""

from __future__ import annotations

from attrs import frozen

from autoresearch.config import setting
from autoresearch.history import History, spread
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.model import Experiment, Promotion


@frozen(kw_only=True)
class Settings:
    """How much worse than the best in its stage an experiment may look and still go on."""

    sds: float = setting(
        2.0, "standard deviations of the difference of two scores that are within the noise"
    )


class Plugin(WithTable[Settings]):
    """Answers for every stage but the last."""

    name, Settings = "promotion", Settings

    @hookimpl
    def promote_run(self, experiment: Experiment, history: History) -> Promotion:
        """Promote what beats the best's score in the stage, or is within the noise of it."""
        score, best = history.score(experiment), history.best_metric
        if score is None or best is None:
            return Promotion(promote=True, reason="the best has no score in this stage")
        noise, gain = history.noise, history.gain(score, best)
        assert history.best is not None
        runs = (len(history.scores(item)) for item in (experiment, history.best))
        band = self._settings.sds * spread(noise.sd, *runs)
        word = "better" if gain > 0 else "worse"
        told = (
            f"{history.metric} {score:.4f} is {abs(gain):.4f} {word} than {best:.4f} of experiment "
            f"{history.best_number} in the stage {history.stage}"
        )
        if gain < 0:
            relation = "within" if gain >= -band else "beyond"
            told += f", {relation} the noise of {band:.2g} ({noise.source})"
        return Promotion(promote=gain >= -band, reason=told)
