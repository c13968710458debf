"""Tells a person through apprise: mail, Slack, ntfy and others; needs ``pip install apprise``."""

from __future__ import annotations

import os
from threading import Thread

import apprise
from attrs import frozen

from autoresearch import AutoresearchError, Config, Notice, hookimpl, setting


@frozen(kw_only=True)
class Settings:
    """Whom to tell what; addresses with a password belong into the environment, not into a file:
    the settings are recorded in the log."""

    urls: tuple[str, ...] = setting((), "apprise addresses, such as ntfy://topic or json://host")
    variable: str = setting("APPRISE_URLS", "environment variable with more, blanks between them")
    kinds: tuple[str, ...] = setting(
        ("new_best", "stuck", "budget_gone", "needs_human"), "notices that are passed on"
    )
    seconds: float = setting(3.0, "give up after this; the message may still arrive")


class Plugin:
    """Sends in a thread of its own, so that a service that hangs delays nothing for long."""

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[plugins.apprise_notify]``; an address that apprise does not know is an error."""
        self._settings = config.settings("apprise_notify", Settings)
        self._apprise = apprise.Apprise()
        urls = [*self._settings.urls, *os.environ.get(self._settings.variable, "").split()]
        for number, url in enumerate(urls, start=1):
            if not self._apprise.add(url):
                scheme = url.partition(":")[0]
                raise AutoresearchError(
                    f"address {number} of {len(urls)} ({scheme}:...) is none that apprise knows; "
                    "correct it"
                )

    @hookimpl
    def notify(self, notice: Notice) -> None:
        """Send one message to all addresses.

        Raises AutoresearchError when one refused it, TimeoutError when one did not answer.
        """
        if notice.kind not in self._settings.kinds or not len(self._apprise):
            return
        answers: list[bool] = []
        sender = Thread(target=lambda: answers.append(self._send(notice)), daemon=True)
        sender.start()
        sender.join(self._settings.seconds)
        if sender.is_alive():
            raise TimeoutError(f"no answer within {self._settings.seconds:g} s")
        if answers != [True]:
            raise AutoresearchError("an address refused the message; try it with: apprise -b test")

    def _send(self, notice: Notice) -> bool:
        number = "" if notice.experiment is None else f" (experiment {notice.experiment})"
        title = f"{notice.campaign}: {notice.kind.replace('_', ' ')}{number}"
        return bool(self._apprise.notify(title=title, body=notice.text))
