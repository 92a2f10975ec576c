"""One chunk: every kind of frame, what it costs, and each way that a frame can be wrong."""

import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, wrapped

from releasekit.codec import ulp
from releasekit.errors import BaseMismatchError, FormatError
from releasekit.tensors import DType, Word

RAW, UNCHANGED, GROUPED = 0, 1, 2
WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
BF16 = DType.BF16.word
MISMATCH = (
    "w: the base's exponents are not those that this delta was made with: the base "
    "differs from the maker's, or the delta is damaged"
)

Array = NDArray[Any]


def encode(base: Array, target: Array, word: Word, row: int = 64) -> bytes:
    """Codes a chunk, and holds the frame against what is promised of every frame."""
    base, target = base.ravel(), target.ravel()
    frame = ulp.encode(base, target, word=word, row=row)
    assert len(frame) <= target.nbytes + 1
    assert ulp.encode(base, target, word=word, row=row) == frame
    np.testing.assert_array_equal(decode(frame, base, word, row), target)
    return frame


def decode(frame: bytes, base: Array, word: Word, row: int = 64) -> Array:
    out = base.copy()
    ulp.decode(frame, out, word=word, row=row, where="w")
    return out


def normal(size: int, seed: int = 0) -> NDArray[np.uint32]:
    """Bits of fp32 numbers as weights have them."""
    values = np.random.default_rng(seed).standard_normal(size) * 0.02
    return values.astype(np.float32).view(np.uint32)


def nudged(words: Array, share: float, step: int = 3, seed: int = 1) -> Array:
    """The words, a share of which is up to `step` ULPs away."""
    source = np.random.default_rng(seed)
    steps = source.integers(1, step + 1, words.size) * source.choice([-1, 1], words.size)
    steps[source.random(words.size) >= share] = 0
    moved: Array = words + steps.astype(words.dtype)
    return moved


def rounded(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Bits of fp32 numbers, rounded to bf16 (nearest, ties to even) but still fp32."""
    half = np.uint32(0x7FFF) + (words >> np.uint32(16) & np.uint32(1))
    return (words + half) & np.uint32(0xFFFF0000)


def updated(words: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The bf16 words after an update of one size for all, however small they are."""
    values = (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
    values += np.random.default_rng(1).standard_normal(words.size).astype(np.float32) * 1e-4
    return (rounded(values.view(np.uint32)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("dtype", DType)
def test_a_chunk_that_equals_the_base_takes_one_byte(dtype: DType) -> None:
    words = np.arange(100).astype(WORDS[dtype.word.bits])
    assert encode(words, words, dtype.word) == bytes([UNCHANGED])


@pytest.mark.parametrize("dtype", DType)
def test_a_chunk_that_cannot_shrink_is_stored_raw(dtype: DType) -> None:
    source = np.random.default_rng(0)
    base, target = (
        np.frombuffer(source.bytes(1000 * dtype.word.bits // 8), WORDS[dtype.word.bits])
        for _ in range(2)
    )
    assert encode(base, target, dtype.word) == bytes([RAW]) + target.tobytes()


@pytest.mark.parametrize("dtype", DType)
def test_a_chunk_of_one_word(dtype: DType) -> None:
    one = np.ones(1, WORDS[dtype.word.bits])
    frame = encode(one, ~one, dtype.word, row=1)
    assert frame == bytes([RAW]) + (~one).tobytes()


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (DType.BF16, (normal(20_000) >> 16).astype(np.uint16)),
        (DType.F32, normal(20_000)),
        (DType.F64, normal(20_000).view(np.float32).astype(np.float64).view(np.uint64)),
        (DType.F16, normal(20_000).view(np.float32).astype(np.float16).view(np.uint16)),
        (DType.F8_E4M3, (normal(20_000) >> 20).astype(np.uint8)),
        (DType.I64, np.arange(20_000, dtype=np.uint64)),
    ],
    ids=lambda value: value.label if isinstance(value, DType) else "",
)
def test_few_small_changes_cost_little(dtype: DType, words: Array) -> None:
    frame = encode(words, nudged(words, 0.01), dtype.word)
    assert frame[0] == GROUPED
    # 0.081 bits whether a word changed, 2.6 how far and which way, of 1 %: 0.11 in all
    assert 8 * len(frame) / words.size < 0.2


def test_a_sign_that_flips_at_zero_is_one_small_step() -> None:
    base = np.full(20_000, 0x0000, np.uint16)
    target = base.copy()
    target[::2] = 0x8000  # −0, the neighbour of 0 in the order of the floats
    assert 8 * len(encode(base, target, BF16)) / base.size < 1.1


def test_every_pattern_survives_every_distance() -> None:
    words = np.arange(1 << 16, dtype=np.uint16)
    for dtype in (DType.BF16, DType.F16, DType.I16):
        for distance in (1, 0x7FFF, 0x8000, 0xFFFF):
            encode(words, words + np.uint16(distance), dtype.word, row=1000)


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [(DType.F32, 32), (DType.F64, 64), (DType.C64, 32), (DType.I32, 32), (DType.U64, 64)],
)
def test_extremes_survive_in_wide_words(dtype: DType, bits: int) -> None:
    top = 1 << (bits - 1)
    edges = [0, 1, top - 1, top, top + 1, 2 * top - 1, 2 * top - 2]
    if mantissa := dtype.word.mantissa_bits:
        infinity = (top - 1) >> mantissa << mantissa
        smallest = 1 << mantissa
        positive = [infinity, infinity + 1, infinity - 1, smallest, smallest - 1]
        edges += positive + [pattern | top for pattern in positive]
    grid = np.array([(x, y) for x in edges for y in edges], WORDS[bits])
    for repeats in (1, 40):
        base, target = (np.repeat(side, repeats) for side in grid.T)
        encode(base, target, dtype.word, row=len(edges))


def test_fp32_that_holds_bf16_costs_what_bf16_costs() -> None:
    base = normal(100_000)
    target = nudged(rounded(base) >> 16, 0.3) << np.uint32(16)
    wide = encode(base, target, DType.F32.word, row=100)
    narrow = encode(
        (rounded(base) >> 16).astype(np.uint16),
        (target >> np.uint32(16)).astype(np.uint16),
        BF16,
        row=100,
    )
    assert len(wide) <= len(narrow) + 8


def test_fp32_that_was_rounded_to_bf16_costs_nothing() -> None:
    base = normal(50_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = encode(base, rounded(base), DType.F32.word, row=100)
    assert len(frame) < 100


def test_integers_with_common_zeros_are_coded_without_them() -> None:
    source = np.random.default_rng(0)
    base = np.zeros(20_000, np.uint64)
    target = source.integers(0, 4, base.size, np.uint64) << np.uint64(40)
    assert 8 * len(encode(base, target, DType.I64.word)) / base.size < 2.2


def test_rows_without_change_cost_nothing() -> None:
    base = (normal(1000 * 256) >> 16).astype(np.uint16).reshape(1000, 256)
    moved = slice(0, 1000, 100)
    target = base.copy()
    target[moved] = nudged(base[moved].ravel(), 0.9, 50).reshape(-1, 256)
    whole = encode(base, target, BF16, row=256)
    alone = encode(base[moved], target[moved], BF16, row=256)
    assert len(whole) < len(alone) + 300


def test_rows_that_move_more_are_told_apart() -> None:
    source = np.random.default_rng(2)
    base = (normal(1000 * 256) >> 16).astype(np.uint16).reshape(1000, 256)
    steps = source.standard_normal(base.shape) * np.exp2(source.integers(0, 9, (1000, 1)))
    target = base + np.rint(steps).astype(np.int16).astype(np.uint16)
    told = len(encode(base, target, BF16, row=256))
    assert told < 0.95 * len(encode(base, target, BF16, row=base.size))


def test_rows_as_far_apart_as_fp64_allows() -> None:
    base = np.zeros((4, 1024), np.uint64)
    target = base.copy()
    target[0, 0] = 1  # one step, where steps are smallest
    base[1], target[1] = 0xFFF0 << 48, 0x4FF0 << 48  # from −inf to 2**256
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(base, target, DType.F64.word, row=1024)


def test_the_last_row_may_be_short() -> None:
    base = (normal(1000) >> 16).astype(np.uint16)
    for row in (1, 7, 64, 999, 1000, 1001):
        encode(base, nudged(base, 0.2), BF16, row=row)


def test_threads_do_not_share_buffers() -> None:
    bases = [(normal(50_000, seed) >> 16).astype(np.uint16) for seed in range(16)]

    def code(base: NDArray[np.uint16]) -> bytes:
        return encode(base, updated(base), BF16)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(code, bases)) == list(map(code, bases))


def test_a_base_of_other_exponents_is_found_out() -> None:
    base = (normal(20_000) >> 16).astype(np.uint16)
    frame = ulp.encode(base, updated(base), word=BF16, row=64)
    others = [
        (normal(20_000, 9) >> 16).astype(np.uint16),
        np.zeros_like(base),
        np.full_like(base, 0xFFFF),
        np.arange(20_000, dtype=np.uint16),
    ]
    for other in others:
        with pytest.raises(BaseMismatchError) as caught:
            decode(frame, other, BF16)
        assert str(caught.value) == MISMATCH


def test_a_base_of_the_same_exponents_gives_other_words() -> None:
    base = (normal(20_000) >> 16).astype(np.uint16)
    target = updated(base)
    frame = ulp.encode(base, target, word=BF16, row=64)
    for other in (base ^ np.uint16(1), base ^ np.uint16(0x8000), base[::-1].copy()):
        assert not np.array_equal(decode(frame, other, BF16), target)


# Malformed frames, for a chunk of 8 bf16 words in 2 rows. Packed by hand, from the format.


def grouped(
    *groups: tuple[int, int, bytes],
    shift: int = 0,
    rows: bytes = b"",
    rows_nbytes: int | None = None,
    number: int | None = None,
) -> bytes:
    size = len(rows) if rows_nbytes is None else rows_nbytes
    head = struct.pack("<BBHI", GROUPED, shift, number or len(groups), size)
    table = b"".join(struct.pack("<HII", g[0], g[1], len(g[2])) for g in groups)
    return head + table + rows + b"".join(g[2] for g in groups)


def pcodec(*numbers: int) -> bytes:
    array = np.array(numbers, np.uint32)
    config = ChunkConfig(
        mode_spec=ModeSpec.classic(),
        delta_spec=DeltaSpec.no_op(),
        paging_spec=PagingSpec.exact_page_sizes([array.size]),
    )
    file = wrapped.FileCompressor()
    file.write_header()
    chunk = file.chunk_compressor(array, config)
    return bytes(chunk.write_meta()) + bytes(chunk.write_page(0))


ONE = 0x3F80  # 1.0 in bf16, whose exponent field is 127
EIGHT = pcodec(*range(1, 9))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (grouped((254, 8, b"")), [ONE] * 8),
        (grouped((765, 8, b"")), [ONE] * 8),
        (grouped((253, 0, b""), (254, 8, b"")), [ONE] * 8),
        (
            grouped((254, 8, EIGHT)),  # zigzag: odd numbers step down
            [ONE + step for step in (-1, 1, -2, 2, -3, 3, -4, 4)],
        ),
        (grouped((254, 4, b""), (255, 4, b""), rows=pcodec(0, 1)), [ONE] * 8),
        (grouped(rows=pcodec(255, 255)), [ONE] * 8),
        (
            grouped((254, 4, pcodec(2, 2, 2, 2)), rows=pcodec(255, 0)),
            [ONE] * 4 + [ONE + 1] * 4,
        ),
        (grouped((254, 8, b""), shift=7), [ONE] * 8),
    ],
)
def test_a_frame_packed_by_hand_is_read(frame: bytes, words: list[int]) -> None:
    base = np.full(8, ONE, np.uint16)
    assert decode(frame, base, BF16, row=4).tolist() == words


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"", "w: unknown kind of frame None of 0 bytes"),
        (b"\3", "w: unknown kind of frame 3 of 1 bytes"),
        (b"\1\0", "w: unknown kind of frame 1 of 2 bytes"),
        (b"\0" + bytes(15), "w: expected 16 raw bytes, found 15"),
        (b"\0" + bytes(17), "w: expected 16 raw bytes, found 17"),
        (b"\2", "w: frame ends within its head"),
        (b"\2" + bytes(6), "w: frame ends within its head"),
        (
            grouped((254, 8, b""), number=2),
            "w: frame ends within its table of 2 groups",
        ),
        (grouped((254, 8, b""))[:-1], "w: frame ends within its table of 1 groups"),
        (
            grouped((254, 8, b""), shift=8),
            "w: shift: expected less than 8, found 8",
        ),
        (
            grouped((254, 4, b""), (254, 4, b"")),
            "w: group indices: expected an increasing order below 766",
        ),
        (
            grouped((255, 4, b""), (254, 4, b"")),
            "w: group indices: expected an increasing order below 766",
        ),
        (
            grouped((766, 8, b"")),
            "w: group indices: expected an increasing order below 766",
        ),
        (
            grouped((254, 9, b"")),
            "w: group counts: expected at most 8 words in all, found 9",
        ),
        (
            grouped((1, 2**32 - 1, b""), (254, 2**32 - 1, b"")),
            "w: group counts: expected at most 8 words in all, found 8589934590",
        ),
        (grouped((254, 8, EIGHT)) + b"\0", "w: expected {n} bytes, found {n+1}"),
        (grouped((254, 8, EIGHT))[:-1], "w: expected {n+2} bytes, found {n+1}"),
        (
            grouped((254, 8, b""), rows_nbytes=2**32 - 1),
            "w: expected 4294967313 bytes, found 18",
        ),
        (
            grouped((254, 4, b""), (255, 4, b""), rows=pcodec(0, 256)),
            "w: row classes: expected at most 255, found 256",
        ),
    ],
)
def test_malformed_frames_are_refused(frame: bytes, message: str) -> None:
    for length in (-1, 0, 1):
        name = f"n{length + 1:+}".removesuffix("+0")
        message = message.replace(f"{{{name}}}", str(len(frame) + length))
    with pytest.raises(FormatError) as caught:
        decode(frame, np.full(8, ONE, np.uint16), BF16, row=4)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("frame", "start"),
    [
        (grouped((254, 8, b"\xff" * 20)), "w: pcodec: "),
        (grouped((254, 8, EIGHT[:-1])), "w: pcodec: "),
        (grouped((254, 8, EIGHT + b"\0")), "w: pcodec: "),
        (grouped((254, 8, pcodec(1, 2, 3))), "w: pcodec: "),
        (grouped((253, 0, EIGHT), (254, 8, EIGHT)), "w: pcodec: "),
        (grouped((254, 8, b""), rows=b"\xff" * 20), "w: row classes: pcodec: "),
        (grouped((254, 8, b""), rows=pcodec(1, 0, 1)), "w: row classes: pcodec: "),
    ],
)
def test_numbers_that_pcodec_cannot_read_are_refused(frame: bytes, start: str) -> None:
    with pytest.raises(FormatError) as caught:
        decode(frame, np.full(8, ONE, np.uint16), BF16, row=4)
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    "frame",
    [
        grouped(),
        grouped((254, 7, b"")),
        grouped((253, 8, b""), (765, 0, b"")),
        grouped((253, 1, b""), (254, 7, b"")),
        grouped((254, 8, b""), rows=pcodec(0, 255)),
        grouped((254, 4, b""), rows=pcodec(255, 255)),
        grouped((100, 0, b""), rows=pcodec(254, 254)),
    ],
)
def test_groups_that_do_not_fit_the_base_are_found_out(frame: bytes) -> None:
    with pytest.raises(BaseMismatchError) as caught:
        decode(frame, np.full(8, ONE, np.uint16), BF16, row=4)
    assert str(caught.value) == MISMATCH


@pytest.mark.parametrize(
    ("dtype", "shifts", "indices"),
    [
        (DType.I8, 8, 256),
        (DType.U64, 64, 256),
        (DType.F8_E4M3, 4, 286),
        (DType.F16, 11, 318),
        (DType.F32, 24, 766),
        (DType.F64, 53, 4350),
    ],
)
def test_limits_are_those_of_the_word(dtype: DType, shifts: int, indices: int) -> None:
    zeros = np.zeros(8, WORDS[dtype.word.bits])
    best = grouped((indices - 1, 8, b""), shift=shifts - 1)
    np.testing.assert_array_equal(decode(best, zeros, dtype.word), zeros)
    with pytest.raises(FormatError, match=f"shift: expected less than {shifts}, found"):
        decode(grouped((0, 8, b""), shift=shifts), zeros, dtype.word)
    with pytest.raises(FormatError, match=f"an increasing order below {indices}"):
        decode(grouped((indices, 8, b"")), zeros, dtype.word)
