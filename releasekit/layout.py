"""The safetensors header, strictly: where each tensor lies in its file.

    u64   length of the header, little-endian
    ----  header: JSON, padded with spaces
    ----  data: the tensors, end to end

The bytes of a file that we accept are accounted for exactly once: each belongs to the
header or to one tensor, and every reader agrees which. So holes, overlaps and trailing
bytes are refused, where something could hide or be read twice; and so are a key that
appears twice, an unknown field, and sizes that overflow. The stock reader lets some of
these pass.

`parse` keeps the header's own bytes, for a rebuilt file must repeat them; `build` makes a
header of our own and lets `parse` judge it, so that nothing is written that would not be
read. What the data holds is not looked at here, nor is any file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError
from releasekit.names import describe, shown, tensor_name
from releasekit.tensors import DTYPES, DType, TensorSpec

MAX_HEADER: Final = 100_000_000  # the stock reader's limit, in bytes
_LENGTH: Final = 8
_ALIGNMENT: Final = 8
_MAX_RANK: Final = 64  # numpy's limit
_MAX_BYTES: Final = 2**63 - 1
_METADATA: Final = "__metadata__"
_FIELDS: Final = ("dtype", "shape", "data_offsets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A tensor and its place in the data.

    Attributes:
        spec: what the tensor is.
        begin: its first byte, counted from the start of the data.
        end: one past its last byte, likewise.
    """

    spec: TensorSpec
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A header, as bytes and as what they say.

    Attributes:
        header: the JSON with its padding, without the length before it.
        tensors: all tensors in the order of their data; empty tensors at one place in
            the order of the header.
        metadata: the header's free-form strings; None if it has no such entry.
    """

    header: bytes
    tensors: tuple[Placed, ...]
    metadata: dict[str, str] | None

    @property
    def prefix(self) -> bytes:
        """All bytes before the data: the header's length and the header."""
        return len(self.header).to_bytes(_LENGTH, "little") + self.header

    @property
    def data_start(self) -> int:
        """Offset of the data in the file, in bytes."""
        return _LENGTH + len(self.header)

    @property
    def file_size(self) -> int:
        """Size of the whole file in bytes."""
        return self.data_start + (self.tensors[-1].end if self.tensors else 0)

    def by_name(self) -> dict[str, Placed]:
        """Returns the tensors by name, in the order of their data."""
        return {placed.spec.name: placed for placed in self.tensors}


def header_length(prefix: bytes, file_size: int, subject: str) -> int:
    """Reads the header's length from the start of a file.

    Args:
        prefix: the file's first 8 bytes, or all of it if it is shorter.
        file_size: size of the whole file in bytes.
        subject: the file's name; begins every message.

    Returns:
        The length in bytes, from 1 to `MAX_HEADER`; the file has room for it.

    Raises:
        FormatError: there is no such length.
    """
    size = min(len(prefix), file_size)
    if size < _LENGTH:
        raise FormatError(
            f"{subject}: expected a header length of {_LENGTH} bytes, found a file of "
            f"{size} bytes"
        )
    length = int.from_bytes(prefix[:_LENGTH], "little")
    _refuse_length(length, file_size, subject)
    return length


def parse(header: bytes, file_size: int, subject: str) -> Layout:
    """Reads a header, and proves that its tensors cover the file's data exactly.

    Args:
        header: the bytes that `header_length` counts, padding included.
        file_size: size of the whole file in bytes.
        subject: the file's name; begins every message.

    Raises:
        FormatError: the header is malformed, or is not the header of such a file.
    """
    _refuse_length(len(header), file_size, subject)
    if header[:1] in (b" ", b"\t", b"\r", b"\n"):
        raise FormatError(f"{subject}: header begins with white space; expected {{")
    root = strictjson.loads(header, f"{subject}: header")
    if not isinstance(root, dict):
        raise FormatError(f"{subject}: header: expected an object, found {describe(root)}")
    metadata = _metadata(root.pop(_METADATA), subject) if _METADATA in root else None
    data_size = file_size - _LENGTH - len(header)
    if data_size < 0:
        raise FormatError(
            f"{subject}: expected at least {_LENGTH + len(header)} bytes, the header's "
            f"size, found a file of {file_size}"
        )
    tensors = []
    for name, entry in root.items():
        tensor_name(name, subject)
        try:
            tensors.append(_placed(name, entry, data_size))
        except FormatError as error:
            raise FormatError(f"{subject}: tensor {shown(name)}: {error}") from None
    # Stable, so that empty tensors at one place keep the header's order. They come before
    # the tensor that begins there.
    tensors.sort(key=lambda placed: (placed.begin, placed.end))
    _refuse_gaps(tensors, data_size, subject)
    return Layout(header=header, tensors=tuple(tensors), metadata=metadata)


def build(specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None) -> Layout:
    """Makes a header: the inverse of `parse`.

    Args:
        specs: the tensors in the order of their data, which has no holes.
        metadata: free-form strings; None for a header without that entry.

    Raises:
        FormatError: `parse` would refuse the header.
    """
    subject = "new header"
    root: dict[str, object] = {}
    if metadata is not None:
        root[_METADATA] = dict(metadata)
    end = 0
    for spec in specs:
        if spec.name == _METADATA:
            raise FormatError(f"{subject}: tensor name {shown(_METADATA)} is reserved")
        if spec.name in root:
            raise FormatError(f"{subject}: tensor {shown(spec.name)} appears twice")
        begin, end = end, end + spec.nbytes
        root[spec.name] = {
            "dtype": spec.dtype.label,
            "shape": spec.shape,
            "data_offsets": (begin, end),
        }
    text = json.dumps(root, ensure_ascii=False, separators=(",", ":"))
    # Halves of surrogate pairs get through here, for `parse` to refuse.
    header = text.encode("utf-8", "surrogatepass")
    # Data that starts at a multiple of 8 can be mapped and used in place.
    header += b" " * (-(_LENGTH + len(header)) % _ALIGNMENT)
    return parse(header, _LENGTH + len(header) + end, subject)


def _refuse_length(length: int, file_size: int, subject: str) -> None:
    if not 0 < length <= MAX_HEADER:
        raise FormatError(
            f"{subject}: header length: expected 1 to {MAX_HEADER} bytes, found {length}"
        )
    if length > file_size - _LENGTH:
        raise FormatError(
            f"{subject}: header length: expected at most {file_size - _LENGTH}, the bytes "
            f"that follow it, found {length}; the file may be cut short"
        )


def _metadata(value: object, subject: str) -> dict[str, str]:
    where = f"{subject}: {_METADATA}"
    if not isinstance(value, dict):
        raise FormatError(f"{where}: expected an object, found {describe(value)}")
    for key, item in value.items():
        if not isinstance(item, str):
            raise FormatError(
                f"{where}[{shown(key)}]: expected a string, found {describe(item)}"
            )
    return value


# What follows begins its messages with the field; `parse` puts subject and tensor before.


def _placed(name: str, entry: object, data_size: int) -> Placed:
    if not isinstance(entry, dict):
        raise FormatError(f"expected an object, found {describe(entry)}")
    for field in _FIELDS:
        if field not in entry:
            raise FormatError(f'missing field "{field}"')
    if len(entry) > len(_FIELDS):
        unknown = next(field for field in entry if field not in _FIELDS)
        raise FormatError(f"unknown field {shown(unknown)}")
    dtype = _dtype(entry["dtype"])
    spec = TensorSpec(name=name, dtype=dtype, shape=_shape(entry["shape"], dtype))
    begin, end = _offsets(entry["data_offsets"], spec, data_size)
    return Placed(spec=spec, begin=begin, end=end)


def _dtype(label: object) -> DType:
    dtype = DTYPES.get(label) if isinstance(label, str) else None
    if dtype is None:
        known = ", ".join(DTYPES)
        raise FormatError(f"dtype: expected one of {known}, found {describe(label)}")
    return dtype


def _shape(shape: object, dtype: DType) -> tuple[int, ...]:
    if not isinstance(shape, list):
        raise FormatError(f"shape: expected an array of sizes, found {describe(shape)}")
    if len(shape) > _MAX_RANK:
        raise FormatError(f"shape: expected a rank up to {_MAX_RANK}, found {len(shape)}")
    # Zeros are passed over: a reader that multiplies in another order meets the overflow
    # that a zero before it hides.
    numel = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise FormatError(f"shape: expected sizes of 0 or more, found {describe(size)}")
        numel *= size or 1
    if numel * dtype.bits > _MAX_BYTES * 8:
        raise FormatError(
            f"shape: {dtype.label}{shape} overflows: more than {_MAX_BYTES} bytes"
        )
    if numel * dtype.bits % 8 and 0 not in shape:
        bits = numel * dtype.bits
        raise FormatError(f"shape: {dtype.label}{shape} is {bits} bits, not whole bytes")
    return tuple(shape)


def _offsets(value: object, spec: TensorSpec, data_size: int) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise FormatError(f"data_offsets: expected [begin, end], found {describe(value)}")
    for offset in value:
        if type(offset) is not int or offset < 0:
            raise FormatError(
                f"data_offsets: expected integers of at least 0, found {describe(offset)}"
            )
    begin, end = value
    if begin > end:
        raise FormatError(f"data_offsets: expected begin <= end, found {value}")
    if end - begin != spec.nbytes:
        raise FormatError(
            f"data_offsets: expected {spec.nbytes} bytes for {spec.describe()}, found "
            f"{value}, which are {end - begin}"
        )
    if end > data_size:
        raise FormatError(
            f"data_offsets: expected an end of at most {data_size}, the bytes of data in "
            f"the file, found {value}; the file may be cut short"
        )
    return begin, end


def _refuse_gaps(tensors: Sequence[Placed], data_size: int, subject: str) -> None:
    end = 0
    before = None
    for placed in tensors:
        if placed.begin != end:
            name = shown(placed.spec.name)
            where = f"tensor {shown(before.spec.name)} ends" if before else "data begins"
            kind = "a hole lies before it" if placed.begin > end else "the two overlap"
            raise FormatError(
                f"{subject}: tensor {name}: data_offsets: expected to begin at {end}, "
                f"where {where}, found {placed.begin}; {kind}"
            )
        before, end = placed, placed.end
    if end != data_size:
        raise FormatError(
            f"{subject}: expected the file to end at the {end} bytes of data of its "
            f"tensors, found {data_size} bytes of data"
        )
