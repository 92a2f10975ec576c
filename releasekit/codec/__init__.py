"""Codecs: how the difference between a tensor and its base becomes bytes.

A codec has an identifier and parameters, which together determine the bytes that it
writes; both stand in the manifest. This module holds only those, so that reading a
manifest needs no compiled code; the work is in `ulp` and the modules under it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from releasekit.errors import FormatError
from releasekit.names import shown
from releasekit.strictjson import Record

MIN_CHUNK: Final = 1 << 10
MAX_CHUNK: Final = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulp:
    """Parameters of the codec `ulp-v1`.

    Attributes:
        chunk: words in a chunk, before it is rounded to whole rows; 2**10 to 2**24.
    """

    chunk: int = 1 << 20

    @property
    def id(self) -> str:
        """The identifier in a manifest. Whatever changes the bytes changes it."""
        return "ulp-v1"

    @classmethod
    def from_record(cls, record: Record, where: str) -> Self:
        """Read what `to_json` wrote; FormatError if it is another codec's."""
        identifier = record.text("id")
        if identifier != "ulp-v1":
            raise FormatError(
                f'{where}: codec.id: expected "ulp-v1", found {shown(identifier)}: a newer '
                "releasekit may know it; update with `pip install -U releasekit`"
            )
        params = record.record("params")
        codec = cls(
            chunk=params.integer("chunk", minimum=MIN_CHUNK, maximum=MAX_CHUNK),
        )
        params.close()
        record.close()
        return codec

    def to_json(self) -> dict[str, object]:
        """Identifier and parameters as they stand in a manifest."""
        return {"id": self.id, "params": {"chunk": self.chunk}}
