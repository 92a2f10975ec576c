"""Patterns as .gitignore and .gitattributes have them, as far as models need them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: What a new repository on the Hub keeps in LFS.
LFS_PATTERNS: Final = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gguf", "*.gz", "*.h5"),
    *("*.joblib", "*.lfs.*", "*.mlmodel", "*.model", "*.msgpack", "*.npy", "*.npz"),
    *("*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt", "*.pth", "*.rar"),
    *("*.safetensors", "saved_model/**/*", "*.tar.*", "*.tar", "*.tflite", "*.tgz"),
    *("*.wasm", "*.xz", "*.zip", "*.zst", "*tfevents*"),
)


def matches(patterns: Iterable[str], path: str) -> bool:
    """Whether a path is meant: the last pattern that fits it decides."""
    meant = False
    for line in patterns:
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        negated, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        if re.fullmatch(_expression(pattern), path):
            meant = not negated
    return meant


def _expression(pattern: str) -> str:
    """A pattern as a regular expression, which fits what lies in a folder too."""
    folder = pattern.endswith("/")
    anchored = "/" in pattern.rstrip("/")
    text = "" if anchored else "(?:.*/)?"
    for part in re.findall(r"\*\*/|/\*\*|\*\*|\*|\?|[^*?/]+|/", pattern.strip("/")):
        text += {
            "**/": "(?:.*/)?",
            "/**": "/.*",
            "**": ".*",
            "*": "[^/]*",
            "?": "[^/]",
        }.get(part, re.escape(part))
    return text + ("/.*" if folder else "(?:/.*)?")
