"""FORMAT.md suffices: a decoder written from it alone rebuilds what releasekit wrote.

Nothing of releasekit is used below but `make_delta` and its parameters. The code follows
the sections of the specification, word by word and slowly, and shares no shortcut with the
product.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from pcodec import wrapped

from releasekit import Ulp, make_delta
from tests.builders import RawTensor, model_folder, stock_tensors

#: Width, exponent bits, mantissa bits: the table of section 4.
WORDS = {
    "F64": (64, 11, 52),
    "F32": (32, 8, 23),
    "BF16": (16, 8, 7),
    "F16": (16, 5, 10),
    "F8_E4M3": (8, 4, 3),
    "I16": (16, 0, 0),
    "BOOL": (8, 0, 0),
}


def row_words(shape: list[int], total: int) -> int:
    """Section 4: the smallest product of trailing dimensions of at least 64 words."""
    row = 1
    for size in reversed(shape[1:]):
        row *= size
        if row >= 64:
            return row
    return total


def numbers(coded: bytes, count: int, bits: int) -> list[int]:
    """Section 5, numbers: one pcodec chunk of one page."""
    if not coded:
        return [0] * count
    out = np.empty(count, np.uint64 if bits == 64 else np.uint32)
    decoder, _ = wrapped.FileDecompressor.new(b"\x04\x01")
    chunk, used = decoder.chunk_decompressor(coded, "u64" if bits == 64 else "u32")
    chunk.read_page_into(coded[used:], count, out)
    return [int(x) for x in out]


def decode(
    frame: bytes, base: list[int], word: tuple[int, int, int], row: int
) -> list[int]:
    """Section 5: one frame."""
    width, exponent_bits, mantissa_bits = word
    kind = frame[0]
    if kind == 1:
        return base
    if kind == 0:
        step = width // 8
        data = frame[1:]
        starts = range(0, len(data), step)
        return [int.from_bytes(data[i : i + step], "little") for i in starts]
    _, shift, groups, rows_nbytes = struct.unpack_from("<BBHI", frame)
    table = [struct.unpack_from("<HII", frame, 8 + 10 * g) for g in range(groups)]
    at = 8 + 10 * groups
    rows = -(-len(base) // row)
    classes = numbers(frame[at : at + rows_nbytes], rows, 32) if rows_nbytes else [0] * rows
    at += rows_nbytes
    held = []
    for _, count, nbytes in table:
        held.append(iter(numbers(frame[at : at + nbytes], count, width)))
        at += nbytes
    assert at == len(frame)

    n = width - shift
    top = 1 << (n - 1)
    out = []
    for i, b in enumerate(base):
        if shift:
            half = (1 << (shift - 1)) - 1
            b = ((b + half + (b >> shift & 1)) % 2**64 >> shift) % (1 << n)
        z = 0
        if classes[i // row] != 255:
            exponent = b >> max(mantissa_bits - shift, 0) & ((1 << exponent_bits) - 1)
            index = 2 * exponent + classes[i // row]
            last = [entry[0] for entry in table]
            group = next((g for g, end in enumerate(last) if end >= index), groups - 1)
            z = next(held[group])
        d = (z >> 1) ^ (((1 << n) - 1) if z & 1 else 0)

        def ordered(x: int) -> int:
            return x ^ (top - 1) if exponent_bits and x & top else x

        out.append(ordered((ordered(b) + d) % (1 << n)) << shift)
    assert all(next(group, None) is None for group in held), "a group is not used up"
    return out


def words_of(data: bytes, width: int) -> list[int]:
    return [int(x) for x in np.frombuffer(data, f"<u{width // 8}")]


def rebuild(release: Path, base: dict[str, RawTensor]) -> dict[str, bytes]:
    """Sections 2 to 4: every weight file of the target."""
    manifest = json.loads((release / "release.json").read_bytes())
    chunk_words = manifest["codec"]["params"]["chunk"]
    payloads: dict[str, bytes] = {}
    for shard in manifest["shards"]:
        held = stock_tensors((release / shard["path"]).read_bytes())
        payloads |= {name: data for name, (_, _, data) in held.items()}
    operations = {entry["name"]: entry for entry in manifest["tensors"]}

    def tensor(name: str, dtype: str, shape: list[int]) -> bytes:
        entry = operations[name]
        if entry["op"] == "alias":
            return tensor(entry["of"], dtype, shape)
        if entry["op"] == "same":
            return base[name][2]
        width, _, _ = WORDS[dtype]
        total = int(np.prod(shape))
        predicted = [] if entry["op"] == "new" else words_of(base[name][2], width)
        predicted = (predicted + [0] * total)[:total]
        payload = payloads[name]
        if not total:
            assert payload == b""
            return b""
        row = min(row_words(shape, total), chunk_words)
        chunk = chunk_words // row * row
        count = -(-total // chunk)
        sizes = struct.unpack(f"<{count}I", payload[-4 * count :])
        at = 0
        out: list[int] = []
        for number, size in enumerate(sizes):
            part = predicted[number * chunk : (number + 1) * chunk]
            out += decode(payload[at : at + size], part, WORDS[dtype], row)
            at += size
        assert at == len(payload) - 4 * count
        data = np.array(out, np.uint64).astype(f"<u{width // 8}").tobytes()
        assert blake3(data).hexdigest() == entry["digest"]
        return data

    files = {}
    for weights in manifest["target"]["weights"]:
        header = weights["header"].encode()
        parsed: dict[str, Any] = json.loads(header)
        parsed.pop("__metadata__", None)
        body = b"".join(
            tensor(name, entry["dtype"], entry["shape"])
            for name, entry in sorted(parsed.items(), key=lambda kv: kv[1]["data_offsets"])
        )
        files[weights["path"]] = struct.pack("<Q", len(header)) + header + body
    return files


def words(values: NDArray[Any]) -> bytes:
    return values.tobytes()


def bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def test_a_decoder_written_from_the_specification_agrees(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    w = normal(96, 100)
    moved = w + normal(96, 100) * np.exp(normal(96, 1)) * np.float32(1e-3)
    moved[10:20] = w[10:20]
    wide = bf16(normal(40, 64)).astype(np.uint32) << 16
    f64 = rng.standard_normal(500)
    small = rng.integers(0, 256, (20, 70), np.uint8)
    base: dict[str, RawTensor] = {
        "rows": ("BF16", [96, 100], words(bf16(w))),
        "half": ("F16", [96, 100], words(w.astype(np.float16))),
        "wide": ("F32", [40, 64], words(normal(40, 64))),
        "f64": ("F64", [500], words(f64)),
        "fp8": ("F8_E4M3", [20, 70], words(small)),
        "int": ("I16", [300], words(np.arange(300, dtype=np.int16))),
        "grown": ("BF16", [4, 80], words(bf16(normal(4, 80)))),
        "same": ("BOOL", [5], bytes([0, 1, 1, 0, 1])),
        "dropped": ("BF16", [2], bytes(4)),
    }
    target: dict[str, RawTensor] = {
        "rows": ("BF16", [96, 100], words(bf16(moved))),
        "half": ("F16", [96, 100], words(moved.astype(np.float16))),
        "wide": ("F32", [40, 64], words(wide)),
        "f64": ("F64", [500], words(np.nextafter(f64, 9))),
        "fp8": ("F8_E4M3", [20, 70], words(small ^ (rng.random((20, 70)) < 0.1))),
        "int": ("I16", [300], words(np.arange(300, dtype=np.int16)[::-1].copy())),
        "grown": ("BF16", [7, 80], base["grown"][2] + words(bf16(normal(3, 80)))),
        "same": base["same"],
        "new": ("F16", [3, 90], words(normal(3, 90).astype(np.float16))),
        "tied": ("BF16", [96, 100], words(bf16(moved))),
        "noise": ("I16", [64], rng.bytes(128)),
        "empty": ("F32", [0, 4], b""),
    }
    model_folder(tmp_path / "base", base)
    model_folder(tmp_path / "target", target, shards=2)
    made = make_delta(
        *(tmp_path / name for name in ("base", "target", "delta")), codec=Ulp(chunk=2048)
    )
    assert set(made.tensors.values()) == {
        *("same", "delta", "resize", "new", "alias", "dropped")
    }
    rebuilt = rebuild(tmp_path / "delta", base)
    assert rebuilt == {
        path.name: path.read_bytes() for path in (tmp_path / "target").glob("*.safetensors")
    }
