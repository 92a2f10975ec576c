"""Which smaller dtype holds floats, bit for bit: word by word, and as a whole model."""

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from releasekit import convert
from releasekit.statistics.narrowing import Extent, Holding, holders, is_held, narrower
from releasekit.statistics.values import Values
from releasekit.tensors import DType
from tests.builders import model_folder
from tests.unit.cast_reference import cast

SOURCES = [dtype for dtype in DType if narrower(dtype)]
#: NaNs of any payload and sign, zeros, subnormals, the largest, infinities.
SPECIAL = [
    *(0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x3F80, 0x7F7F),
    *(0x7F80, 0xFF80, 0x7FC0, 0xFFC0, 0x7F81, 0x7FFF),
]
BF16_WORDS = st.lists(
    st.one_of(st.sampled_from(SPECIAL), st.integers(0, 0xFFFF)), min_size=1, max_size=40
)


def there_and_back(words: NDArray[np.uint64], source: DType, target: DType) -> bool:
    raw = words.astype(f"u{source.bits // 8}")
    there, back = np.empty(raw.size, f"u{target.bits // 8}"), np.empty_like(raw)
    cast(raw, source, target, there)
    cast(there, target, source, back)
    return np.array_equal(raw, back)


@pytest.mark.parametrize("source", SOURCES)
@given(data=st.data())
def test_what_is_held_is_what_a_cast_there_and_back_keeps(
    source: DType, data: st.DataObject
) -> None:
    target = data.draw(st.sampled_from(narrower(source)))
    small = data.draw(
        st.lists(st.integers(0, (1 << target.bits) - 1), min_size=1, max_size=9)
    )
    words = np.empty(len(small), f"u{source.bits // 8}")
    cast(np.array(small, f"u{target.bits // 8}"), target, source, words)
    any_word = st.integers(0, (1 << source.bits) - 1)
    more = np.array(data.draw(st.lists(any_word, max_size=1)), words.dtype)
    words = np.concatenate([words, more])
    raw = words.view(np.uint8)
    values = Values.of(raw, source)
    assert values is not None
    held = is_held(raw, source, target)
    assert held == there_and_back(words.astype(np.uint64), source, target)
    assert held == (target in holders(source, Extent.of(raw, source, values.largest)))


@pytest.mark.parametrize("place", [0, 4095, 4096, 8191, 9999])
def test_one_word_that_does_not_fit_is_found_wherever_it_is(place: int) -> None:
    words = np.full(10_000, 0x3F80_0000, np.uint32)
    assert is_held(words.view(np.uint8), DType.F32, DType.BF16)
    words[place] += 1
    assert not is_held(words.view(np.uint8), DType.F32, DType.BF16)


def test_what_once_failed_is_not_asked_again() -> None:
    holding = Holding({DType.F32: (DType.F16, DType.BF16)})
    large = np.array([1e30], np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    found = holding.look(large.view(np.uint8), DType.F32)
    assert found == (DType.BF16,)
    holding.take(DType.F32, found)
    holding.take(DType.F32, (DType.F16, DType.BF16))
    assert holding.holders(DType.F32) == (DType.BF16,)
    assert holding.holders(DType.I64) == ()


@settings(max_examples=settings().max_examples // 3)
@given(words=BF16_WORDS, odd=st.one_of(st.none(), st.integers(1, 0xFFFF)))
def test_smallest_and_back_gives_the_same_bytes(words: list[int], odd: int | None) -> None:
    wide = np.array(words, np.uint32) << np.uint32(16)
    wide[0] |= np.uint32(odd or 0)
    data = wide.tobytes()
    fits = is_held(wide.view(np.uint8), DType.F32, DType.BF16) or is_held(
        wide.view(np.uint8), DType.F32, DType.F16
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_folder(folder / "in", {"w": ("F32", [len(words)], data)})
        made = convert(folder / "in", folder / "small", dtype="smallest", threads=1)
        assert (made.dtype is not None) == fits
        assert made.rounded == 0
        if not fits:
            same = (folder / "small" / "model.safetensors").read_bytes()
            assert same.endswith(data)
            return
        convert(folder / "small", folder / "back", dtype="float32", threads=1)
        back = (folder / "back" / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", back[:8])
    assert back[8 + length :] == data
