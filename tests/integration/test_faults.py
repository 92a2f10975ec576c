"""Wrong, cut, flipped and swapped files; kills, interrupts, full disks; two writers.

Whatever happens, the output is right or not there, and the message says whose fault it is.
"""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from releasekit import (
    BaseMismatchError,
    FormatError,
    IntegrityError,
    ReleaseKitError,
    UsageError,
    apply_delta,
    make_delta,
    verify,
)
from releasekit.codec import Ulp
from tests.builders import RawTensor, model_folder
from tests.integration.tools import (
    COMMAND,
    TRACEBACK,
    Model,
    but_unsigned,
    digests,
    fine_tuned,
    good,
    in_process,
    sharded_pair,
    weights,
)

ANOTHER = "is another model, or another size of it"
SHARDS = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
EXTRA = {"config.json": b"{}", "tokenizer/größe.txt": b"abc"}


class World:
    """A base of many tensors, a fine-tune of it, and its release."""

    def __init__(self, root: Path) -> None:
        source = np.random.default_rng(3)
        self.root = root
        self.base_model: Model = {
            f"layer.{number}": weights(source, "BF16", 40, 64) for number in range(24)
        }
        self.base_model["unused"] = weights(source, "F32", 10)
        target = fine_tuned(source, self.base_model)
        target["layer.5"] = self.base_model["layer.5"]
        del target["unused"]
        self.base = model_folder(root / "base", self.base_model, shards=3)
        self.target = model_folder(root / "target", target, shards=2)
        for name, data in EXTRA.items():
            (self.target / name).parent.mkdir(exist_ok=True)
            (self.target / name).write_bytes(data)
        self.release = root / "release"
        make_delta(
            self.base, self.target, self.release, codec=Ulp(chunk=1024), shard_nbytes=9000
        )

    def refusal(
        self, out: Path, base: Path | None = None, release: Path | None = None
    ) -> ReleaseKitError:
        """The error that a rebuild ends with; it leaves nothing under the output's name."""
        with pytest.raises(ReleaseKitError) as caught:
            apply_delta(base or self.base, release or self.release, out, threads=2)
        assert not out.exists()
        assert str(caught.value).isprintable()
        return caught.value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def flipped(tensor: RawTensor, bit: int) -> RawTensor:
    label, shape, data = tensor
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return label, shape, bytes(changed)


# The base.


def test_the_right_base_rebuilds_the_target(world: World, tmp_path: Path) -> None:
    result = apply_delta(world.base, world.release, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(world.target) == result.files


def test_more_tensors_than_needed_are_no_fault(world: World, tmp_path: Path) -> None:
    more = world.base_model | {"unused": ("U8", [1], b"x"), "more": ("U8", [1], b"x")}
    apply_delta(model_folder(tmp_path / "base", more), world.release, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(world.target)


def test_other_values_are_found_at_once(world: World, tmp_path: Path) -> None:
    source = np.random.default_rng(4)
    other = {name: weights(source, "BF16", 40, 64) for name in world.base_model}
    base = model_folder(tmp_path / "base", other)
    error = world.refusal(tmp_path / "out", base)
    assert isinstance(error, BaseMismatchError)
    assert str(error).startswith(
        f"{base}: the tensors have the right shapes, but 8 of the 8 sampled have other "
        'values than the delta\'s base: "layer.0", "layer.3", "layer.6" and 5 more: this '
        "is another model of the architecture, as Llama-2-7B is to LLaMA-7B, or another "
        "fine-tune; expected the base with identity "
    )
    assert list(tmp_path.iterdir()) == [base] or digests(tmp_path / "out.partial")


def test_missing_tensors_are_named(world: World, tmp_path: Path) -> None:
    missing = [f"layer.{number}" for number in (3, 4, 7, 9)]
    less = {name: t for name, t in world.base_model.items() if name not in missing}
    base = model_folder(tmp_path / "base", less)
    error = world.refusal(tmp_path / "out", base)
    assert isinstance(error, BaseMismatchError)
    assert str(error).startswith(
        f"{base}: 4 of the 24 base tensors that the delta needs are missing: "
        '"layer.3", "layer.4", "layer.7" and 1 more: some of its files are missing too, or '
        "it is another model; expected the base with identity "
    )


@pytest.mark.parametrize(
    ("tensor", "found", "why"),
    [
        (("F16", [40, 64], bytes(5120)), "F16[40, 64]", "was converted in part"),
        (("BF16", [64, 40], bytes(5120)), "BF16[64, 40]", ANOTHER),
        (("BF16", [41, 64], bytes(5248)), "BF16[41, 64]", ANOTHER),
    ],
)
def test_another_dtype_or_shape_is_named(
    world: World, tmp_path: Path, tensor: RawTensor, found: str, why: str
) -> None:
    base = model_folder(tmp_path / "base", world.base_model | {"layer.7": tensor})
    error = world.refusal(tmp_path / "out", base)
    assert isinstance(error, BaseMismatchError)
    assert str(error).startswith(
        f'{base}: tensor "layer.7": expected BF16[40, 64], found {found} (1 of 24 tensors '
        f"differ in dtype or shape): this {why}; expected the base with identity "
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize("number", range(24))
def test_a_single_wrong_bit_is_found_in_its_tensor(
    world: World, tmp_path: Path, number: int
) -> None:
    name = f"layer.{number}"
    bit = number * (40 * 64 * 16 - 1) // 23  # from the first to the last
    changed = world.base_model | {name: flipped(world.base_model[name], bit)}
    base = model_folder(tmp_path / "base", changed)
    error = world.refusal(tmp_path / "out", base)
    assert isinstance(error, BaseMismatchError)
    assert str(error).startswith(f"{base}: ")
    assert f'"{name}"' in str(error)


def test_a_wrong_bit_in_a_large_tensor_is_found_in_it(tmp_path: Path) -> None:
    # Larger than what is sampled before the work starts.
    source = np.random.default_rng(5)
    base: Model = {
        "small": weights(source, "BF16", 8, 64),
        "large": weights(source, "BF16", 3000, 3000),
        "small too": weights(source, "BF16", 8, 64),
    }
    target = base | {"large": flipped(base["large"], 77)}
    make_delta(
        model_folder(tmp_path / "base", base),
        model_folder(tmp_path / "target", target),
        tmp_path / "release",
    )
    wrong = model_folder(
        tmp_path / "wrong", base | {"large": flipped(base["large"], 3000 * 3000 * 16 - 1)}
    )
    with pytest.raises(BaseMismatchError) as caught:
        apply_delta(wrong, tmp_path / "release", tmp_path / "out")
    manifest = json.loads((tmp_path / "release" / "release.json").read_bytes())
    assert str(caught.value) == (
        f'{wrong}: tensor "large" is not the one that the delta was made with: expected '
        f"the base with identity {manifest['base']['identity']}; get that base, in the "
        "revision that the release names"
    )
    assert not (tmp_path / "out").exists()


def test_the_target_in_place_of_the_base_is_recognised(
    world: World, tmp_path: Path
) -> None:
    error = world.refusal(tmp_path / "out", world.target)
    assert isinstance(error, BaseMismatchError)
    assert str(error).startswith(f"{world.target}: is the fine-tuned model target itself: ")


def test_the_delta_in_place_of_the_base_is_recognised(world: World, tmp_path: Path) -> None:
    error = world.refusal(tmp_path / "out", world.release)
    assert isinstance(error, BaseMismatchError)
    assert str(error).startswith(
        f"{world.release}: is a delta itself, which holds no model: give the base model "
        "with --base; expected the base with identity "
    )


def test_shards_of_the_base_that_changed_places_are_refused(
    world: World, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(world.base, base)
    (base / SHARDS[0]).rename(tmp_path / "x")
    (base / SHARDS[1]).rename(base / SHARDS[0])
    (tmp_path / "x").rename(base / SHARDS[1])
    error = world.refusal(tmp_path / "out", base)
    assert isinstance(error, FormatError)
    assert str(error) == (
        f'{base / "model.safetensors.index.json"}: weight_map: tensor "layer.0": expected '
        f"in {SHARDS[0]}, found in {SHARDS[1]}"
    )


def test_tensors_of_the_base_that_changed_places_are_found(
    world: World, tmp_path: Path
) -> None:
    changed = dict(world.base_model)
    changed["layer.1"], changed["layer.2"] = changed["layer.2"], changed["layer.1"]
    error = world.refusal(tmp_path / "out", model_folder(tmp_path / "base", changed))
    assert isinstance(error, BaseMismatchError)
    assert '"layer.1"' in str(error)


Spoil = Callable[[Path], object]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip_first(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def flip_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def flip_last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x80
    path.write_bytes(data)


def replace_by_a_page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html>503</html>")


SPOILS: list[Spoil] = [
    *(cut, empty, append, flip_first, flip_middle, flip_last, replace_by_a_page),
    Path.unlink,
]


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_file_of_the_base_is_found(
    world: World, tmp_path: Path, shard: str, spoil: Spoil
) -> None:
    base = tmp_path / "base"
    shutil.copytree(world.base, base)
    spoil(base / shard)
    if (spoil, shard) == (flip_last, SHARDS[2]):
        # That bit is of a tensor which the target lacks.
        apply_delta(base, world.release, tmp_path / "out")
        assert digests(tmp_path / "out") == digests(world.target)
        return
    error = world.refusal(tmp_path / "out", base)
    assert isinstance(error, FormatError | BaseMismatchError)
    assert str(error).startswith(str(base))


# The release.

FILES = [
    *("SHA256SUMS", "config.json", "provenance.json", "rebuilt.SHA256SUMS", "release.json"),
    *("target/config.json", "target/tokenizer/größe.txt"),
    "target/model.safetensors.index.json",
    *(f"delta-{number:05}-of-00004.safetensors" for number in (1, 2, 3, 4)),
]


def test_these_are_all_files_of_the_release(world: World) -> None:
    assert digests(world.release).keys() == set(FILES)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_file_of_the_release_is_found(
    world: World, tmp_path: Path, name: str, spoil: Spoil
) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release, release)
    spoil(release / name)
    found = faults(release)
    assert name in found or (name == "SHA256SUMS" and found)
    if name in {"SHA256SUMS", "config.json", "provenance.json", "rebuilt.SHA256SUMS"}:
        # Little or nothing of these is needed for a rebuild, which then is right.
        with suppress(IntegrityError, FormatError, UsageError):
            apply_delta(world.base, release, tmp_path / "out")
            assert digests(tmp_path / "out") == digests(world.target)
        return
    error = world.refusal(tmp_path / "out", release=release)
    assert isinstance(error, IntegrityError | FormatError | UsageError)
    assert str(release) in str(error)


def faults(release: Path) -> str:
    """What `verify` has against a release: its refusal, or the files that are not good."""
    try:
        result = verify(release)
    except (IntegrityError, FormatError, UsageError) as error:
        return str(error)
    assert result.ok is all(file.status.value == "good" for file in result.files)
    return " ".join(file.path for file in result.files if file.status.value != "good")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (FILES[-3], FILES[-2]),
        ("target/config.json", "target/tokenizer/größe.txt"),
        ("release.json", "config.json"),
        ("SHA256SUMS", "rebuilt.SHA256SUMS"),
    ],
)
def test_files_of_the_release_that_changed_places_are_found(
    world: World, tmp_path: Path, one: str, other: str
) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release, release)
    (release / one).rename(tmp_path / "x")
    (release / other).rename(release / one)
    (tmp_path / "x").rename(release / other)
    error = world.refusal(tmp_path / "out", release=release)
    assert isinstance(error, IntegrityError | FormatError)
    assert str(error).startswith(str(release))


def test_the_payloads_of_another_release_are_found(world: World, tmp_path: Path) -> None:
    release = tmp_path / "release"
    other = fine_tuned(np.random.default_rng(9), world.base_model)
    model_folder(tmp_path / "other", other, shards=2)
    make_delta(world.base, tmp_path / "other", release, codec=Ulp(chunk=1024))
    for name in ("release.json", "SHA256SUMS"):
        mixed = tmp_path / f"mixed {name}"
        shutil.copytree(release, mixed)
        shutil.copy(world.release / name, mixed / name)
        assert isinstance(
            world.refusal(tmp_path / "out", release=mixed), IntegrityError | FormatError
        )


def test_a_file_more_in_the_release_is_unexpected(world: World, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release, release)
    (release / "target" / "modeling_evil.py").write_text("import os")
    (release / ".gitattributes").write_text("")  # the Hub's
    result = verify(release)
    statuses = {f.path: f.status.value for f in result.files if f.status.value != "good"}
    assert statuses == {"target/modeling_evil.py": "unexpected"}
    apply_delta(world.base, release, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(world.target)


# Requests that make no sense.


def test_an_output_in_an_input_is_refused(world: World) -> None:
    before = digests(world.root)
    for folder in (world.base, world.target, world.release):
        for out in (folder, folder / "out", folder.parent):
            if folder is not world.release:
                with pytest.raises(UsageError):
                    make_delta(world.base, world.target, out, force=True)
            if folder is not world.target:
                with pytest.raises(UsageError):
                    apply_delta(world.base, world.release, out, force=True)
    assert digests(world.root) == before


def test_a_bool_that_is_neither_is_refused(world: World, tmp_path: Path) -> None:
    good: Model = {"mask": ("BOOL", [4], b"\0\1\0\1")}
    bad: Model = {"mask": ("BOOL", [4], b"\0\1\0\2")}
    for base, target in ((good, bad), (bad, good), ({"x": good["mask"]}, bad)):
        folders = (
            model_folder(tmp_path / "base", base),
            model_folder(tmp_path / "target", target),
        )
        with pytest.raises(FormatError) as caught:
            make_delta(*folders, tmp_path / "out")
        path = folders[base is not bad] / "model.safetensors"
        assert str(caught.value) == (
            f'{path}: tensor "mask": expected BOOL bytes 0 or 1, found 2'
        )
        assert not (tmp_path / "out").exists()
        gc.collect()  # a file left open is a warning now, and so an error


def test_an_empty_model_is_refused(world: World, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "empty", {})
    with pytest.raises(UsageError) as caught:
        make_delta(world.base, folder, tmp_path / "out")
    assert str(caught.value) == f"{folder}: holds no tensors; there is nothing to release"
    assert not (tmp_path / "out").exists()


def test_a_file_named_like_our_own_is_kept(world: World, tmp_path: Path) -> None:
    target = tmp_path / "target"
    shutil.copytree(world.target, target)
    names = ["state.json", ".releasekit-partial.json", "new", "release.json", "SHA256SUMS"]
    names += ["payloads.spool", "model-00001-of-00002.safetensors.part", "target", "old/x"]
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(name)
    make_delta(world.base, target, tmp_path / "release")
    apply_delta(world.base, tmp_path / "release", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(target)
    assert verify(tmp_path / "release").ok
    assert verify(tmp_path / "out", against=tmp_path / "release").ok


# Kills. The model is large enough for a run to take a second or two.


class Large:
    """A model of 64 MB, its release, and how long the commands take."""

    def __init__(self, root: Path) -> None:
        source = np.random.default_rng(6)
        self.root = root
        self.base, self.target = sharded_pair(root, source, (1024, 2048))
        self.release = root / "release"
        self.made_in = self.run(self.making(self.release))
        self.applied_in = self.run(self.applying(root / "rebuilt"))
        assert digests(root / "rebuilt") == digests(self.target)

    def making(self, out: Path) -> list[str | Path]:
        base: list[str | Path] = ["--base", self.base]
        return [*COMMAND, "make-delta", *base, "--target", self.target, "--out", out]

    def applying(self, out: Path) -> list[str | Path]:
        base: list[str | Path] = ["--base", self.base]
        return [*COMMAND, "apply-delta", *base, "--delta", self.release, "--out", out]

    def again(self, command: list[str | Path]) -> None:
        """Runs a command to its end, in this process."""
        good(*command[len(COMMAND) :])

    def run(self, command: list[str | Path]) -> float:
        """Runs a command to its end; returns how long that took, in seconds."""
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - start


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    return Large(tmp_path_factory.mktemp("large"))


def killed(command: list[str | Path], delay: float) -> bool:
    """Whether a command still ran when it was killed."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(delay)
        process.kill()
        code = process.wait()
    assert code in {0, -signal.SIGKILL}
    return code != 0


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Waits until a process has made a file, or what the pattern matches."""
    for _ in range(3000):
        if any(path.parent.glob(path.name)):
            return
        assert process.poll() is None
        time.sleep(0.01)
    raise TimeoutError(path)


def check_killed(
    command: list[str | Path], out: Path, moments: list[float], wanted: Path
) -> None:
    """Kills a command at these moments, and each time holds what is left to the promise."""
    for moment in moments:
        alive = True
        while alive:
            alive = not killed(command, moment)
            if out.exists():  # it is complete; the kill came too late, or while tidying up
                assert digests(out) == digests(wanted)
                shutil.rmtree(out)
            assert {path.name for path in out.parent.iterdir()} <= {"out.partial"}
            moment /= 2  # a machine may have been busier when the duration was measured


def test_apply_killed_at_any_moment_can_be_repeated(large: Large, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # tests/slow/test_kill.py has many more.
    moments = [part * large.applied_in for part in (0.6, 0.9)]
    check_killed(large.applying(out), out, moments, large.target)
    large.again(large.applying(out))
    assert digests(out) == digests(large.target)
    assert list(tmp_path.iterdir()) == [out]


def test_make_killed_at_any_moment_can_be_repeated(large: Large, tmp_path: Path) -> None:
    out = tmp_path / "out"
    moments = [part * large.made_in for part in (0.5, 0.9)]
    check_killed(large.making(out), out, moments, large.release)
    large.again(large.making(out))
    assert digests(out) == digests(large.release)
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_kill_left_is_not_believed(large: Large, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        large.applying(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(tmp_path / "out.partial" / "new" / "model-00002-*", process)
        process.kill()
    left = sorted(tmp_path.rglob("model-*"))
    assert len(left) >= 2
    for path in left:
        if path.stat().st_size:  # what is written past the cache comes in whole blocks
            flip_middle(path)
    large.again(large.applying(out))
    assert digests(out) == digests(large.target)


def test_what_a_kill_left_is_used(large: Large, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        large.applying(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(tmp_path / "out.partial" / "new" / "model-00003-*", process)
        process.kill()
    result = apply_delta(large.base, large.release, out)
    assert "model-00001-of-00004.safetensors" in result.kept
    assert digests(out) == digests(large.target)


def test_force_survives_a_kill(large: Large, tmp_path: Path) -> None:
    out = model_folder(tmp_path / "out", {"old": ("U8", [1], b"x")})
    before = digests(out)
    command = [*large.applying(out), "--force"]
    for moment in (0.5, 0.8):
        killed(command, moment * large.applied_in)
        assert digests(out) in (before, digests(large.target))
    large.again(command)
    assert digests(out) == digests(large.target)
    assert list(tmp_path.iterdir()) == [out]


# Ctrl-C.


def interrupted(command: list[str | Path], sign: Path) -> tuple[int, str, str]:
    """Exit code and output of a command that is interrupted once a file appears."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(sign, process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = ended(process)
    assert TRACEBACK not in stderr
    stderr = but_unsigned(stderr).removeprefix("\n")  # after the ^C
    return process.returncode, stdout, stderr


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What a process said that is to end soon; it is not waited for without end."""
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


def test_apply_interrupted_says_how_to_go_on(large: Large, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = interrupted(large.applying(out), tmp_path / "out.partial")
    assert found == (
        130,
        "",
        f"error: interrupted; {out} was not made; run the same command to go on, finished "
        f"files are kept in {out}.partial\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    large.again(large.applying(out))
    assert digests(out) == digests(large.target)


def test_make_interrupted_says_how_to_go_on(large: Large, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = interrupted(
        [*large.making(out), "--json"], tmp_path / "out.partial"
    )
    assert code == 130
    message = json.loads(stdout)["error"].pop("message")
    assert message.startswith(f"interrupted; {out} was not made; run the same command to ")
    assert json.loads(stdout) == {
        "error": {"type": "Interrupted", "message": message, "exit_code": 130}
    }
    assert stderr == f"error: {message}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]


VERIFY = """
import sys
import releasekit.verification
from releasekit.cli import cli
from releasekit.cli.shell import run
print("ready", flush=True)
sys.exit(run(cli, ["verify", sys.argv[1]]))
"""


def test_verify_interrupted_ends_soon(tmp_path: Path) -> None:
    # A file that takes many seconds to hash, though it has no blocks on disk.
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(4 << 30)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    with subprocess.Popen(
        [sys.executable, "-c", VERIFY, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, stderr = ended(process)
    seconds = time.monotonic() - start
    assert process.returncode == 130
    assert stderr.removeprefix("\n") == "error: interrupted; nothing was changed\n"
    assert seconds < 1


# Two writers, and a disk that is full.


def test_the_second_of_two_writers_is_refused(large: Large, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        large.applying(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(tmp_path / "out.partial" / "state.json", process)
        process.send_signal(signal.SIGSTOP)  # so that it cannot be done too soon
        second = in_process(*large.applying(out)[len(COMMAND) :])
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == (
        f"error: {out}: another run is writing to it; wait for it, or choose another "
        "--out\n"
    )
    assert digests(out) == digests(large.target)


LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv[0] = "releasekit"
runpy.run_module("releasekit", run_name="__main__")
"""


@pytest.mark.parametrize("command", ["make-delta", "apply-delta"])
def test_a_write_that_fails_leaves_nothing_and_names_the_file(
    large: Large, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "out"
    whole = large.making(out) if command == "make-delta" else large.applying(out)
    limited = [sys.executable, "-c", LIMITED, "1000000", *whole[len(COMMAND) :]]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f": {os.strerror(27)}\n")  # EFBIG
    assert but_unsigned(done.stderr).startswith(f"error: {out}.partial/")
    assert not out.exists()
    large.again(whole)
    assert digests(out) == digests(large.release if "make" in command else large.target)
