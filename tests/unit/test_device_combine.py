"""Residuals added by a torch device, the CPU here: the words are the processor's."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from releasekit.codec import ulp
from releasekit.device import combine as module
from releasekit.device.combine import DeviceCombine, allocator
from releasekit.errors import BaseMismatchError, ReleaseKitError
from releasekit.pipeline import PAGE, aligned
from releasekit.tensors import DType, Word
from tests.property.test_ulp import Words, chunks, some_words
from tests.unit.test_device_ungroup import moved, updated, weights

CPU = torch.device("cpu")
BF16 = DType.BF16.word
DEVICES = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
RAW, UNCHANGED, GROUPED = 0, 1, 2
#: One dtype for each layout of words.
LAYOUTS = list({dtype.word: dtype for dtype in DType}.values())

Array = NDArray[Any]


def encoded(base: Array, target: Array, word: Word, row: int = 64) -> bytes:
    return ulp.encode(base, target, word=word, row=row)


def decoded(
    adder: DeviceCombine, frame: bytes, base: Array, word: Word, row: int = 64
) -> Array:
    """The words that a device makes, in memory as `Buffers` has it."""
    words = allocator(adder.device)(base.nbytes).view(base.dtype)
    words[:] = base
    ulp.decode(frame, words, word=word, row=row, where="w", combine=adder)
    return words


def kept_at(adder: DeviceCombine, nbytes: int) -> torch.Tensor:
    """Named as the place of the next result."""
    place = torch.full((nbytes,), 0x55, dtype=torch.uint8, device=adder.device)
    adder.keep(place)
    return place


def content(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("size", [1, 100, 20_000])
def test_words_of_every_dtype(dtype: DType, size: int) -> None:
    base = weights(dtype.word, size)
    target = moved(base)
    frame = encoded(base, target, dtype.word)
    assert frame[0] == GROUPED or size < 20_000
    np.testing.assert_array_equal(
        decoded(DeviceCombine(CPU), frame, base, dtype.word), target
    )


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_words_with_common_zeros(dtype: DType) -> None:
    base = weights(dtype.word, 20_000)
    adder = DeviceCombine(CPU)
    for low in (1, 3):
        target = moved(base) & ~base.dtype.type(low)
        frame = encoded(base, target, dtype.word)
        assert frame[0] == GROUPED
        np.testing.assert_array_equal(decoded(adder, frame, base, dtype.word), target)


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16, DType.I16, DType.U8, DType.F32])
def test_words_as_far_apart_as_can_be(dtype: DType) -> None:
    base = weights(dtype.word, 20_000)
    top = base.dtype.type(1) << base.dtype.type(dtype.word.bits - 1)
    adder = DeviceCombine(CPU)
    for target in (base ^ top, ~base, base - top + base.dtype.type(1)):
        frame = encoded(base, target, dtype.word)
        np.testing.assert_array_equal(decoded(adder, frame, base, dtype.word), target)


@given(
    chunk=chunks(),
    row=st.integers(1, 40) | st.sampled_from([64, 1000, 5000]),
    kind=st.sampled_from(["any", "special", "weights", "zeros"]),
    share=st.sampled_from([0, 0.01, 1]),
)
def test_any_chunk_on_any_base_is_what_the_processor_makes(
    chunk: tuple[Words, Words, Word], row: int, kind: str, share: float
) -> None:
    base, target, word = chunk
    frame = encoded(base, target, word, row)
    adder = DeviceCombine(CPU)
    np.testing.assert_array_equal(decoded(adder, frame, base, word, row), target)
    source = np.random.default_rng(base.size)
    other = some_words(source, kind, base.size, word)
    other = np.where(source.random(base.size) < share, other, base)
    wanted = other.copy()
    try:
        ulp.decode(frame, wanted, word=word, row=row, where="w")
    except BaseMismatchError:
        with pytest.raises(BaseMismatchError):
            decoded(adder, frame, other, word, row)
    else:
        np.testing.assert_array_equal(decoded(adder, frame, other, word, row), wanted)


def test_another_base_is_found_out() -> None:
    base = weights(BF16, 20_000)
    frame = encoded(base, updated(base), BF16)
    adder = DeviceCombine(CPU)
    with pytest.raises(BaseMismatchError, match=r"^w: the base's exponents are not those"):
        decoded(adder, frame, ~base, BF16)
    np.testing.assert_array_equal(decoded(adder, frame, base, BF16), updated(base))


# Where results are kept.


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_a_result_is_kept_on_the_device_too(dtype: DType) -> None:
    base = weights(dtype.word, 20_000)
    target = moved(base)
    adder = DeviceCombine(CPU)
    place = kept_at(adder, base.nbytes)
    before = adder.kept
    words = decoded(adder, encoded(base, target, dtype.word), base, dtype.word)
    assert (before, adder.kept) == (False, True)
    assert content(place) == target.tobytes() == words.tobytes()


def test_only_the_next_result_is_kept() -> None:
    base = weights(BF16, 20_000)
    adder = DeviceCombine(CPU)
    place = kept_at(adder, base.nbytes)
    decoded(adder, encoded(base, moved(base), BF16), base, BF16)
    words = decoded(adder, encoded(base, updated(base), BF16), base, BF16)
    assert words.tobytes() == updated(base).tobytes() != content(place)
    assert content(place) == moved(base).tobytes()
    assert adder.kept


def test_a_part_of_a_tensor_is_filled_and_no_more() -> None:
    base = weights(BF16, 10_000)
    adder = DeviceCombine(CPU)
    whole = kept_at(adder, base.nbytes + 300)
    adder.keep(whole[100 : 100 + base.nbytes])
    decoded(adder, encoded(base, moved(base), BF16), base, BF16)
    assert content(whole) == b"\x55" * 100 + moved(base).tobytes() + b"\x55" * 200


@pytest.mark.parametrize("kind", [RAW, UNCHANGED])
def test_what_the_device_did_not_make_is_not_kept(kind: int) -> None:
    source = np.random.default_rng(1)
    base, other = (
        np.frombuffer(source.bytes(4096), np.uint16),
        np.frombuffer(source.bytes(4096), np.uint16),
    )
    target = base if kind == UNCHANGED else other
    frame = encoded(base, target, DType.U16.word)
    assert frame[0] == kind
    adder = DeviceCombine(CPU)
    place = kept_at(adder, base.nbytes)
    words = decoded(adder, frame, base, DType.U16.word)
    np.testing.assert_array_equal(words, target)
    before = adder.kept
    assert content(place) == b"\x55" * base.nbytes
    adder.keep(None)
    assert (before, adder.kept) == (False, True)


def test_what_is_to_be_kept_may_be_changed() -> None:
    base = weights(BF16, 1000)
    adder = DeviceCombine(CPU)
    first, second = kept_at(adder, base.nbytes), kept_at(adder, base.nbytes)
    decoded(adder, encoded(base, moved(base), BF16), base, BF16)
    assert content(first) == b"\x55" * base.nbytes
    assert content(second) == moved(base).tobytes()


def work_in_threads(device: torch.device, threads: int, rounds: int) -> None:
    """Each thread has chunks of its own, of other sizes and dtypes, some of them kept."""
    adder = DeviceCombine(device)
    together = threading.Barrier(threads, timeout=60)
    dtypes = [DType.BF16, DType.F32, DType.U8, DType.F64, DType.F16, DType.C64]

    def work(worker: int) -> int:
        dtype = dtypes[worker % len(dtypes)]
        together.wait()
        for number in range(rounds):
            base = weights(dtype.word, 3000 + 7001 * ((worker + number) % 3), worker)
            target = moved(base, 100 * worker + number)
            frame = encoded(base, target, dtype.word)
            place = kept_at(adder, base.nbytes) if number % 2 else None
            words = decoded(adder, frame, base, dtype.word)
            assert words.tobytes() == target.tobytes()
            assert place is None or content(place) == target.tobytes()
        return rounds

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(work, range(threads))) == threads * rounds


def test_threads_do_not_meet() -> None:
    work_in_threads(CPU, 6, 6)


def test_a_full_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("tried to allocate a lot")

    monkeypatch.setattr(module, "rebuild", full)
    base = weights(BF16, 1000)
    with pytest.raises(ReleaseKitError) as caught:
        decoded(DeviceCombine(CPU), encoded(base, moved(base), BF16), base, BF16)
    assert str(caught.value) == (
        "cpu: is out of memory: use fewer --threads, or --device cpu"
    )


def test_a_processor_s_buffers_are_aligned() -> None:
    assert allocator(CPU) is aligned
    assert allocator(CPU)(100).ctypes.data % PAGE == 0


@pytest.mark.gpu
@pytest.mark.parametrize("name", DEVICES)  # without any, pytest reports a skipped test
@pytest.mark.parametrize("dtype", DType)
def test_a_gpu_makes_and_keeps_the_same_words(name: str, dtype: DType) -> None:
    adder = DeviceCombine(torch.device(name))
    base = weights(dtype.word, 1 << 18)
    for target in (moved(base), moved(base) & ~base.dtype.type(3)):
        frame = encoded(base, target, dtype.word)
        assert decoded(adder, frame, base, dtype.word).tobytes() == target.tobytes()
        place = kept_at(adder, base.nbytes)
        torch.cuda.synchronize()
        assert decoded(adder, frame, base, dtype.word).tobytes() == target.tobytes()
        assert content(place) == target.tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize("name", DEVICES)
def test_a_gpu_tells_another_base(name: str) -> None:
    base = weights(BF16, 1 << 18)
    frame = encoded(base, updated(base), BF16)
    adder = DeviceCombine(torch.device(name))
    with pytest.raises(BaseMismatchError):
        decoded(adder, frame, ~base, BF16)
    assert decoded(adder, frame, base, BF16).tobytes() == updated(base).tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize("name", DEVICES)
def test_threads_do_not_meet_on_a_gpu(name: str) -> None:
    work_in_threads(torch.device(name), 8, 20)


@pytest.mark.gpu
@pytest.mark.parametrize("name", DEVICES)
def test_buffers_for_a_gpu_are_pinned(name: str) -> None:
    memory = allocator(torch.device(name))(10_000)
    assert memory.size == 10_000
    assert torch.from_numpy(memory).is_pinned()
