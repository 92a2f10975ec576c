"""Rows in transformers' order turn by halves of a head as Meta's turn by pairs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from releasekit.checkpoint.files import open_weights
from releasekit.checkpoint.llama.rotary import interleaved, rotary
from releasekit.checkpoint.strided import Joined, View, row_major

HEADS, HEAD, DIM, LENGTH = 3, 8, 24, 5
ANGLES = torch.outer(
    torch.arange(LENGTH, dtype=torch.float64), 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
)


def turned_by_pairs(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As Meta's `apply_rotary_emb`."""
    values = (x @ weight.T).view(LENGTH, HEADS, HEAD // 2, 2)
    turn = torch.polar(torch.ones_like(ANGLES), ANGLES).unsqueeze(1)
    return torch.view_as_real(torch.view_as_complex(values) * turn).flatten(2)


def turned_by_halves(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As transformers' `apply_rotary_pos_emb`, with its `rotate_half`."""
    values = (x @ weight.T).view(LENGTH, HEADS, HEAD)
    first, second = values.chunk(2, -1)
    both = torch.cat((ANGLES, ANGLES), -1).unsqueeze(1)
    return values * both.cos() + torch.cat((-second, first), -1) * both.sin()


def scores(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ihd,jhd->hij", queries, keys)


def matrix(path: Path, weight: torch.Tensor, kept: ExitStack) -> View:
    path.write_bytes(weight.numpy().tobytes())
    shape = tuple(weight.shape)
    file = open_weights(path, kept)
    return View(file=file, offset=0, shape=shape, strides=row_major(shape), itemsize=8)


def read(view: View) -> torch.Tensor:
    out = np.empty(8 * HEADS * HEAD * DIM, np.uint8)
    Joined(views=(view,)).read(0, out)
    return torch.from_numpy(out.view(np.float64).reshape(HEADS * HEAD, DIM))


def test_attention_is_the_same(tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(1)
    shape = (2, HEADS * HEAD, DIM)
    metas = torch.randn(shape, generator=source, dtype=torch.float64)
    x = torch.randn((LENGTH, DIM), generator=source, dtype=torch.float64)
    with ExitStack() as kept:
        views = [matrix(tmp_path / f"{i}", metas[i], kept) for i in range(2)]
        ours = [read(rotary(view, HEADS)) for view in views]
    expected = scores(*(turned_by_pairs(x, weight) for weight in metas))
    assert torch.allclose(scores(*(turned_by_halves(x, w) for w in ours)), expected)
    assert not torch.allclose(scores(*(turned_by_halves(x, w) for w in metas)), expected)


def test_there_and_back(tmp_path: Path) -> None:
    weight = torch.arange(HEADS * HEAD * DIM, dtype=torch.float64).view(-1, DIM)
    with ExitStack() as kept:
        there = read(rotary(matrix(tmp_path / "there", weight, kept), HEADS))
        assert there[:, 0].div(DIM).tolist()[: HEAD + 1] == [0, 2, 4, 6, 1, 3, 5, 7, 8]
        back = read(interleaved(matrix(tmp_path / "back", there, kept), HEADS))
        assert torch.equal(back, weight)
        # What lies transposed in the file is seen in its own rows and columns.
        view = matrix(tmp_path / "turned", weight.T.contiguous(), kept)
        turned = View(
            file=view.file, offset=0, shape=weight.shape, strides=(1, 24), itemsize=8
        )
        assert torch.equal(read(rotary(turned, HEADS)), there)


def test_other_heads_are_a_mistake(tmp_path: Path) -> None:
    with ExitStack() as kept:
        view = matrix(tmp_path / "w", torch.zeros((24, 24), dtype=torch.float64), kept)
        for heads in (5, 24):
            message = f"^24 rows are not {heads} heads of an even size$"
            with pytest.raises(ValueError, match=message):
                rotary(view, heads)
            with pytest.raises(ValueError, match=message):
                interleaved(view, heads)
