"""Means of rows against torch's, to the last bit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from releasekit.foreign.mean import CascadeSum, mean_row
from releasekit.tensors import DType, TensorSpec

TORCH = {
    DType.F8_E4M3: torch.float8_e4m3fn,
    DType.F8_E5M2: torch.float8_e5m2,
    DType.F16: torch.float16,
    DType.BF16: torch.bfloat16,
    DType.F32: torch.float32,
}
#: Around the powers of two at which a running sum is added to the next.
ROWS = [
    *range(1, 36),
    *(63, 64, 65, 127, 128, 129, 255, 256, 257, 272, 511, 512, 513),
    *(1000, 1023, 1024, 1025, 4095, 4096, 4097, 8191, 8193),
]


def embedding(rows: int, columns: int, scale: float = 0.02) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    return torch.randn(rows, columns, generator=generator) * scale


def words(tensor: torch.Tensor) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = tensor.contiguous().view(torch.uint8).numpy().reshape(-1)
    return found


def summed(rows: torch.Tensor) -> NDArray[np.float32]:
    cascade = CascadeSum(*rows.shape)
    for row in rows.numpy():
        cascade.add(row)
    return cascade.total()


@pytest.mark.parametrize("rows", ROWS)
def test_rows_are_added_up_as_torch_does(rows: int) -> None:
    values = embedding(rows, 64)
    np.testing.assert_array_equal(summed(values), values.sum(dim=0).numpy())


@pytest.mark.parametrize("columns", [64, 128, 192, 320, 1024, 4096, 5120])
@pytest.mark.parametrize("rows", [3, 17, 100, 300])
def test_any_multiple_of_64_columns(rows: int, columns: int) -> None:
    values = embedding(rows, columns)
    np.testing.assert_array_equal(summed(values), values.sum(dim=0).numpy())


@pytest.mark.parametrize("rows", [31999, 32000, 32001])
def test_as_many_rows_as_llama_has(rows: int) -> None:
    values = embedding(rows, 64)
    np.testing.assert_array_equal(summed(values), values.sum(dim=0).numpy())


def test_large_and_small_numbers_among_each_other() -> None:
    values = embedding(777, 64) * 10.0 ** (embedding(777, 64, 1) * 8)
    values[5, :8] = float("inf")
    values[6, 8:16] = -float("inf")
    values[7, 16:24] = float("nan")
    values[8] *= -0.0
    np.testing.assert_array_equal(summed(values), values.sum(dim=0).numpy())


def test_no_rows_add_up_to_zero() -> None:
    assert not CascadeSum(0, 64).total().any()


class Memory:
    """A checkpoint of one tensor."""

    subject = "memory"

    def __init__(self, tensor: torch.Tensor, dtype: DType) -> None:
        self.spec = TensorSpec(name="w", dtype=dtype, shape=tuple(tensor.shape))
        self.specs: Mapping[str, TensorSpec] = {"w": self.spec}
        self._words = words(tensor)

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        assert name == "w"
        part = self._words[start : start + out.size]
        assert part.size == out.size
        out[:] = part

    def close(self) -> None:
        pass

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *exc: Any) -> None:
        pass


@pytest.mark.parametrize("result", [DType.F16, DType.BF16, DType.F32])
@pytest.mark.parametrize("dtype", TORCH)
def test_the_mean_is_that_of_a_model_loaded_in_float32(dtype: DType, result: DType) -> None:
    """Alpaca's recipe: `embeddings.mean(dim=0, keepdim=True)`."""
    stored = embedding(300, 128, 0.5).to(TORCH[dtype])
    memory = Memory(stored, dtype)
    wanted = stored.float().mean(dim=0, keepdim=True).to(TORCH[result])
    found = mean_row(memory, memory.spec, result)
    np.testing.assert_array_equal(found, words(wanted))


@pytest.mark.parametrize(
    ("rows", "columns", "dtype"),
    [
        (9001, 64, DType.F16),  # read in two parts, the second short
        (8192, 64, DType.F16),  # read in one
        (3, 300 << 10, DType.F32),  # a row is more than is read at once
    ],
)
def test_parts_that_are_read_have_no_borders(rows: int, columns: int, dtype: DType) -> None:
    stored = embedding(rows, columns).to(TORCH[dtype])
    memory = Memory(stored, dtype)
    found = mean_row(memory, memory.spec, DType.F32)
    np.testing.assert_array_equal(found, words(stored.float().mean(dim=0)))
