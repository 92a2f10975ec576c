"""Work that is killed outright, at any moment: what comes of it in the end is the same.

At moments spread over the whole duration of a run, its process group gets a SIGKILL. Then
the same command is run again and must make, byte for byte, what an undisturbed run makes,
and leave nothing else behind. Where a kill landed is printed (pytest -rP shows it).
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.builders import RawTensor, model_folder
from tests.integration.tools import COMMAND, TRACEBACK, Model, weights

pytestmark = pytest.mark.slow

KILLS = 40  # of each command, apart from those in chains
CHAIN_KILLS = 16  # in all chains of a command
CHAIN_LENGTH = 5  # at most
#: To repeat a run, as far as moments in time can be repeated.
SEED = int(os.environ.get("RELEASEKIT_KILL_SEED", random.SystemRandom().getrandbits(32)))

_DATA = 1 << 16  # bytes on disk from which a partial output counts as having data
_DATA_STAGE = "data, of the output's size"
_THREADS = ("--threads", "2")

Command = list[str | Path]
Tree = dict[str, str]


def tree(folder: Path) -> Tree:
    """All that lies below a folder: what each path is, and a file's sha256."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = "link"
        elif path.is_dir():
            found[name] = "folder"
        else:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def nbytes_below(folder: Path) -> int:
    """Bytes on disk below a folder, which may vanish meanwhile."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A command, but for --out; what it makes; and how long that takes, in seconds.

    Attributes:
        name: of the command.
        arguments: the command line without its output.
        made: all that an undisturbed run makes.
        nbytes: the size of that.
        begun: when data had begun to appear in the partial output.
        ended: when the process had ended.
    """

    name: str
    arguments: Command
    made: Tree
    nbytes: int
    begun: float
    ended: float

    def command(self, out: Path) -> Command:
        return [*self.arguments, "--out", out]


def models(root: Path) -> tuple[Path, Path]:
    """A base and a fine-tune of 90 MB in shards, more than half of it in one tensor."""
    source = np.random.default_rng(14)
    words = np.frombuffer(weights(source, "BF16", 1024, 1024)[2], np.uint16)

    def moved(layer: NDArray[np.uint16]) -> bytes:
        up = np.frombuffer(source.bytes(layer.size), np.uint8) < 50
        return (layer + up).tobytes()

    def tensor(rows: int, data: bytes) -> RawTensor:
        return "BF16", (rows, 1024), data

    base: Model = {}
    target: Model = {}
    for number in range(20):
        name = f"layer.{number:02}"
        if number == 9:
            large = np.concatenate([np.roll(words, 77 * part) for part in range(25)])
            base["large"] = tensor(25 * 1024, large.tobytes())
            target["large"] = tensor(25 * 1024, moved(large))
        layer = np.roll(words, 1000 * number)
        base[name] = tensor(1024, layer.tobytes())
        target[name] = tensor(1024, moved(layer))
    target["layer.03"] = base["layer.03"]
    target["layer.04"] = tensor(1025, target["layer.04"][2] + bytes(2048))
    target["layer.05.tied"] = target["layer.05"]
    target["new"] = tensor(1024, source.bytes(1 << 21))
    base["dropped"] = weights(source, "F32", 1024)
    folders = root / "base", root / "target"
    model_folder(folders[0], base, shards=3)
    model_folder(folders[1], target, shards=4)
    for name in ("config.json", "tokenizer/größe.txt"):
        (folders[1] / name).parent.mkdir(exist_ok=True)
        (folders[1] / name).write_text(name)
    return folders


def start(command: Command) -> subprocess.Popen[str]:
    """Starts a command as the leader of a process group."""
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(command: Command) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert TRACEBACK not in done.stdout + done.stderr, done.stderr
    return done


def timed(name: str, arguments: Command, out: Path) -> Work:
    """The work as two undisturbed runs did it; the first makes, the second is timed."""
    done = run([*arguments, "--out", out])
    assert done.returncode == 0, done.stderr
    made = tree(out)
    shutil.rmtree(out)
    begun = 0.0
    started = time.monotonic()
    with start([*arguments, "--out", out]) as process:
        while process.poll() is None:
            if not begun and nbytes_below(partial_of(out)) >= _DATA:
                begun = time.monotonic() - started
            time.sleep(0.005)
    ended = time.monotonic() - started
    assert process.returncode == 0
    assert 0 < begun < ended
    assert tree(out) == made
    print(f"{name}: {ended:.2f} s, data from {begun:.2f} s on")
    return Work(
        name=name,
        arguments=arguments,
        made=made,
        nbytes=nbytes_below(out),
        begun=begun,
        ended=ended,
    )


def partial_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


@pytest.fixture(scope="module")
def works() -> Iterator[dict[str, Work]]:
    """Both commands, on the same models."""
    with TemporaryDirectory() as name:
        root = Path(name)
        base, target = models(root)
        release, out = root / "release", root / "out"
        given: Command = ["--base", base, *_THREADS]
        make: Command = [*COMMAND, "make-delta", *given, "--target", target]
        make += ["--shard-size", "8MB"]
        made = timed("make-delta", make, out)
        out.rename(release)
        apply: Command = [*COMMAND, "apply-delta", *given, "--delta", release]
        applied = timed("apply-delta", apply, out)
        assert applied.made == tree(target)
        shutil.rmtree(out)
        yield {work.name: work for work in (made, applied)}


@pytest.fixture(params=["make-delta", "apply-delta"])
def work(works: dict[str, Work], request: pytest.FixtureRequest) -> Work:
    return works[request.param]


@pytest.fixture
def out() -> Iterator[Path]:
    """Where to make an output; a folder of its own, removed at the end."""
    with TemporaryDirectory() as name:
        yield Path(name) / "out"


def killed(work: Work, out: Path, moment: float, *, from_data: bool = False) -> str | None:
    """Kills a run at a moment, and says how far it had come; None if it had ended.

    What it left is held to the promise: whatever lies under the output's name is complete,
    and beside it there is the partial folder at most.

    Args:
        work: what to run.
        out: its output.
        moment: when to kill it, in seconds after its start.
        from_data: or after data has begun to appear.
    """
    partial = partial_of(out)
    with start(work.command(out)) as process:
        while from_data and process.poll() is None and nbytes_below(partial) < _DATA:
            time.sleep(0.001)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        _, stderr = process.communicate(timeout=60)
    assert {path.name for path in out.parent.iterdir()} <= {out.name, partial.name}
    if out.exists():
        assert tree(out) == work.made
    if process.returncode != -signal.SIGKILL:
        assert process.returncode == 0, stderr
        assert list(out.parent.iterdir()) == [out]
        return None
    if out.exists():  # the kill came after the last rename
        return "complete, scratch files left" if partial.exists() else "complete"
    if not partial.exists():
        return "not begun"
    nbytes = nbytes_below(partial)
    if nbytes < _DATA:
        return "begun, without data"
    quarter = min(4 * nbytes // work.nbytes, 3)
    return f"{_DATA_STAGE} {25 * quarter} to {25 * (quarter + 1)} %"


def finish(work: Work, out: Path) -> None:
    """Repeats the command: what it makes is right, and all that there is."""
    done = run(work.command(out))
    if out.exists() and done.returncode == 2:  # no work was left, and the command says so
        assert done.stderr.startswith(f"error: {out}: exists already")
        if partial_of(out).exists():
            assert tree(out) == work.made
            done = run([*work.command(out), "--force"])
            assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 0, done.stderr
    assert tree(out) == work.made
    assert list(out.parent.iterdir()) == [out]
    shutil.rmtree(out)


def moments(source: random.Random, count: int, until: float) -> list[float]:
    """Moments spread evenly but at random, from the very first to the very last."""
    inner = [(part + source.random()) / count * until for part in range(1, count - 1)]
    return [0.0, *inner, until]


def report(name: str, stages: Counter[str]) -> None:
    print(f"{name}: {stages.total()} kills, seed {SEED}")
    for stage, count in sorted(stages.items()):
        print(f"  {count:3} {stage}")


def test_work_killed_at_any_moment_can_be_repeated(work: Work, out: Path) -> None:
    source = random.Random(f"{SEED} {work.name}")
    # Half of them over the whole run; half from when data appears, wherever that is on a
    # machine that is busier now than when the run was timed.
    plan = [(moment, False) for moment in moments(source, KILLS // 2, work.ended)]
    span = work.ended - work.begun
    plan += [(moment, True) for moment in moments(source, KILLS - len(plan), span)]
    stages: Counter[str] = Counter()
    for moment, from_data in plan:
        while (stage := killed(work, out, moment, from_data=from_data)) is None:
            shutil.rmtree(out)
            moment *= 0.95  # until it comes in time
        stages[stage] += 1
        finish(work, out)
    report(work.name, stages)
    assert stages.total() == KILLS
    partly = [stage for stage in stages if stage.startswith(_DATA_STAGE)]
    assert sum(stages[stage] for stage in partly) >= KILLS // 4
    assert len(partly) >= 2
    assert stages["not begun"]


def test_work_killed_again_and_again_ends(work: Work, out: Path) -> None:
    source = random.Random(f"{SEED} {work.name} chains")
    span = work.ended - work.begun
    stages: Counter[str] = Counter()
    lengths: list[int] = []
    while sum(lengths) < CHAIN_KILLS and len(lengths) < CHAIN_KILLS:
        stage = killed(work, out, source.random() * span / 2, from_data=True)
        length = 0
        while stage is not None:
            stages[stage] += 1
            length += 1
            if out.exists() or length == CHAIN_LENGTH:
                break
            # A run that goes on has less to do.
            moment = work.begun * source.uniform(0.7, 1) + span * source.uniform(0, 0.3)
            stage = killed(work, out, moment)
        lengths.append(length)
        finish(work, out)
    report(f"{work.name}, in chains of {lengths}", stages)
    assert sum(lengths) >= CHAIN_KILLS
    assert max(lengths) >= 3
