"""Disks that fill up, inputs that change under the work, and disks in memory.

The work ends with a sentence that names the file, nothing appears under the output's name,
and once the cause is gone the same command goes on to the right bytes.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from releasekit import make_delta
from tests.builders import model_folder
from tests.integration.tools import (
    COMMAND,
    TRACEBACK,
    Done,
    Model,
    but_unsigned,
    digests,
    good,
    here,
    sharded_pair,
    weights,
)

NO_SPACE = os.strerror(errno.ENOSPC)
CUT = (
    r"ends at byte \d+, \d+ bytes before its tensor does: the file was cut short while it "
    "was in use"
)

Command = list[str | Path]
Ended = subprocess.CompletedProcess[str]


def making(base: Path, target: Path, out: Path) -> Command:
    inputs = ("--base", base, "--target", target)
    return [*COMMAND, "make-delta", *inputs, "--out", out, "--threads", "2"]


def applying(base: Path, release: Path, out: Path) -> Command:
    inputs = ("--base", base, "--delta", release)
    return [*COMMAND, "apply-delta", *inputs, "--out", out, "--threads", "2"]


def run(command: Command) -> Ended:
    """Runs a command to its end; whatever happens, nobody is shown a traceback.

    That a release is not signed is left out.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert TRACEBACK not in done.stdout + done.stderr, done.stderr
    done.stderr = but_unsigned(done.stderr)
    return done


def succeed(command: Command) -> Ended:
    done = run(command)
    assert done.returncode == 0, done.stderr
    return done


def again(command: Command) -> Done:
    """Runs a command to its end in this process."""
    return good(*command[len(COMMAND) :])


class World:
    """A model of 32 MB whose every row changed, in shards, and its release."""

    def __init__(self, root: Path) -> None:
        source = np.random.default_rng(11)
        self.root = root
        self.base, self.target = sharded_pair(root, source, (1024, 1024))
        self.release = root / "release"
        make_delta(self.base, self.target, self.release, threads=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


class Incompressible:
    """A target of random new tensors: its release is no smaller than itself."""

    def __init__(self, root: Path) -> None:
        source = np.random.default_rng(12)
        base: Model = {"old": weights(source, "BF16", 64, 64)}
        target = base | {
            f"new.{number}": ("U8", [1 << 20], source.bytes(1 << 20)) for number in range(6)
        }
        self.base = model_folder(root / "base", base)
        self.target = model_folder(root / "target", target, shards=3)
        self.release = root / "release"
        make_delta(self.base, self.target, self.release, shard_nbytes=2_000_000, threads=2)
        self.rebuilt_nbytes = sum(
            path.stat().st_size for path in self.target.rglob("*") if path.is_file()
        )

    def making(self, out: Path) -> Command:
        return [*making(self.base, self.target, out), "--shard-size", "2MB"]


@pytest.fixture(scope="module")
def incompressible(tmp_path_factory: pytest.TempPathFactory) -> Incompressible:
    return Incompressible(tmp_path_factory.mktemp("incompressible"))


# Something happens in the middle of the work.


def nbytes_below(folder: Path) -> int:
    """Bytes on disk below a folder that is being written."""
    total = 0
    with suppress(FileNotFoundError):
        for path in folder.rglob("*"):
            if path.is_file():
                total += path.stat().st_blocks * 512
    return total


def stopped(command: Command, partial: Path) -> subprocess.Popen[str]:
    """A command that was stopped as soon as a good deal of its output lay on disk."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while process.poll() is None and nbytes_below(partial) < 1 << 16:
        assert time.monotonic() < until, "no output appeared"
        time.sleep(0.001)
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        how = os.WSTOPPED | os.WEXITED | os.WNOWAIT
        os.waitid(os.P_PID, process.pid, how)
    return process


def disturbed(
    command: Command,
    out: Path,
    disturb: Callable[[], object],
    calm: Callable[[], object],
) -> Ended:
    """How a command ends if something happens in the middle of its work.

    Args:
        command: what to run.
        out: the output as this process sees it; none may appear.
        disturb: called while the command is stopped.
        calm: undoes that; called if the work was done too soon to be disturbed.
    """
    partial = out.with_name(out.name + ".partial")
    for _ in range(5):
        process = stopped(command, partial)
        try:
            disturb()
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert TRACEBACK not in stdout + stderr, stderr
        if process.returncode != 0:
            assert not out.exists()
            assert nbytes_below(partial)
            stderr = but_unsigned(stderr)
            return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
        calm()
        shutil.rmtree(out)
    raise AssertionError("the work was always done before it could be disturbed")


# A disk that is full.


class Disk:
    """A small file system in memory, in a mount namespace that a process keeps alive.

    Attributes:
        path: where commands that run in it find it.
        seen: where this process finds it.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        """Mounts it; skips the test, and says why, where that is not allowed."""
        missing = [name for name in ("unshare", "nsenter") if not shutil.which(name)]
        if missing:
            pytest.skip(f"no file system of its own for this test: no {missing[0]} here")
        path.mkdir()
        self.path = path
        script = (
            'mount -t tmpfs -o size="$1" disk "$0" && echo ready && exec cat >/dev/null'
        )
        self._holder = subprocess.Popen(
            [
                *("unshare", "--user", "--map-root-user", "--mount"),
                *("sh", "-c", script, path, str(nbytes)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            _, why = self._holder.communicate()
            pytest.skip(f"no file system of its own for this test: {why.strip()}")
        self.seen = Path(f"/proc/{self._holder.pid}/root/{path.relative_to('/')}")
        self._inside: Command = [
            *("nsenter", f"--target={self._holder.pid}"),
            *("--user", "--preserve-credentials", "--mount"),
        ]
        try:
            succeed([*self._inside, "true"])
            self.seen.stat()
        except (AssertionError, OSError) as error:
            self.close()
            pytest.skip(f"no file system of its own for this test: {error}")

    def inside(self, command: Command) -> Command:
        """The command that runs a command where this disk is mounted."""
        return [*self._inside, *command]

    def leave(self, nbytes: int) -> None:
        """Take all free space but this."""
        self.clear()
        size = shutil.disk_usage(self.seen).free - nbytes
        assert size > 0
        with (self.seen / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def clear(self) -> None:
        """Give that space back."""
        (self.seen / "ballast").unlink(missing_ok=True)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.seen.iterdir())

    def close(self) -> None:
        self._holder.communicate()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk", 64 << 20)
    yield disk
    disk.close()


def test_apply_on_a_disk_that_fills_up_can_be_repeated(world: World, disk: Disk) -> None:
    out, seen = disk.path / "out", disk.seen / "out"
    command = disk.inside(applying(world.base, world.release, out))
    done = disturbed(command, seen, lambda: disk.leave(0), disk.clear)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"error: {re.escape(str(out))}\.partial/new/model-\S+: {NO_SPACE}\n", done.stderr
    )
    disk.clear()
    succeed(command)
    assert digests(seen) == digests(world.target)
    assert disk.names() == ["out"]


def test_make_on_a_disk_that_is_too_small_can_be_repeated(
    incompressible: Incompressible, disk: Disk
) -> None:
    out, seen = disk.path / "out", disk.seen / "out"
    command = disk.inside(incompressible.making(out))
    disk.leave(9 << 19)  # of 6 MB; a release may be so small, so the work starts
    done = run(command)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"error: {re.escape(str(out))}\.partial/\S+: {NO_SPACE}\n", done.stderr
    )
    assert disk.names() == ["ballast", "out.partial"]
    assert nbytes_below(disk.seen / "out.partial") > 1 << 20
    disk.clear()
    succeed(command)
    assert digests(seen) == digests(incompressible.release)
    assert disk.names() == ["out"]


@pytest.mark.parametrize("work", ["make-delta", "apply-delta"])
def test_a_disk_that_is_too_small_is_told_at_the_start(
    incompressible: Incompressible, disk: Disk, work: str
) -> None:
    out, seen = disk.path / "out", disk.seen / "out"
    base, release = incompressible.base, incompressible.release
    whole = incompressible.rebuilt_nbytes
    command, least = {
        "make-delta": (incompressible.making(out), whole // 10),
        "apply-delta": (applying(base, release, out), whole),
    }[work]
    command = disk.inside(command)
    disk.leave(1 << 18)
    done = run(command)
    assert (done.returncode, done.stdout) == (1, "")
    found = re.fullmatch(
        rf"error: {re.escape(str(out))}\.partial: expected ([\d,]+) bytes free, found "
        r"([\d,]+): free some space, or choose an --out on another disk\n",
        done.stderr,
    )
    assert found, done.stderr
    needed, free = (int(number.replace(",", "")) for number in found.groups())
    assert least <= needed <= whole + (1 << 18)
    assert (1 << 18) - 65536 <= free <= 1 << 18
    assert not seen.exists()
    assert nbytes_below(disk.seen) - (disk.seen / "ballast").stat().st_size < 65536


def test_a_disk_without_a_single_free_byte_is_named(
    incompressible: Incompressible, disk: Disk
) -> None:
    out, seen = disk.path / "out", disk.seen / "out"
    command = disk.inside(applying(incompressible.base, incompressible.release, out))
    disk.leave(0)
    done = run(command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {out}"), done.stderr
    assert not seen.exists()
    disk.clear()
    succeed(command)
    assert digests(seen) == digests(incompressible.target)
    assert disk.names() == ["out"]


def test_a_small_file_that_does_not_fit_is_named(disk: Disk, tmp_path: Path) -> None:
    # A hundred files of a byte each take a hundred blocks: more than their bytes.
    source = np.random.default_rng(15)
    model: Model = {"weight": weights(source, "BF16", 256, 256)}
    base, target = (model_folder(tmp_path / name, model) for name in ("base", "target"))
    for number in range(100):
        (target / f"{number}.txt").write_bytes(b"x")
    make_delta(base, target, tmp_path / "release")
    out, seen = disk.path / "out", disk.seen / "out"
    command = disk.inside(applying(base, tmp_path / "release", out))
    disk.leave(256 * 256 * 2 + 100_000)
    done = run(command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {out}.partial"), done.stderr
    assert not seen.exists()
    disk.clear()
    succeed(command)
    assert digests(seen) == digests(target)
    assert disk.names() == ["out"]


def test_apply_works_in_memory(world: World) -> None:
    # File systems in memory, as some on a network, may not do what disks do (O_DIRECT).
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip(f"{memory} is not there, or is not writable")
    if shutil.disk_usage(memory).free < 200 << 20:
        pytest.skip(f"{memory} has less than 200 MB free")
    with tempfile.TemporaryDirectory(dir=memory, prefix="releasekit-test-") as name:
        folder = Path(name)
        base, release = folder / "base", folder / "release"
        shutil.copytree(world.base, base)
        shutil.copytree(world.release, release)
        again(applying(base, release, folder / "out"))
        assert digests(folder / "out") == digests(world.target)
        assert sorted(os.listdir(folder)) == ["base", "out", "release"]


# Two writers from the same moment on.


@pytest.mark.parametrize("work", ["make-delta", "apply-delta"])
def test_of_two_writers_one_succeeds(
    incompressible: Incompressible, tmp_path: Path, work: str
) -> None:
    out = tmp_path / "out"
    base, release = incompressible.base, incompressible.release
    command, wanted = {
        "make-delta": (incompressible.making(out), release),
        "apply-delta": (applying(base, release, out), incompressible.target),
    }[work]
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ends = []
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        ends.append((process.returncode, but_unsigned(stderr)))
    first, second = sorted(ends)
    assert first == (0, "")
    assert second in [
        (
            1,
            f"error: {out}: another run is writing to it; wait for it, or choose another "
            "--out\n",
        ),
        (
            2,
            f"error: {out}: exists already; choose another --out, or replace it with "
            "--force\n",
        ),
    ]
    assert digests(out) == digests(wanted)
    assert list(tmp_path.iterdir()) == [out]


# Inputs that change.


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def cut(folder: Path) -> None:
    """Cuts all weight files of a model, soon behind their header."""
    for path in folder.glob("*.safetensors"):
        os.truncate(path, 100_000)


def overwrite(folder: Path) -> None:
    """Replaces all weights of a model by others, in place."""
    for path in folder.glob("*.safetensors"):
        with path.open("r+b") as file:
            header = 8 + int.from_bytes(file.read(8), "little")
            file.seek(header)
            file.write(b"\x77" * (path.stat().st_size - header))


def restored(folder: Path, original: Path) -> None:
    """Gives the files of a folder the contents of another."""
    shutil.copytree(original, folder, dirs_exist_ok=True)


def test_apply_whose_base_is_cut_meanwhile_can_be_repeated(
    world: World, tmp_path: Path
) -> None:
    base, out = copied(world.base, tmp_path / "base"), tmp_path / "out"
    command = applying(base, world.release, out)
    done = disturbed(command, out, lambda: cut(base), lambda: restored(base, world.base))
    assert (done.returncode, done.stdout) == (5, "")
    assert re.fullmatch(
        rf"error: {re.escape(str(base))}/model-\S+: {CUT}\n",
        done.stderr,
    )
    restored(base, world.base)
    again(command)
    assert digests(out) == digests(world.target)
    assert sorted(tmp_path.iterdir()) == [base, out]


def test_apply_whose_base_is_overwritten_meanwhile_can_be_repeated(
    world: World, tmp_path: Path
) -> None:
    base, out = copied(world.base, tmp_path / "base"), tmp_path / "out"
    command = applying(base, world.release, out)
    done = disturbed(
        command, out, lambda: overwrite(base), lambda: restored(base, world.base)
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert re.match(
        rf'error: {re.escape(str(base))}: tensor "layer\.\d+" is not the one that the '
        r"delta was made with: expected the base with identity [0-9a-f]{64}; get that base",
        done.stderr,
    )
    restored(base, world.base)
    again(command)
    assert digests(out) == digests(world.target)
    assert sorted(tmp_path.iterdir()) == [base, out]


def test_apply_goes_on_with_the_right_base_after_a_wrong_one(
    world: World, tmp_path: Path
) -> None:
    # A kill, then a base that differs in its last word, then the right one.
    base, out = copied(world.base, tmp_path / "base"), tmp_path / "out"
    command = [*applying(base, world.release, out), "--json"]
    partial = tmp_path / "out.partial"
    with stopped(command, partial) as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    last = base / "model-00002-of-00002.safetensors"
    with last.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        word = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([word ^ 1]))
    refused = here(*command[len(COMMAND) :])
    assert refused.code == 4
    error = refused.json["error"]
    assert error["type"] == "BaseMismatchError"
    assert error["message"].startswith(f"{base}: ")
    assert '"layer.15"' in error["message"]
    assert not out.exists()
    assert nbytes_below(partial)
    restored(base, world.base)
    done = again(command)
    assert digests(out) == digests(world.target) == done.json["files"]
    assert sorted(tmp_path.iterdir()) == [base, out]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("changed", ["base", "target"])
def test_make_whose_input_is_cut_meanwhile_can_be_repeated(
    world: World, tmp_path: Path, changed: str
) -> None:
    original = {"base": world.base, "target": world.target}
    # A release is named after the folder of its target, so the copy has the same name.
    short, out = copied(original[changed], tmp_path / changed), tmp_path / "out"
    inputs = original | {changed: short}
    command = making(inputs["base"], inputs["target"], out)
    done = disturbed(
        command, out, lambda: cut(short), lambda: restored(short, original[changed])
    )
    assert (done.returncode, done.stdout) == (5, "")
    assert re.fullmatch(rf"error: {re.escape(str(short))}/model-\S+: {CUT}\n", done.stderr)
    restored(short, original[changed])
    again(command)
    assert digests(out) == digests(world.release)
    assert sorted(tmp_path.iterdir()) == sorted([short, out])
