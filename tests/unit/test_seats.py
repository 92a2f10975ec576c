"""How threads and memory are shared out among makes on one base."""

from __future__ import annotations

from pathlib import Path

import pytest

from releasekit.checkpoint import open_checkpoint
from releasekit.codec import Add, Ulp
from releasekit.delta.making.common import BLOCK, CommonBase
from releasekit.delta.making.once import FileDigests
from releasekit.delta.making.seats import Round, Wish, rounds
from releasekit.resources import Need, share_out
from tests.builders import model_folder

MIB = 1 << 20
WISH = Wish(need=Need(buffer=6 * MIB, scratch=30 * MIB), wanted={})
WIDE = Wish(need=Need(buffer=12 * MIB, scratch=60 * MIB), wanted={})
FIXED = share_out(Need(buffer=0, scratch=0), threads=1, max_memory=1 << 40).memory_nbytes


def taken(one: Round, extra: int = 0) -> int:
    """Bytes that a round takes in all, the program itself once."""
    own = [nbytes - FIXED - extra for nbytes in one.memory]
    return FIXED + extra + sum(own) + one.kept


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("threads", [1, 2, 5, 16])
@pytest.mark.parametrize("mebibytes", [200, 300, 500, 1024, 4096])
@pytest.mark.parametrize("extra", [0, 20 * MIB])
def test_all_together_take_what_they_may(
    count: int, threads: int, mebibytes: int, extra: int
) -> None:
    wishes = [(WISH, WIDE)[n % 2] for n in range(count)]
    limit = mebibytes * MIB
    found = rounds(wishes, threads=threads, max_memory=limit, extra=extra)
    assert [wish for one in found for wish in one.wishes] == (wishes if found else [])
    for one in found:
        assert taken(one, extra) <= limit
        assert sum(one.threads) <= max(threads, len(one.wishes))
        assert max(one.threads) - min(one.threads) <= 1
        assert min(one.threads) >= 1
        assert one.kept >= BLOCK
        for wish, each, nbytes in zip(one.wishes, one.threads, one.memory, strict=True):
            got = share_out(wish.need, threads=each, max_memory=nbytes, extra=extra)
            assert got.threads == each
    sizes = [len(one.wishes) for one in found]
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_memory_decides_how_many_go_on_at_once() -> None:
    def sizes(mebibytes: int) -> list[int]:
        found = rounds([WISH] * 6, threads=2, max_memory=mebibytes * MIB)
        return [len(one.wishes) for one in found]

    assert sizes(1024) == [6]
    assert sizes(452) == [6]
    assert sizes(451) == [3, 3]
    assert sizes(270) == [2, 2, 2]
    assert sizes(180) == [1] * 6
    assert sizes(150) == []


def test_what_is_left_keeps_the_base_up_to_a_bound() -> None:
    (small,) = rounds([WISH] * 2, threads=2, max_memory=400 * MIB)
    (large,) = rounds([WISH] * 2, threads=2, max_memory=1 << 40)
    assert small.kept == 400 * MIB - FIXED - 2 * (3 * 6 + 30) * MIB
    assert large.kept == 256 * MIB


def test_threads_that_cannot_be_shared_out_evenly_are_shared_out() -> None:
    (found,) = rounds([WISH] * 3, threads=8, max_memory=1 << 40)
    assert found.threads == (3, 3, 2)


def test_a_wish_says_what_of_the_base_is_read(tmp_path: Path) -> None:
    row = bytes(128)
    base = model_folder(
        tmp_path / "base",
        {
            "same": ("BF16", [4, 64], row * 4),
            "cut": ("BF16", [4, 64], row * 4),
            "grown": ("BF16", [4, 64], row * 4),
            "wider": ("BF16", [4, 64], row * 4),
            "turned": ("BF16", [2, 64], row * 2),
            "dropped": ("BF16", [2, 64], row * 2),
            "x.rotary_emb.inv_freq": ("F32", [1], bytes(4)),
        },
    )
    target = model_folder(
        tmp_path / "target",
        {
            "same": ("BF16", [4, 64], row * 4),
            "cut": ("BF16", [3, 64], row * 3),
            "grown": ("BF16", [5, 64], row * 5),
            "wider": ("F32", [4, 64], row * 8),
            "turned": ("BF16", [64, 2], row * 2),
            "new": ("BF16", [2, 64], row * 2),
            "x.rotary_emb.inv_freq": ("F32", [1], bytes(4)),
        },
    )
    with open_checkpoint(base) as opened:
        wish = Wish.of(opened, target, (), Ulp())
        plain = Wish.of(opened, target, (), Add())
        (one,) = rounds([wish], threads=1, max_memory=1 << 30)
        (seat,) = one.seats(base, CommonBase(opened, one.kept), FileDigests([]))
        assert (seat.path, seat.threads, seat.max_memory) == (base, 1, one.memory[0])
        assert seat.base.specs.keys() == opened.specs.keys()
        assert seat.base.subject == str(base)
    assert wish.wanted == {"same": 512, "cut": 384, "grown": 512, "wider": 512}
    assert plain.wanted == wish.wanted
    assert plain.need.buffer > wish.need.buffer
