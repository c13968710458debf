"""Finds plugins, makes them active, and is the only place from which their hooks are called."""

from autoresearch.plugins.calls import PluginFailure
from autoresearch.plugins.facade import Plugins
from autoresearch.plugins.registry import PluginInfo, SettingInfo

__all__ = ["PluginFailure", "PluginInfo", "Plugins", "SettingInfo"]
