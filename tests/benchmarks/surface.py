"""Say what a type checker knows of the public surface, and of everything else.

    pip install 'pyright[nodejs]'; python tests/benchmarks/surface.py

Public is what `autoresearch` and `autoresearch.testing` export, with all that is in it. Pyright's
completeness report counts every module without an underscore as public, so both are told. It only
looks at an installed package: a copy of this one is laid into an environment of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import autoresearch
import autoresearch.testing

PACKAGE = Path(autoresearch.__file__).parent


def main() -> None:
    """Print both counts, and each public symbol whose type is not known."""
    if shutil.which("pyright") is None:
        raise SystemExit("pyright is not installed; pip install 'pyright[nodejs]'")
    exported = {
        f"{value.__module__}.{value.__qualname__}"
        for home in (autoresearch, autoresearch.testing)
        for name in home.__all__
        if hasattr(value := getattr(home, name), "__qualname__")
    }
    symbols = completeness()
    public = [item for item in symbols if any(_within(item["name"], name) for name in exported)]
    for title, told in (("public", public), ("all", symbols)):
        unknown = [item["name"] for item in told if not _known(item)]
        print(f"{title:7} {len(told):6,} symbols, {1 - len(unknown) / len(told):7.1%} known")
        print("".join(f"  {name}\n" for name in unknown if title == "public"), end="")


def _within(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def _known(item: dict[str, object]) -> bool:
    return bool(item["isTypeKnown"]) and not item["isTypeAmbiguous"]


def completeness() -> list[dict[str, object]]:
    """Return the symbols of pyright's report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=False)
        place = next((folder / "env" / "lib").glob("python*/site-packages"))
        shutil.copytree(PACKAGE, place / "autoresearch", ignore=shutil.ignore_patterns("templates"))
        paths = {sysconfig.get_path("purelib"), *(path for path in sys.path if "-packages" in path)}
        (place / "rest.pth").write_text("\n".join(sorted(paths)))
        asked = ("--verifytypes", "autoresearch", "--ignoreexternal", "--outputjson")
        own = {"PATH": f"{folder / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["pyright", *asked], cwd=folder, env={**os.environ, **own}, stdout=subprocess.PIPE
        )
        found: list[dict[str, object]] = json.loads(done.stdout)["typeCompleteness"]["symbols"]
        return found


if __name__ == "__main__":
    main()
