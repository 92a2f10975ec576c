"""TOML that people write: parsed, and read with the path of each bad field.

What comes out are JSON's values, so that `strictjson.Record` reads both. Dates and times
become their ISO 8601 text. TOML allows numbers that are not finite; nothing here does.
"""

from __future__ import annotations

import math
from datetime import date, datetime, time
from typing import Final

from releasekit.errors import FormatError

#: Bytes that a document may have: people write them.
MAX_NBYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"


def loads(data: bytes, subject: str) -> dict[str, object]:
    """Parses one TOML document.

    Args:
        data: the document in UTF-8.
        subject: the file that `data` comes from; begins every message.

    Returns:
        bool, int, float, str, and lists and dicts of these; dates and times as text.

    Raises:
        FormatError: `data` is not TOML, is too large, or holds a number that is not finite.
    """
    import tomllib  # rebuilding a model takes none of it, and should not wait for it

    if len(data) > MAX_NBYTES:
        raise FormatError(
            f"{subject}: expected at most {MAX_NBYTES} bytes, found {len(data)}"
        )
    try:
        text = data.removeprefix(_BOM).decode()  # editors on Windows write the mark
    except UnicodeDecodeError as error:
        raise FormatError(f"{subject}: not UTF-8 at byte {error.start}") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"{subject}: not valid TOML: {error}") from None
    except RecursionError:
        raise FormatError(f"{subject}: nested too deeply") from None
    except ValueError as error:  # more digits than Python turns into an integer
        raise FormatError(f"{subject}: not valid TOML: {error}") from None
    try:
        return {key: _plain(value, subject, key) for key, value in table.items()}
    except RecursionError:  # dots in a key nest without a bound of the parser's
        raise FormatError(f"{subject}: nested too deeply") from None


def _plain(value: object, subject: str, path: str) -> object:
    if isinstance(value, dict):
        return {key: _plain(item, subject, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, subject, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise FormatError(f"{subject}: {path}: expected a finite number, found {value}")
    return value
