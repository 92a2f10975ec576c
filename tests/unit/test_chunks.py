"""How tensors are cut, and the table of frame sizes."""

from itertools import pairwise, product

import pytest

from releasekit.codec.chunks import Chunking, pack_table, parse_table, table_nbytes
from releasekit.errors import FormatError
from releasekit.tensors import DTYPES, TensorSpec

K = 1 << 10


def cut(label: str, shape: tuple[int, ...], chunk: int = K) -> Chunking:
    return Chunking.of(TensorSpec(name="w", dtype=DTYPES[label], shape=shape), chunk)


@pytest.mark.parametrize(
    ("label", "shape", "row", "chunk", "spans"),
    [
        ("BF16", (10, 300), 300, 900, [1800, 1800, 1800, 600]),
        ("BF16", (3, 1024), 1024, 1024, [2048] * 3),
        ("BF16", (2, 1025), 1024, 1024, [2048, 2048, 4]),  # longer than a chunk
        ("BF16", (1025,), 1024, 1024, [2048, 2]),
        ("BF16", (100,), 100, 1000, [200]),
        ("BF16", (), 1, 1024, [2]),
        ("F32", (0,), 1, 1024, []),
        ("F32", (5, 0, 7), 1, 1024, []),
        ("F32", (0, 64), 64, 1024, []),
        ("F32", (1, 1), 1, 1024, [4]),
        ("F32", (100, 4), 400, 800, [1600]),  # rows too short, the whole has 400 words
        ("F32", (100, 3, 16), 1024, 1024, [4096] * 4 + [2816]),
        ("F32", (100, 16, 4), 64, 1024, [4096] * 6 + [1024]),
        ("F32", (100, 16, 63), 1008, 1008, [4032] * 100),
        ("I8", (30, 64), 64, 1024, [1024, 896]),
        ("C64", (9, 32), 64, 1024, [2304]),  # a number is a pair of words
        ("C64", (9, 31), 558, 558, [2232]),
        ("F64", (9, 64), 64, 1024, [4608]),
        ("F4", (9, 128), 64, 1024, [576]),  # two numbers are one byte
        ("F4", (8, 129), 516, 516, [516]),  # a row would end in half a byte
        ("F4", (4, 2, 65), 65, 975, [260]),
        ("F6_E2M3", (9, 128), 96, 960, [864]),
        ("F6_E3M2", (4, 87), 261, 783, [261]),
    ],
)
def test_cuts(
    label: str,
    shape: tuple[int, ...],
    row: int,
    chunk: int,
    spans: list[int],
) -> None:
    cutting = cut(label, shape)
    assert (cutting.row, cutting.chunk) == (row, chunk)
    assert cutting.count == len(spans)
    assert [cutting.span(index)[1] for index in range(cutting.count)] == spans


@pytest.mark.parametrize("label", DTYPES)
def test_chunks_cover_the_tensor_exactly(label: str) -> None:
    shapes = [(8,), (0, 8), (33, 8), (7, 100, 8), (2, 2, 2, 2, 8), (5000, 8)]
    for shape, chunk in product(shapes, (K, K + 1, 1 << 20)):
        spec = TensorSpec(name="w", dtype=DTYPES[label], shape=shape)
        cutting = Chunking.of(spec, chunk)
        assert 1 <= cutting.row <= cutting.chunk <= chunk, shape
        assert cutting.chunk % cutting.row == 0, shape
        at = 0
        for index in range(cutting.count):
            start, nbytes = cutting.span(index)
            assert start == at, shape
            assert 0 < nbytes <= cutting.chunk_nbytes, shape
            assert nbytes % cutting.word_nbytes == 0, shape
            at += nbytes
        assert at == spec.nbytes, shape


@pytest.mark.parametrize("sizes", [[], [0], [1], [5, 0, 7], [2**32 - 1]])
def test_a_table_says_where_frames_begin(sizes: list[int]) -> None:
    table = pack_table(sizes)
    assert len(table) == table_nbytes(len(sizes)) == 4 * len(sizes)
    edges = parse_table(table, len(table) + sum(sizes), "w")
    assert (edges[0], edges[-1]) == (0, sum(sizes))
    assert [end - begin for begin, end in pairwise(edges)] == sizes


def test_a_table_is_little_endian() -> None:
    assert pack_table([1, 0x01020304]) == b"\1\0\0\0\4\3\2\1"


@pytest.mark.parametrize(
    ("table", "nbytes", "end"),
    [
        (b"", 1, 0),
        (b"\5\0\0\0", 8, 5),
        (b"\5\0\0\0", 10, 5),
        (b"\5\0\0\0\xff\xff\xff\xff", 13, 5 + 2**32 - 1),
    ],
)
def test_frames_that_do_not_fill_the_payload_are_refused(
    table: bytes, nbytes: int, end: int
) -> None:
    with pytest.raises(FormatError) as caught:
        parse_table(table, nbytes, "w")
    assert str(caught.value) == (
        f"w: expected frames to end at byte {nbytes - len(table)}, found {end}"
    )
