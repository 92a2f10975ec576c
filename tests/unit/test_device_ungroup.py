"""Chunks rebuilt on torch devices: the words are those of the CPU's decoder."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from releasekit.codec import frame as frames
from releasekit.codec import grouping, ulp
from releasekit.device import ungroup
from releasekit.tensors import DType, Word

GROUPED = 2
UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
BF16 = DType.BF16.word
ONE = 0x3F80  # 1.0 in bf16, whose exponent field is 127

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a frame of groups holds, decoded; arrays as the CPU's kernels want them."""

    grouped: Array
    classes: NDArray[np.uint8]
    table: NDArray[np.uint16]
    count: NDArray[np.int64]
    shift: int


def parts_of(frame: bytes, size: int, word: Word, row: int) -> Parts:
    """Reads a frame of groups as `ulp` does, up to where the base is needed."""
    kmask = (1 << word.exponent_bits) - 1
    parts = frames.parse(
        frame,
        words=size,
        shifts=word.mantissa_bits + 1 if kmask else word.bits,
        indices=grouping.index_count(kmask),
        where="w",
    )
    grouped = np.empty(parts.count.sum(), np.uint64 if word.bits == 64 else np.uint32)
    ends = np.cumsum(parts.count).tolist()
    for end, count, coded in zip(ends, parts.count.tolist(), parts.groups, strict=True):
        ulp._unpack(coded, grouped[end - count : end], "w")
    return Parts(
        grouped=grouped,
        classes=ulp._unpack_classes(parts.rows, -(-size // row), "w"),
        table=grouping.index_table(parts.last, kmask),
        count=parts.count,
        shift=parts.shift,
    )


def tensor(array: Array, device: torch.device | str) -> torch.Tensor:
    signed = array.astype(array.dtype).view(SIGNED[array.itemsize])  # a writable copy
    return torch.from_numpy(signed).to(device)


def rebuild(
    parts: Parts, base: Array, word: Word, row: int, device: torch.device | str = "cpu"
) -> Array | None:
    """The words of a chunk, None if the base is not the one that it was coded with."""
    start = tensor(base, device)
    arguments = (
        start,
        tensor(parts.grouped, device),
        torch.from_numpy(parts.classes.copy()).to(device),
        tensor(parts.table, device),
        tensor(parts.count, device),
    )
    before = [argument.clone() for argument in arguments]
    out = torch.full_like(start, 0x55)
    good = ungroup.rebuild(*arguments, out, word=word, shift=parts.shift, row=row)
    assert (good.shape, good.dtype, good.device) == ((), torch.bool, start.device)
    assert all(map(torch.equal, before, arguments))
    again = ungroup.rebuild(*arguments, start, word=word, shift=parts.shift, row=row)
    assert again == good
    assert torch.equal(start, out) or not good
    return out.cpu().numpy().view(base.dtype) if good else None


def check(base: Array, target: Array, word: Word, row: int = 64) -> Parts:
    """Codes a chunk, which must not be stored raw, and rebuilds it."""
    frame = ulp.encode(base, target, word=word, row=row)
    assert frame[0] == GROUPED
    parts = parts_of(frame, base.size, word, row)
    np.testing.assert_array_equal(rebuild(parts, base, word, row), target)
    return parts


def weights(word: Word, size: int, seed: int = 0) -> Array:
    """Words with the fields of fp32 numbers as weights have them, in few exponents."""
    values = np.random.default_rng(seed).standard_normal(size) * 0.02
    wide = values.astype(np.float32).view(np.uint32).astype(np.uint64) << np.uint64(32)
    return (wide >> np.uint64(64 - word.bits)).astype(UNSIGNED[word.bits])


def moved(base: Array, seed: int = 1) -> Array:
    """The words, some of them a few steps away, and every third row of 64 unchanged."""
    source = np.random.default_rng(seed)
    steps = np.rint(source.standard_normal(base.size) * 2) * (
        source.random(base.size) < 0.2
    )
    steps[np.arange(base.size) // 64 % 3 == 0] = 0
    target: Array = base + steps.astype(np.int64).astype(base.dtype)
    return target


def updated(base: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The bf16 words after an update of one size for all, in many groups."""
    values = (base.astype(np.uint32) << np.uint32(16)).view(np.float32)
    values += np.random.default_rng(1).standard_normal(base.size).astype(np.float32) * 1e-4
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


@pytest.mark.parametrize("dtype", DType)
def test_words_of_every_dtype_are_rebuilt(dtype: DType) -> None:
    base = weights(dtype.word, 20_000)
    check(base, moved(base), dtype.word)


@pytest.mark.parametrize("dtype", DType)
def test_words_with_common_zeros_are_rebuilt(dtype: DType) -> None:
    word = dtype.word
    base = weights(word, 20_000)
    for zeros in {1, 2, word.bits // 2 - 1, word.mantissa_bits or word.bits - 2} - {0}:
        low = (base.dtype.type(1) << base.dtype.type(zeros)) - base.dtype.type(1)
        assert check(base, moved(base) & ~low, word).shift >= min(
            zeros, word.mantissa_bits or zeros
        )


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16, DType.I16])
@pytest.mark.parametrize("distance", [1, 0x7FFF, 0x8000, 0xFFFF])
def test_every_pattern_survives_every_distance(dtype: DType, distance: int) -> None:
    words = np.arange(1 << 16, dtype=np.uint16)
    check(words, words + np.uint16(distance), dtype.word, row=1000)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I32, DType.I64])
def test_extremes_survive_in_wide_words(dtype: DType) -> None:
    top = 1 << (dtype.word.bits - 1)
    edges = [0, 1, top - 1, top, top + 1, 2 * top - 1, 2 * top - 2]
    grid = np.array([(x, y) for x in edges for y in edges], UNSIGNED[dtype.word.bits])
    base, target = (np.repeat(side, 200) for side in grid.T)
    check(base, target, dtype.word, row=len(edges))


def test_rows_of_any_length() -> None:
    base = weights(BF16, 5000)
    for row in (1, 7, 64, 999, 4999, 5000, 5001, 1 << 24):
        check(base, moved(base), BF16, row=row)


def test_rows_of_every_class_and_many_groups() -> None:
    source = np.random.default_rng(2)
    base = source.integers(0, 1 << 62, 300 * 64, np.uint64)
    kmask = (1 << 11) - 1
    last = np.arange(0, grouping.index_count(kmask), 4)  # more than a byte can number
    classes = (np.arange(300) % 256).astype(np.uint8)
    key = (base >> np.uint64(52) & np.uint64(kmask)).astype(np.int64)
    table = grouping.index_table(last, kmask)
    changed = np.repeat(classes != 255, 64)
    group = table[2 * key + np.repeat(classes, 64)][changed]
    parts = Parts(
        grouped=np.full(group.size, 2, np.uint64),
        classes=classes,
        table=table,
        count=np.bincount(group, minlength=last.size),
        shift=0,
    )
    words = rebuild(parts, base, DType.F64.word, 64)
    np.testing.assert_array_equal(words, base + changed.astype(np.uint64))


@pytest.mark.parametrize("groups", [253, 254, 255, 256])
def test_the_last_groups_that_a_byte_can_number(groups: int) -> None:
    base = (np.arange(256 * 8) % 256 << 7).astype(np.uint16)  # every exponent
    last = np.append(2 * np.arange(groups - 1), 765)
    table = grouping.index_table(last, 255)
    parts = Parts(
        grouped=np.full(base.size, 2, np.uint32),
        classes=np.zeros(8, np.uint8),
        table=table,
        count=np.bincount(table[2 * (base >> 7)], minlength=groups),
        shift=0,
    )
    np.testing.assert_array_equal(rebuild(parts, base, BF16, 256), base + np.uint16(1))


PLAIN = Parts(
    grouped=np.arange(1, 9, dtype=np.uint32),
    classes=np.zeros(2, np.uint8),
    table=grouping.index_table(np.array([253, 254]), 255),
    count=np.array([0, 8]),
    shift=0,
)
STILL = Parts(
    grouped=np.zeros(0, np.uint32),
    classes=np.full(2, 255, np.uint8),
    table=grouping.index_table(np.zeros(0, np.int64), 255),
    count=np.zeros(0, np.int64),
    shift=0,
)
ONES = np.full(8, ONE, np.uint16)


def test_residuals_count_steps_in_either_direction() -> None:
    words = rebuild(PLAIN, ONES, BF16, 4)
    np.testing.assert_array_equal(words, ONE + np.array([-1, 1, -2, 2, -3, 3, -4, 4]))


def test_without_groups_all_rows_are_unchanged() -> None:
    np.testing.assert_array_equal(rebuild(STILL, ONES + 3, BF16, 4), ONES + 3)


def test_the_base_is_rounded_to_nearest_ties_to_even() -> None:
    base = ONES + np.array([0, 63, 64, 65, 128, 191, 192, 193], np.uint16)
    words = rebuild(replace(STILL, shift=7), base, BF16, 4)
    assert words is not None
    assert (words - ONE).tolist() == [0, 0, 128, 128, 128, 128, 128, 256]
    ends = np.array([0, 0x7FFF, 0x8000, 0xFFBF, 0xFFC0, 0xFFFF, 0x7FBF, 0x7FC0], np.uint16)
    words = rebuild(replace(STILL, shift=7), ends, BF16, 4)
    assert words is not None
    assert words.tolist() == [0, 0x8000, 0x8000, 0xFF80, 0, 0, 0x7F80, 0x8000]


@pytest.mark.parametrize(
    "parts",
    [
        replace(PLAIN, count=np.array([1, 7])),
        replace(PLAIN, count=np.array([0, 7]), grouped=PLAIN.grouped[:7]),
        replace(PLAIN, count=np.array([0, 7])),
        replace(PLAIN, count=np.array([0, 9]), grouped=np.arange(9, dtype=np.uint32)),
        replace(PLAIN, grouped=np.arange(9, dtype=np.uint32)),
        replace(PLAIN, grouped=PLAIN.grouped[:7]),
        replace(PLAIN, grouped=PLAIN.grouped[:0]),
        replace(PLAIN, count=np.array([-1, 9])),
        replace(PLAIN, count=np.array([1 << 63, 8], np.uint64).view(np.int64)),
        replace(PLAIN, classes=np.array([0, 255], np.uint8)),
        replace(PLAIN, table=grouping.index_table(np.array([254, 255]), 255)),
        replace(STILL, classes=np.array([255, 0], np.uint8)),
        replace(STILL, grouped=np.zeros(1, np.uint32)),
    ],
)
def test_counts_that_do_not_match_are_found_out(parts: Parts) -> None:
    assert rebuild(parts, ONES, BF16, 4) is None


@pytest.mark.parametrize("entry", [2, 3, 254, 255, 256, 32767, 65535])
def test_a_hostile_table_reaches_nothing_else(entry: int) -> None:
    rebuild(replace(PLAIN, table=np.full_like(PLAIN.table, entry)), ONES, BF16, 4)


def test_another_base_is_found_out() -> None:
    base = weights(BF16, 20_000)
    parts = check(base, updated(base), BF16)
    for other in (weights(BF16, 20_000, 9), np.zeros_like(base), ~base, base[::-1].copy()):
        words = rebuild(parts, other, BF16, 64)
        assert words is None or not np.array_equal(words, updated(base))
    assert rebuild(parts, ~base, BF16, 64) is None


def test_tables_of_any_integers_are_read() -> None:
    out = torch.empty(8, dtype=torch.int16)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        good = ungroup.rebuild(
            tensor(ONES, "cpu"),
            tensor(PLAIN.grouped, "cpu"),
            torch.zeros(2, dtype=torch.uint8),
            tensor(PLAIN.table, "cpu").to(dtype),
            tensor(PLAIN.count, "cpu"),
            out,
            word=BF16,
            shift=0,
            row=4,
        )
        assert good
        assert out.tolist() == [ONE + step for step in (-1, 1, -2, 2, -3, 3, -4, 4)]


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F8_E4M3, DType.F64, DType.I32])
@pytest.mark.parametrize("shift", [0, 2])
def test_the_host_never_waits(dtype: DType, shift: int) -> None:
    # A tensor on `meta` has no values, so that whatever waits for one raises an error.
    word, device = dtype.word, torch.device("meta")
    wide = torch.int64 if word.bits == 64 else torch.int32
    words = torch.empty(100, dtype=ungroup.WORDS[word.bits], device=device)
    good = ungroup.rebuild(
        words,
        torch.empty(90, dtype=wide, device=device),
        torch.empty(2, dtype=torch.uint8, device=device),
        torch.empty(2 * ((1 << word.exponent_bits) - 1) + 256, device=device).short(),
        torch.empty(7, dtype=torch.int64, device=device),
        torch.empty_like(words),
        word=word,
        shift=shift,
        row=64,
    )
    assert good.device == device


DEVICES = [f"cuda:{index}" for index in range(torch.cuda.device_count())]


@pytest.mark.gpu
@pytest.mark.parametrize("device", DEVICES)  # without any, pytest reports a skipped test
@pytest.mark.parametrize("dtype", DType)
def test_a_gpu_gives_the_same_words(device: str, dtype: DType) -> None:
    word = dtype.word
    base = weights(word, 1 << 20)
    for target in (moved(base), moved(base) & ~base.dtype.type(3)):
        frame = ulp.encode(base, target, word=word, row=64)
        parts = parts_of(frame, base.size, word, 64)
        np.testing.assert_array_equal(rebuild(parts, base, word, 64, device), target)


@pytest.mark.gpu
@pytest.mark.parametrize("device", DEVICES)
def test_a_gpu_finds_out_another_base(device: str) -> None:
    base = weights(BF16, 1 << 20)
    parts = check(base, updated(base), BF16)
    np.testing.assert_array_equal(rebuild(parts, base, BF16, 64, device), updated(base))
    assert rebuild(parts, ~base, BF16, 64, device) is None


@pytest.mark.gpu
@pytest.mark.parametrize("device", DEVICES)
def test_the_host_does_not_wait_for_a_gpu(device: str) -> None:
    base = tensor(ONES, device)
    arguments = (
        base,
        tensor(PLAIN.grouped, device),
        torch.zeros(2, dtype=torch.uint8, device=device),
        tensor(PLAIN.table, device),
        tensor(PLAIN.count, device),
        torch.empty_like(base),
    )
    torch.cuda.set_sync_debug_mode("error")
    try:
        good = ungroup.rebuild(*arguments, word=BF16, shift=0, row=4)
        rounded = ungroup.rebuild(*arguments, word=BF16, shift=2, row=4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert good
    assert rounded
