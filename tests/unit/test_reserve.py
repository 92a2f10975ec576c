"""Blocks set aside beforehand, where the disk can; a full one is known at once."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from releasekit import writing
from releasekit.writing import open_new, reserve


class Libc:
    """A C library whose fallocate fails."""

    def __init__(self, code: int) -> None:
        self._code = code

    def fallocate(self, *_: Any) -> int:
        ctypes.set_errno(self._code)
        return -1


def test_what_is_reserved_is_the_file_s(tmp_path: Path) -> None:
    with open_new(tmp_path / "file") as file:
        file.write(b"begun")
        reserve(file, 1_000_000)
    found = (tmp_path / "file").read_bytes()
    assert found[:5] == b"begun"
    assert not any(found[5:])
    if len(found) > 5:  # this disk can
        assert len(found) == 1_000_000
        assert (tmp_path / "file").stat().st_blocks * 512 >= 1_000_000


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_disk_that_cannot_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(writing, "_libc", Libc(code))
    with open_new(tmp_path / "file") as file:
        reserve(file, 1000)
    assert (tmp_path / "file").stat().st_size == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(writing, "_libc", Libc(code))
    said = os.strerror(code)
    with (
        open_new(tmp_path / "file") as file,
        pytest.raises(OSError, match=said) as caught,
    ):
        reserve(file, 1000)
    assert caught.value.errno == code
    assert caught.value.filename == str(tmp_path / "file")


def test_a_system_without_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_libc", object())
    with open_new(tmp_path / "file") as file:
        reserve(file, 1000)
        reserve(file, 0)
    assert (tmp_path / "file").stat().st_size == 0
