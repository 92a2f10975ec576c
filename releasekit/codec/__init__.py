"""Codecs: how the difference between a tensor and its base becomes bytes.

A codec has an identifier and parameters, which together determine the bytes that it
writes; both stand in the manifest. This module holds only those, so that reading a
manifest needs no compiled code; the work is in `ulp` and the modules under it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from releasekit.errors import FormatError
from releasekit.names import shown
from releasekit.strictjson import Record

MIN_CHUNK: Final = 1 << 10
MAX_CHUNK: Final = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulp:
    """Parameters of the codec `ulp-v1`: payloads correct what the base predicts.

    Attributes:
        chunk: words in a chunk, before it is rounded to whole rows; 2**10 to 2**24.
    """

    chunk: int = 1 << 20

    @property
    def id(self) -> str:
        """The identifier in a manifest. Whatever changes the bytes changes it."""
        return "ulp-v1"

    @property
    def plain(self) -> bool:
        """Whether a release holds plain differences, which other tools can add."""
        return False

    def to_json(self) -> dict[str, object]:
        """Identifier and parameters as they stand in a manifest."""
        return {"id": self.id, "params": {"chunk": self.chunk}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Ulp):
    """Parameters of the codec `add-v1`: payloads correct the sum of base and difference.

    The difference is published as plain float tensors, for tools that add them up, which
    rounds; the payloads, coded as `ulp-v1` does, are what rounding took away.
    """

    @property
    def id(self) -> str:
        """The identifier in a manifest. Whatever changes the bytes changes it."""
        return "add-v1"

    @property
    def plain(self) -> bool:
        """Whether a release holds plain differences, which other tools can add."""
        return True


#: All codecs by their identifiers.
CODECS: Final = {codec.id: type(codec) for codec in (Ulp(), Add())}


def read_codec(record: Record, where: str) -> Ulp:
    """Read what `to_json` wrote; FormatError if no such codec is known."""
    identifier = record.text("id")
    kind = CODECS.get(identifier)
    if kind is None:
        raise FormatError(
            f"{where}: codec.id: expected one of {', '.join(CODECS)}, found "
            f"{shown(identifier)}: a newer releasekit may know it; update with "
            "`pip install -U releasekit`"
        )
    params = record.record("params")
    codec = kind(chunk=params.integer("chunk", minimum=MIN_CHUNK, maximum=MAX_CHUNK))
    params.close()
    record.close()
    return codec
