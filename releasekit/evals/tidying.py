"""What lm-evaluation-harness writes beside JSON and figures, taken out.

Its files come from Python's json, so that:

    NaN, Infinity          stand where a number does; made strings here, which no reader
                           takes for a number. As a standard error, NaN is left out
    "N/A", null            stand where a standard error or a version is not known: left out
    "0.25"                 is a number of NumPy's, which 0.4.0 wrote as text: a number
    1.0, "1.0"             are versions: text
    "Yaml"                 is the version of all tasks to 0.4.0: not known
    model_args             is text, `pretrained=…,dtype=…`, or since 0.4.9 an object: text
"""

from __future__ import annotations

import re
from typing import Final

from releasekit import strictjson

_NO_VERSION: Final = ("N/A", "Yaml", "")
_NO_STDERR: Final = frozenset({"N/A", "NaN", "nan", ""})
# As in strictjson, the closing quote is optional, so that no string is tried twice.
_NOT_JSON: Final = re.compile(
    rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)|(NaN|-?Infinity)', re.DOTALL
)
_NUMBER: Final = re.compile(r"-?\d{1,20}(?:\.\d{1,40})?(?:[eE][+-]?\d{1,3})?", re.ASCII)


def loads(document: bytes, subject: str) -> dict[str, object]:
    """Parses a result file.

    Returns:
        its sections; none, if it is not an object.

    Raises:
        FormatError: it is no JSON, NaN and the infinities apart.
    """
    parsed = strictjson.loads(_NOT_JSON.sub(_quoted, document), subject)
    fields = parsed if isinstance(parsed, dict) else {}
    return {key: _tidy(key, value) for key, value in fields.items() if value is not None}


def _tidy(key: str, value: object) -> object:
    """A section without what the module's docstring names."""
    if not isinstance(value, dict):
        return value
    if key in ("results", "groups"):
        return {
            task: _tidy_figures(entry) if isinstance(entry, dict) else entry
            for task, entry in value.items()
        }
    tidied = {name: item for name, item in value.items() if item is not None}
    if key == "versions":
        return {
            name: _version(item) for name, item in tidied.items() if item not in _NO_VERSION
        }
    if key == "config" and isinstance(tidied.get("model_args"), dict):  # as of 0.4.9
        pairs = dict(tidied["model_args"]).items()
        tidied["model_args"] = ",".join(f"{name}={item}" for name, item in pairs)
    if key in ("higher_is_better", "n-samples"):
        return {name: _tidy("", item) for name, item in tidied.items()}
    return tidied


def _tidy_figures(entry: dict[str, object]) -> dict[str, object]:
    tidied: dict[str, object] = {}
    for key, value in entry.items():
        if _is_stderr(key) and (
            value is None or (isinstance(value, str) and value in _NO_STDERR)
        ):
            continue
        # 0.4.0 wrote NumPy's numbers as text.
        is_number = isinstance(value, str) and _NUMBER.fullmatch(value)
        tidied[key] = float(str(value)) if is_number else value
    return tidied


def _version(value: object) -> object:
    """1.0 and "1.0" are the version "1"."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return f"{float(value):g}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else value


def _is_stderr(key: str) -> bool:
    return key.partition(",")[0].endswith("_stderr")


def _quoted(match: re.Match[bytes]) -> bytes:
    return match[1] or b'"' + match[2] + b'"'
