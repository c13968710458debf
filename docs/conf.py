"""Settings of the documentation, built with ``make docs``."""

from importlib import metadata

project = "autoresearch"
author = "The autoresearch founders"
copyright = "2026, The autoresearch founders"
release = metadata.version("autoresearch")
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "autoresearch"
exclude_patterns = ["_build", "changelog.d", "notebook.ipynb", "sample"]
myst_heading_anchors = 3
