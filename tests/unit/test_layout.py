"""The safetensors header: lengths, order, what `build` makes and what it refuses."""

import time
from collections.abc import Mapping

import pytest

from releasekit.errors import FormatError
from releasekit.layout import MAX_HEADER, Layout, build, header_length, parse
from releasekit.tensors import DType, TensorSpec
from tests.builders import raw_header, safetensors_bytes


def spec(name: str, dtype: DType, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def read(file: bytes) -> Layout:
    length = header_length(file[:8], len(file), "x")
    return parse(file[8 : 8 + length], len(file), "x")


def places(layout: Layout) -> list[tuple[str, int, int]]:
    return [(placed.spec.name, placed.begin, placed.end) for placed in layout.tensors]


def test_a_file_is_read() -> None:
    file = safetensors_bytes(
        {"b": ("BF16", [2, 3], b"x" * 12), "a": ("F32", [], b"y" * 4)}, {"format": "pt"}
    )
    layout = read(file)
    assert [placed.spec for placed in layout.tensors] == [
        spec("b", DType.BF16, 2, 3),
        spec("a", DType.F32),
    ]
    assert places(layout) == [("b", 0, 12), ("a", 12, 16)]
    assert layout.metadata == {"format": "pt"}
    assert layout.file_size == len(file)
    assert layout.data_start == len(file) - 16
    assert layout.prefix == file[:-16]
    assert layout.by_name()["a"] is layout.tensors[1]
    assert list(layout.by_name()) == ["b", "a"]


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({}, b""),
        (b"{}", b""),
        (b"{}      \n", b""),
        ({"__metadata__": {}}, b""),
        ({"w": {"dtype": "I8", "shape": [], "data_offsets": [0, 1]}}, b"x"),
        ({"w": {"dtype": "I8", "shape": [2, 0], "data_offsets": [0, 0]}}, b""),
        ({"w": {"data_offsets": [0, 2], "shape": [1], "dtype": "F16"}}, b"xx"),
        ({"w": {"dtype": "F4", "shape": [3, 2], "data_offsets": [0, 3]}}, b"xxx"),
        ({"w": {"dtype": "F4", "shape": [3, 0], "data_offsets": [0, 0]}}, b""),
        ({"w": {"dtype": "F6_E3M2", "shape": [4], "data_offsets": [0, 3]}}, b"xxx"),
        ({"w": {"dtype": "U8", "shape": [1] * 64, "data_offsets": [0, 1]}}, b"x"),
        ({"w": {"dtype": "U8", "shape": [0, 2**63 - 1], "data_offsets": [0, 0]}}, b""),
    ],
)
def test_unusual_headers_are_accepted(header: object, data: bytes) -> None:
    file = raw_header(header, data)
    layout = read(file)
    assert layout.file_size == len(file)
    assert layout.prefix + data == file


def test_tensors_come_in_the_order_of_their_data() -> None:
    header = {
        "last": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]},
        "empty 2": {"dtype": "U8", "shape": [0], "data_offsets": [3, 3]},
        "first": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "empty 1": {"dtype": "U8", "shape": [0, 1], "data_offsets": [3, 3]},
        "end": {"dtype": "U8", "shape": [0], "data_offsets": [4, 4]},
    }
    assert places(read(raw_header(header, b"xxxx"))) == [
        ("first", 0, 3),
        ("empty 2", 3, 3),
        ("empty 1", 3, 3),
        ("last", 3, 4),
        ("end", 4, 4),
    ]


@pytest.mark.parametrize("metadata", [None, {}, {"k": "v"}])
def test_no_metadata_differs_from_none_inside(metadata: Mapping[str, str] | None) -> None:
    assert read(safetensors_bytes({}, metadata)).metadata == metadata


def test_header_length_reads_eight_bytes() -> None:
    assert header_length(b"\x02\0\0\0\0\0\0\0", 10, "x") == 2
    assert header_length(b"\x02\x01\0\0\0\0\0\0{}", 1000, "x") == 258
    largest = MAX_HEADER.to_bytes(8, "little")
    assert header_length(largest, 8 + MAX_HEADER, "x") == MAX_HEADER


@pytest.mark.parametrize("size", [0, 9])
def test_parse_refuses_a_header_that_the_file_has_no_room_for(size: int) -> None:
    with pytest.raises(FormatError) as caught:
        parse(b"{}", size, "x")
    assert str(caught.value) == (
        f"x: header length: expected at most {size - 8}, the bytes that follow it, "
        "found 2; the file may be cut short"
    )


def test_build_writes_this() -> None:
    layout = build(
        [spec("ö", DType.BF16, 2, 3), spec("e", DType.U8, 0), spec("s", DType.F32)],
        {"format": "pt"},
    )
    text = (
        '{"__metadata__":{"format":"pt"},'
        '"ö":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},'
        '"e":{"dtype":"U8","shape":[0],"data_offsets":[12,12]},'
        '"s":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}'
    )
    assert layout.header.rstrip(b" ").decode() == text
    assert layout.data_start % 8 == 0
    assert len(layout.header) - len(text.encode()) < 8
    assert layout.file_size == layout.data_start + 16


def test_build_nothing() -> None:
    layout = build([], None)
    assert layout.prefix == b"\x08\0\0\0\0\0\0\0{}      "
    assert layout.file_size == 16


@pytest.mark.parametrize(
    ("specs", "metadata", "message"),
    [
        (
            [spec("w", DType.U8), spec("w", DType.I8)],
            None,
            'new header: tensor "w" appears twice',
        ),
        (
            [spec("__metadata__", DType.U8)],
            {},
            'new header: tensor name "__metadata__" is reserved',
        ),
        (
            [spec("__metadata__", DType.U8)],
            None,
            'new header: tensor name "__metadata__" is reserved',
        ),
        (
            [spec("../w", DType.U8)],
            None,
            'new header: tensor name "../w" has a ".." segment',
        ),
        (
            [spec("w", DType.F4, 3)],
            None,
            'new header: tensor "w": shape: F4[3] is 12 bits, not whole bytes',
        ),
        (
            [spec("w", DType.U8, 2**63)],
            None,
            'new header: tensor "w": shape: U8[9223372036854775808] overflows: '
            "more than 9223372036854775807 bytes",
        ),
        (
            [spec("a", DType.U8)],
            {"k": "\ud800"},
            "new header: header: not UTF-8 at byte 22",
        ),
        (
            [],
            {"k": "x" * MAX_HEADER},
            "new header: header length: expected 1 to 100000000 bytes, found 100000032",
        ),
    ],
    ids=[
        "twice",
        "reserved",
        "reserved, no metadata",
        "name",
        "part of a byte",
        "overflow",
        "surrogate",
        "too long",
    ],
)
def test_build_refuses_what_parse_would(
    specs: list[TensorSpec], metadata: Mapping[str, str] | None, message: str
) -> None:
    with pytest.raises(FormatError) as caught:
        build(specs, metadata)
    assert str(caught.value) == message


def test_many_tensors_take_linear_time() -> None:
    specs = [spec(f"layers.{number}.weight", DType.BF16, 8, 8) for number in range(20_000)]
    start = time.process_time()
    layout = build(specs, None)
    assert time.process_time() - start < 10  # seconds; quadratic time takes minutes
    assert [placed.spec for placed in layout.tensors] == specs
