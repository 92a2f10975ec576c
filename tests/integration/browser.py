"""A real browser that looks at a page, cut off from the network."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: its pixels, and what it had to complain of."""

    pixels: NDArray[np.uint8]
    console: list[str]

    def count(self, color: str) -> int:
        """Pixels of a colour, such as `#0072b2`."""
        wanted = tuple(bytes.fromhex(color.removeprefix("#")))
        return int(np.count_nonzero(np.all(self.pixels == wanted, axis=-1)))


def browser() -> str:
    """The browser's path; the test is skipped where there is none."""
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser is installed: looked for {', '.join(_NAMES)}")


def look(
    page: Path, folder: Path, *, dark: bool = False, width: int = 1180, height: int = 3000
) -> Seen:
    """Open a page, and take its picture."""
    picture = folder / "picture.png"
    options: list[str] = ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run(
        [
            browser(),
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--proxy-server=127.0.0.1:9", "--enable-logging=stderr", "--v=0"),
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert picture.is_file(), done.stderr
    image: Any = Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(pixels=np.asarray(image), console=said)
