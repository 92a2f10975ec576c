"""PyTorch files made by hand: pickles written opcode by opcode, and what goes around them.

Each function here returns the opcodes that leave one value on the stack.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ORDERED = b"ccollections\nOrderedDict\n)R"
FALSE, NONE = b"\x89", b"N"


def pickle(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def list_of(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def dict_of(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + b"R"


def storage(
    kind: str = "FloatStorage", key: str = "0", numel: int = 4, *more: bytes
) -> bytes:
    """A reference to a storage; `more` is the sixth item that the older format has."""
    items = (text("storage"), name("torch", kind), text(key), text("cpu"), number(numel))
    return tuple_of(*items, *more) + b"Q"


def tensor(
    of: bytes = b"",
    offset: int | bytes = 0,
    shape: tuple[int, ...] | bytes = (4,),
    strides: tuple[int, ...] | bytes = (1,),
    *more: bytes,
    rebuild: str = "_rebuild_tensor_v2",
) -> bytes:
    """A call that makes a tensor, by default of all four numbers of the storage "0"."""
    sizes = (
        part if isinstance(part, bytes) else tuple_of(*map(number, part))
        for part in (shape, strides)
    )
    first = offset if isinstance(offset, bytes) else number(offset)
    function = name("torch._utils", rebuild)
    return call(function, of or storage(), first, *sizes, FALSE, ORDERED, *more)


def zip_file(
    data: bytes,
    storages: Mapping[str, bytes],
    others: Mapping[str, bytes] | None = None,
    *,
    folder: str = "m",
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """A file of the format that torch has had since 1.6."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", data)
        archive.writestr(f"{folder}/version", "3\n")
        for key, raw in storages.items():
            archive.writestr(f"{folder}/data/{key}", raw)
        for path, raw in (others or {}).items():
            archive.writestr(path, raw)
    return made.getvalue()


def legacy_file(
    data: bytes,
    storages: Mapping[str, tuple[int, bytes]],
    *,
    magic: bytes = MAGIC,
    version: bytes = number(1001),
    machine: bytes = b"}X\r\0\0\0little_endian\x88s",
    keys: bytes | None = None,
) -> bytes:
    """A file of the format before torch 1.6: of each storage, its size and its data."""
    listed = list_of(*map(text, storages)) if keys is None else keys
    head = magic + pickle(version) + pickle(machine) + data + pickle(listed)
    return head + b"".join(struct.pack("<q", n) + raw for n, raw in storages.values())
