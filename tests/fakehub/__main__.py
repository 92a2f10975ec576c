"""Runs a Hub alone: `python -m tests.fakehub --root DIR [--port N] [--xet]`.

Its address is the first line that it prints. What it holds stays in DIR, where the next
one finds it again.
"""

from __future__ import annotations

import argparse
import threading
from contextlib import suppress
from pathlib import Path

from tests.fakehub.hub import FakeHub


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakehub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="where all is kept")
    parser.add_argument("--port", type=int, default=0, help="0, the default, is any")
    parser.add_argument("--xet", action="store_true", help="serve chunks, too")
    options = parser.parse_args()
    with FakeHub(options.root.resolve(), options.port) as hub:
        hub.xet = options.xet
        print(hub.url, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
