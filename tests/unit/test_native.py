"""Compiled loops: cached, believed only where nobody else writes, right in any case."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from releasekit.codec import native
from releasekit.codec.native import Kernel


def add(left: Any, right: Any, carry: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = left[i] + right[i] + carry


def raising(values: Any) -> None:
    if values[0] == 0:
        raise ValueError


def total(values: Any) -> Any:
    found = 0.0
    for i in range(values.size):
        found += twice(values[i])
    return found


def twice(value: Any) -> Any:
    return 2 * value


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    native._folder.cache_clear()
    yield tmp_path / "releasekit"
    native._folder.cache_clear()


def added(name: str) -> list[int]:
    kernel = Kernel(add, "u2* u2* u8 u2*", variant=name)
    out = np.zeros(5, np.uint16)
    kernel(np.arange(5, dtype=np.uint16), np.full(5, 65535, np.uint16), 1, out)
    return out.tolist()


def test_a_loop_gives_what_its_body_says(cache: Path) -> None:
    assert added("_right") == [0, 1, 2, 3, 4]
    kernel = Kernel(total, "f8*", returns="f8", helpers=(twice,))
    assert kernel(np.array([1.5, 2.5])) == 8.0


def test_a_loop_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert added("_once") == [0, 1, 2, 3, 4]
    assert [path.name.partition("-")[0] for path in cache.iterdir()] == ["add_once"]
    monkeypatch.setattr(Kernel, "_compile", None)
    assert added("_once") == [0, 1, 2, 3, 4]
    with pytest.raises(TypeError):
        added("_other")  # which is not in the cache


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 5000])
def test_a_damaged_object_is_made_anew(
    cache: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    added("_damaged")
    (path,) = cache.iterdir()
    path.write_bytes(damage)
    assert added("_damaged") == [0, 1, 2, 3, 4]
    monkeypatch.setattr(Kernel, "_compile", None)
    assert added("_damaged") == [0, 1, 2, 3, 4]


def test_a_folder_that_others_may_write_is_not_believed(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    assert native._folder() is None
    assert added("_others") == [0, 1, 2, 3, 4]
    assert list(cache.iterdir()) == []


def test_a_linked_folder_is_not_believed(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "elsewhere")
    assert native._folder() is None


def test_without_any_place_for_a_cache(cache: Path, tmp_path: Path) -> None:
    cache.write_text("in the way")
    assert native._folder() is None
    assert added("_nowhere") == [0, 1, 2, 3, 4]


def test_the_system_s_temporary_folder_is_the_second_choice(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("in the way")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    added("_second")
    folder = tmp_path / "temporary" / f"releasekit-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 1


def test_an_array_that_is_not_as_declared_is_refused(cache: Path) -> None:
    kernel = Kernel(add, "u2* u2* u8 u2*", variant="_refused")
    right = np.zeros(4, np.uint16)
    with pytest.raises(TypeError, match="expected uint16, found uint32"):
        kernel(right, right.astype(np.uint32), 1, right)
    with pytest.raises(TypeError, match="expected uint16"):
        kernel(right, np.zeros(8, np.uint16)[::2], 1, right)
    with pytest.raises(ValueError, match="zip"):
        kernel(right, right, 1)


def test_a_loop_that_needs_python_is_refused(cache: Path) -> None:
    with pytest.raises(RuntimeError, match="the compiled loop calls"):
        Kernel(raising, "i8*")(np.zeros(1, np.int64))


def test_a_second_process_needs_no_compiler(cache: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from releasekit.codec import kernels\n"
        "words = np.arange(9, dtype=np.uint16)\n"
        "kernels.reducer(2)(words, 1, 16, words)\n"
        "print(words.tolist(), 'numba' in sys.modules)\n"
    )
    for compiled in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"[0, 0, 1, 2, 2, 2, 3, 4, 4] {compiled}\n"


def four_times(value: Any) -> Any:
    return twice(twice(value))


def total_of_four(values: Any) -> Any:
    return four_times(values[0]) + four_times(values[1])


def test_helpers_see_those_before_them(cache: Path) -> None:
    kernel = Kernel(total_of_four, "f8*", returns="f8", helpers=(twice, four_times))
    assert kernel(np.array([1.5, 2.5])) == 16.0


def test_helpers_may_be_variables_of_a_function_around(cache: Path) -> None:
    def built(factor: int) -> Kernel:
        def times(value: Any) -> Any:
            return factor * value

        scaled = times

        def total(values: Any) -> Any:
            return scaled(values[0]) + scaled(values[1])

        return Kernel(total, "f8*", returns="f8", helpers=(times,), variant=f"_{factor}")

    values = np.array([1.5, 2.5])
    assert [built(factor)(values) for factor in (2, 3)] == [8.0, 12.0]


_STEP = 1


def _step(x):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        x[i] += _STEP


def test_a_constant_from_elsewhere_names_another_object(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module may be unchanged when the number, of another module, is not."""
    found = np.zeros(2, np.uint64)
    Kernel(_step, "u8*")(found)
    monkeypatch.setattr(sys.modules[__name__], "_STEP", 3)
    Kernel(_step, "u8*")(found)
    assert found.tolist() == [4, 4]
