"""Copy a recipe to where its files are."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Final

RECIPES: Final = Path(__file__).parent.parent / "recipes"


def copy_recipe(name: str, place: Path, base: Path) -> Path:
    """Copy a recipe to where its files are, and fill in where the base lies.

    Returns:
        The copy of its release.toml.
    """
    shutil.copytree(RECIPES / name, place, dirs_exist_ok=True)
    path = place / "release.toml"
    line = f"base = {json.dumps(os.path.relpath(base, place))}"
    text, count = re.subn(r'^base = "[^"\n]*"$', line, path.read_text(), flags=re.M)
    assert count == 1, path
    path.write_text(text)
    for name in re.findall(r'^files = \["[a-z0-9.-]+=([^"]+)"\]$', text, re.M):
        (place / name).write_text("This stands in for the text of the agreement.\n")
    return path
