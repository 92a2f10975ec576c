"""The command line as people run it: words, JSON, exit codes, and never a traceback."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.builders import model_folder, safetensors_bytes
from tests.integration.tools import COMMAND, digests, small_pair, unsigned
from tests.integration.tools import in_process as releasekit
from tests.integration.tools import releasekit as process

COMMANDS = [
    *("make-delta", "preflight", "apply-delta", "verify", "inspect", "identify"),
    *("convert", "import-delta", "keygen", "sign", "trust", "rotate-key"),
    *("card", "evals", "licenses"),
]
EXIT_CODES = """\
Exit codes:
  0    done, everything as it should be
  1    failed for another reason, such as a full disk
  2    wrong usage: a path, an option, or an output that exists
  3    a file is malformed
  4    the base is not the one that the delta was made with
  5    a file is damaged, missing or unexpected
  6    not signed by a trusted key, or older than what was seen before
  7    a licence must be accepted first, or a release breaks one
  8    the Hugging Face Hub refused, or could not be reached
  130  interrupted; nothing half-made was left under the output's name
"""
FILES = {"config.json": b'{"model_type": "llama"}', "größe/notes.txt": b"\xff\0"}


@dataclass(frozen=True)
class World:
    """A base, a target, the release made of them, and the rebuilt model."""

    base: Path
    target: Path
    release: Path
    rebuilt: Path
    made: dict[str, Any]
    applied: dict[str, Any]

    def copy(self, folder: Path) -> Path:
        """The release once more, to be spoiled."""
        shutil.copytree(self.release, folder)
        return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    base, target = small_pair()
    model_folder(root / "base", base, shards=2)
    model_folder(root / "tune", target, shards=3)
    for name, data in FILES.items():
        (root / "tune" / name).parent.mkdir(exist_ok=True)
        (root / "tune" / name).write_bytes(data)
    (root / "tune" / "optimizer.bin").write_bytes(b"x")
    made = process(
        *("make-delta", "--base", root / "base", "--target", root / "tune"),
        *("--out", root / "release", "--exclude", "*.bin", "--json"),
    )
    assert (made.returncode, made.stderr) == (0, "")
    applied = process(
        *("apply-delta", "--base", root / "base", "--delta", root / "release"),
        *("--out", root / "rebuilt", "--json"),
    )
    assert (applied.returncode, applied.stderr) == (0, "")
    return World(
        base=root / "base",
        target=root / "tune",
        release=root / "release",
        rebuilt=root / "rebuilt",
        made=json.loads(made.stdout),
        applied=json.loads(applied.stdout),
    )


def words(text: str) -> list[str]:
    """The lines of a text, however its columns are aligned."""
    return [" ".join(line.split()) for line in text.splitlines()]


def applying(base: Path, release: Path, out: Path) -> list[str | Path]:
    return ["apply-delta", "--base", base, "--delta", release, "--out", out]


def test_the_version_is_the_packages() -> None:
    done = process("--version")
    assert done.returncode == 0
    assert done.stdout == f"releasekit, version {version('releasekit')}\n"
    script = Path(sys.executable).with_name("releasekit")
    assert subprocess.check_output([script, "--version"], text=True) == done.stdout


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_ends_with_the_exit_codes(command: str) -> None:
    done = releasekit(*filter(None, [command]), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.removeprefix("  ") for line in done.stdout.splitlines()]
    assert "\n".join(lines).endswith(EXIT_CODES.rstrip("\n"))
    if not command:
        for name in COMMANDS:
            assert f"\n  {name} " in done.stdout


def test_no_arguments_show_the_help() -> None:
    done = releasekit()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: releasekit [OPTIONS] COMMAND [ARGS]...\n")


# What commands say when all is well.


def test_make_as_json(world: World) -> None:
    made = dict(world.made)
    published = sum(file.stat().st_size for file in world.release.rglob("*.*"))
    published += (world.release / "SHA256SUMS").stat().st_size
    full = sum(p.stat().st_size for p in world.rebuilt.rglob("*") if p.is_file())
    assert made.pop("seconds") > 0
    stages = {stage["name"]: stage["nbytes"] for stage in made.pop("stages")}
    assert list(stages) == ["encode", "hash base", "hash inputs", "read back"]
    assert all(stages.values())
    assert made.pop("published_nbytes") == published
    assert made.pop("ratio") == published / full
    assert 0 < made.pop("unchanged") < 1
    assert len(made.pop("base_identity")) == len(made.pop("target_identity")) == 64
    assert made == {
        "out": str(world.release),
        "name": "tune",
        "version": "1",
        "publisher": None,
        "key": None,
        "licenses": [],
        "findings": [
            {
                "rule": "license-missing",
                "severity": "error",
                "why": "tune has no licence, so nobody may use it",
                "todo": "name one with --license; `releasekit licenses list` has them",
            },
            {
                "rule": "base-license-missing",
                "severity": "error",
                "why": "tune derives from another model, whose licence is not named",
                "todo": "name it with --base-license",
            },
        ],
        "codec": "ulp-v1",
        "accepted": [],
        "operations": {
            "same": 1,
            "delta": 2,
            "resize": 1,
            "new": 1,
            "alias": 0,
            "dropped": 1,
        },
        "full_nbytes": full,
        "excluded": ["optimizer.bin"],
        "kept": 0,
        "device": "cpu (auto: decoding, hashing and the disk bound this work, not adding)",
        "workers": [],
    }


def test_apply_as_json(world: World) -> None:
    found = digests(world.rebuilt)
    wanted = digests(world.target)
    del wanted["optimizer.bin"]
    assert found == wanted
    assert world.applied == {
        "out": str(world.rebuilt),
        "name": "tune",
        "releases": ["tune 1"],
        "identity": world.made["target_identity"],
        "nbytes": world.made["full_nbytes"],
        "files": world.applied["files"],
        "kept": [],
        "device": "cpu (auto: decoding, hashing and the disk bound this work, not adding)",
        "workers": [],
        "notes": [],
        "signature": unsigned(world.release),
        "licenses": [],
        "stages": world.applied["stages"],
    }
    assert world.applied["files"] == found
    (rebuild,) = world.applied["stages"]
    assert (rebuild["name"], rebuild["nbytes"]) == ("rebuild", world.applied["nbytes"])


def test_inspect_as_json(world: World) -> None:
    done = releasekit("inspect", "--json", world.release)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["kind"] == "delta"
    assert found["name"] == "tune"
    assert (found["version"], found["publisher"]) == ("1", None)
    assert found["made_with"] == f"releasekit {version('releasekit')}"
    assert found["codec"]["id"] == "ulp-v1"
    assert found["base_identity"] == world.made["base_identity"]
    assert found["target_identity"] == world.made["target_identity"]
    assert found["operations"] == world.made["operations"]
    assert found["dropped"] == ["old.weight"]
    assert sum(found["files"].values()) == world.made["published_nbytes"]
    assert found["rebuilt"] == {
        name: (world.rebuilt / name).stat().st_size for name in digests(world.rebuilt)
    }
    tensors = {tensor["name"]: tensor for tensor in found["tensors"]}
    embed = tensors["embed.weight"]
    assert 0 < embed.pop("published_nbytes") < 7168
    assert 0 < embed.pop("ratio") < 1
    assert embed == {
        "name": "embed.weight",
        "dtype": "BF16",
        "shape": [56, 64],
        "nbytes": 56 * 64 * 2,
        "file": "model-00001-of-00003.safetensors",
        "op": "resize",
    }
    assert tensors["norm.weight"]["published_nbytes"] == 0
    assert [tensors[name]["op"] for name in ("steps", "head.weight")] == ["delta", "new"]


def test_inspect_a_checkpoint_as_json(world: World) -> None:
    done = releasekit("inspect", "--json", world.base)
    found = json.loads(done.stdout)
    tensors = found.pop("tensors")
    assert found == {
        "path": str(world.base),
        "kind": "checkpoint",
        "licenses": [],
        "container": "safetensors",
        "files": {
            path.name: path.stat().st_size
            for path in sorted(world.base.glob("*.safetensors"))
        },
        "tensor_nbytes": sum(tensor["nbytes"] for tensor in tensors),
    }
    assert tensors[-1] == {
        "name": "steps",
        "dtype": "I64",
        "shape": [],
        "nbytes": 8,
        "file": "model-00002-of-00002.safetensors",
    }


def test_verify_as_json(world: World) -> None:
    done = releasekit("verify", "--json", world.rebuilt, "--against", world.release)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert found["against"] == str(world.release / "rebuilt.SHA256SUMS")
    assert found["signature"] == unsigned(world.release)
    assert {file["path"]: file["found"] for file in found["files"]} == digests(
        world.rebuilt
    )
    assert all(file["expected"] == file["found"] for file in found["files"])
    assert {file["status"] for file in found["files"]} == {"good"}


def test_inspect_in_words(world: World) -> None:
    done = releasekit("inspect", world.release)
    assert (done.returncode, done.stderr) == (0, "")
    lines = words(done.stdout)
    assert lines[0] == "tensor dtype shape size op published ratio"
    assert lines[1].startswith("embed.weight BF16 56 × 64 7.17 kB resize ")
    assert any(line.startswith("steps I64 scalar 8 B delta ") for line in lines)
    assert "tensors 1 same, 2 delta, 1 delta + new rows, 1 new, 0 alias, 1 dropped" in lines
    assert f"base {world.made['base_identity']}" in lines


def test_verify_in_words(world: World) -> None:
    done = releasekit("verify", world.release)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "good        config.json",
        "good        delta-00001-of-00001.safetensors",
        "good        provenance.json",
        "good        rebuilt.SHA256SUMS",
        "good        release.json",
        "good        target/config.json",
        "good        target/größe/notes.txt",
        "good        target/model.safetensors.index.json",
        "8 good, 0 wrong, 0 missing, 0 unexpected",
        "signature: none",
    ]


def test_make_and_apply_in_words(world: World, tmp_path: Path) -> None:
    made = releasekit(
        *("make-delta", "--base", world.base, "--target", world.target, "-v"),
        *("--out", tmp_path / "d", "--exclude", "*.bin", "--name", "Tüne 1"),
        *("--shard-size", "1", "--threads", "1"),
    )
    assert (made.returncode, made.stderr) == (0, "")
    lines = words(made.stdout)
    assert f"release Tüne 1, version 1, in {tmp_path / 'd'}" in lines
    assert "signed no; see `releasekit sign`" in lines
    assert "left out optimizer.bin" in lines
    assert "same norm.weight" in lines
    assert len(list((tmp_path / "d").glob("delta-*-of-00004.safetensors"))) == 4
    applied = releasekit(
        *("apply-delta", "--base", world.base, "--delta", tmp_path / "d"),
        *("--out", tmp_path / "r", "-v"),
    )
    assert (applied.returncode, applied.stderr) == (0, "")
    lines = words(applied.stdout)
    assert f"model Tüne 1 in {tmp_path / 'r'}" in lines
    assert "signature none" in lines
    for name, digest in digests(world.rebuilt).items():
        assert f"{digest} {name}" in lines


def test_quiet_prints_nothing(world: World, tmp_path: Path) -> None:
    delta, out = tmp_path / "delta", tmp_path / "out"
    runs: list[list[str | Path]] = [
        ["make-delta", "--base", world.base, "--target", world.base, "--out", delta],
        applying(world.base, delta, out),
        ["verify", delta],
        ["inspect", delta],
    ]
    for arguments in runs:
        done = releasekit(*arguments, "-q")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_dry_run_writes_nothing(world: World, tmp_path: Path, form: str) -> None:
    before = digests(world.release.parent)
    done = releasekit(
        *applying(world.base, world.release, tmp_path / "deep" / "out"),
        *("--dry-run", "--json" if form == "json" else "-v"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert digests(world.release.parent) == before
    sizes = {name: (world.rebuilt / name).stat().st_size for name in digests(world.rebuilt)}
    if form == "text":
        assert done.stdout.startswith(f"would write  {len(sizes)} files, ")
        assert "signature none" in words(done.stdout)
        return
    plan = json.loads(done.stdout)
    assert plan.pop("free_nbytes") > 0
    assert plan.pop("download_nbytes") == 0
    assert 2**27 < plan.pop("memory_nbytes") < 2**30
    assert plan.pop("threads") >= 1
    assert plan.pop("device").startswith("cpu (auto: ")
    shards = sum(file.stat().st_size for file in world.release.glob("*.safetensors"))
    others = sum(p.stat().st_size for p in world.release.glob("target/**/*.*"))
    assert plan == {
        "out": str(tmp_path / "deep" / "out"),
        "releases": ["tune 1"],
        "files": sizes,
        # each tensor that predicts one of the target's: embed, layer, norm, steps
        "base_nbytes": 50 * 64 * 2 + 64 * 64 * 2 + 64 * 4 + 8,
        "delta_nbytes": shards + others,
        "write_nbytes": sum(sizes.values()),
        "notes": [],
        "signature": unsigned(world.release),
        "licenses": [],
    }


@pytest.mark.parametrize("fault", ["wrong base", "damaged release"])
def test_a_dry_run_refuses_what_a_run_would(
    world: World, tmp_path: Path, fault: str
) -> None:
    base, release = world.base, world.copy(tmp_path / "release")
    if fault == "wrong base":
        base = model_folder(tmp_path / "base", small_pair(seed=2)[0])
    else:
        shard = release / "delta-00001-of-00001.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1])
    done = releasekit(
        *("apply-delta", "--base", base, "--delta", release),
        *("--out", tmp_path / "out", "--dry-run"),
    )
    assert done.returncode == (4 if fault == "wrong base" else 5)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


# What they say when it is not: each exit code with its causes.

Cause = Callable[[World, Path], list[str | Path]]


def no_such_base(world: World, tmp: Path) -> list[str | Path]:
    return applying(tmp / "gone", world.release, tmp / "out")


def no_such_target(world: World, tmp: Path) -> list[str | Path]:
    return ["make-delta", "--base", world.base, "--target", tmp / "x", "--out", tmp / "out"]


def nothing_to_inspect(world: World, tmp: Path) -> list[str | Path]:
    return ["inspect", tmp / "gone"]


def nothing_to_verify(world: World, tmp: Path) -> list[str | Path]:
    return ["verify", tmp / "gone"]


def verify_a_model_alone(world: World, tmp: Path) -> list[str | Path]:
    return ["verify", world.rebuilt]


def delta_that_is_none(world: World, tmp: Path) -> list[str | Path]:
    (tmp / "none").mkdir()
    return applying(world.base, tmp / "none", tmp / "out")


def output_that_exists(world: World, tmp: Path) -> list[str | Path]:
    return applying(world.base, world.release, world.rebuilt)


def output_at_the_root(world: World, tmp: Path) -> list[str | Path]:
    return applying(world.base, world.release, Path("/"))


def output_in_an_input(world: World, tmp: Path) -> list[str | Path]:
    return applying(world.base, world.release, world.release / "out")


def stray_weights(world: World, tmp: Path) -> list[str | Path]:
    return [
        *("make-delta", "--base", world.base, "--target", world.target),
        *("--out", tmp / "out"),
    ]


def empty_model(world: World, tmp: Path) -> list[str | Path]:
    model_folder(tmp / "empty", {})
    return [
        "make-delta",
        "--base",
        world.base,
        "--target",
        tmp / "empty",
        "--out",
        tmp / "o",
    ]


def shard_size_of_nothing(world: World, tmp: Path) -> list[str | Path]:
    return [
        *("make-delta", "--base", world.base, "--target", world.base),
        *("--out", tmp / "out", "--shard-size", "0"),
    ]


def shard_size_of_nonsense(world: World, tmp: Path) -> list[str | Path]:
    return [*shard_size_of_nothing(world, tmp)[:-1], "2 cows"]


def no_threads(world: World, tmp: Path) -> list[str | Path]:
    return ["verify", world.release, "--threads", "0"]


def missing_option(world: World, tmp: Path) -> list[str | Path]:
    return ["apply-delta", "--base", world.base]


def unknown_option(world: World, tmp: Path) -> list[str | Path]:
    return ["inspect", world.base, "--frobnicate"]


def unknown_command(world: World, tmp: Path) -> list[str | Path]:
    return ["frobnicate"]


def malformed_base(world: World, tmp: Path) -> list[str | Path]:
    tmp.joinpath("base.safetensors").write_bytes(b"\x10" + bytes(30))
    return applying(tmp / "base.safetensors", world.release, tmp / "out")


def pointer(world: World, tmp: Path) -> list[str | Path]:
    (tmp / "base.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    return ["inspect", tmp / "base.safetensors"]


def malformed_sums(world: World, tmp: Path) -> list[str | Path]:
    world.copy(tmp / "release").joinpath("SHA256SUMS").write_bytes(b"x\n")
    return ["verify", tmp / "release"]


def bool_of_two(world: World, tmp: Path) -> list[str | Path]:
    model_folder(tmp / "bool", {"mask": ("BOOL", [3], b"\0\1\2")})
    return [
        "make-delta",
        "--base",
        world.base,
        "--target",
        tmp / "bool",
        "--out",
        tmp / "o",
    ]


def other_base(world: World, tmp: Path) -> list[str | Path]:
    model_folder(tmp / "base", small_pair(seed=2)[0])
    return applying(tmp / "base", world.release, tmp / "out")


def target_as_base(world: World, tmp: Path) -> list[str | Path]:
    return applying(world.target, world.release, tmp / "out")


def release_as_base(world: World, tmp: Path) -> list[str | Path]:
    return applying(world.release, world.release, tmp / "out")


def spoiled_shard(world: World, tmp: Path) -> list[str | Path]:
    shard = world.copy(tmp / "release") / "delta-00001-of-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    return applying(world.base, tmp / "release", tmp / "out")


def missing_shard(world: World, tmp: Path) -> list[str | Path]:
    (world.copy(tmp / "release") / "delta-00001-of-00001.safetensors").unlink()
    return applying(world.base, tmp / "release", tmp / "out")


def spoiled_manifest(world: World, tmp: Path) -> list[str | Path]:
    manifest = world.copy(tmp / "release") / "release.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    return ["inspect", tmp / "release"]


def missing_sums(world: World, tmp: Path) -> list[str | Path]:
    (world.copy(tmp / "release") / "SHA256SUMS").unlink()
    return ["verify", tmp / "release"]


def output_below_a_file(world: World, tmp: Path) -> list[str | Path]:
    (tmp / "file").write_bytes(b"")
    return applying(world.base, world.release, tmp / "file" / "out")


CAUSES: list[tuple[Cause, int, str, str]] = [
    (output_below_a_file, 1, "FileExistsError", "{tmp}/file"),
    (no_such_base, 2, "UsageError", "{tmp}/gone: no such file or folder"),
    (no_such_target, 2, "UsageError", "{tmp}/x: no such file or folder"),
    (nothing_to_inspect, 2, "UsageError", "{tmp}/gone: no such file or folder"),
    (nothing_to_verify, 2, "UsageError", "{tmp}/gone: no such file or folder"),
    (verify_a_model_alone, 2, "UsageError", "{world}/rebuilt: is not a release"),
    (delta_that_is_none, 2, "UsageError", "{tmp}/none: holds no weights that can be read"),
    (output_that_exists, 2, "UsageError", "{world}/rebuilt: exists already"),
    (output_at_the_root, 2, "UsageError", "/: "),
    (output_in_an_input, 2, "UsageError", "{world}/release/out: lies in the input"),
    (stray_weights, 2, "UsageError", "{world}/tune/optimizer.bin: holds weights"),
    (empty_model, 2, "UsageError", "{tmp}/empty: holds no tensors"),
    (shard_size_of_nothing, 2, "UsageError", "shard size: expected at least 1 byte"),
    (shard_size_of_nonsense, 2, "UsageError", "Invalid value for '--shard-size': '2 cows'"),
    (no_threads, 2, "UsageError", "Invalid value for '--threads': 0"),
    (missing_option, 2, "UsageError", "Missing option '--delta'"),
    (unknown_option, 2, "UsageError", "No such option"),
    (unknown_command, 2, "UsageError", "No such command 'frobnicate'"),
    (malformed_base, 3, "FormatError", "{tmp}/base.safetensors: header"),
    (pointer, 3, "FormatError", "{tmp}/base.safetensors: is a Git LFS pointer"),
    (malformed_sums, 3, "FormatError", "{tmp}/release/SHA256SUMS: line 1: "),
    (bool_of_two, 3, "FormatError", '{tmp}/bool/model.safetensors: tensor "mask": '),
    (other_base, 4, "BaseMismatchError", "{tmp}/base: the tensors have the right shapes"),
    (target_as_base, 4, "BaseMismatchError", "{world}/tune: is the fine-tuned model"),
    (release_as_base, 4, "BaseMismatchError", "{world}/release: "),
    (
        spoiled_shard,
        5,
        "IntegrityError",
        "{tmp}/release/delta-00001-of-00001.safetensors: ",
    ),
    (
        missing_shard,
        5,
        "IntegrityError",
        "{tmp}/release/delta-00001-of-00001.safetensors: ",
    ),
    (spoiled_manifest, 5, "IntegrityError", "{tmp}/release/release.json: expected sha256"),
    (missing_sums, 5, "IntegrityError", "{tmp}/release/SHA256SUMS: is missing"),
]


@pytest.mark.parametrize(
    ("cause", "code", "kind", "start"), CAUSES, ids=[cause[0].__name__ for cause in CAUSES]
)
def test_an_error_is_one_document_and_one_code(
    world: World, tmp_path: Path, cause: Cause, code: int, kind: str, start: str
) -> None:
    before = digests(world.release.parent)
    arguments = cause(world, tmp_path)
    given = digests(tmp_path)
    done = releasekit(*arguments, "--json")
    assert done.returncode == code
    error = json.loads(done.stdout)
    message = error["error"].pop("message")
    assert error == {"error": {"type": kind, "exit_code": code}}
    assert message.startswith(start.format(tmp=tmp_path, world=world.base.parent))
    assert done.stderr == f"error: {message}\n"
    assert digests(world.release.parent) == before
    assert not any(path.name in {"out", "o"} for path in tmp_path.rglob("*"))
    left = {name for name in digests(tmp_path) if ".partial/" not in name}
    assert left == given.keys()


@pytest.mark.parametrize("option", ["", "-q", "-v"])
def test_an_error_in_words_goes_to_stderr(
    world: World, tmp_path: Path, option: str
) -> None:
    done = releasekit(*nothing_to_verify(world, tmp_path), *filter(None, [option]))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'gone'}: no such file or folder\n"


def test_a_wrong_option_in_words_names_the_help(world: World, tmp_path: Path) -> None:
    done = releasekit(*unknown_option(world, tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Try 'releasekit inspect --help' for help." in done.stderr
    assert "--frobnicate" in done.stderr


@pytest.mark.parametrize("option", ["", "--json", "-q"])
def test_verify_tells_what_is_wrong(world: World, tmp_path: Path, option: str) -> None:
    rebuilt = tmp_path / "rebuilt"
    shutil.copytree(world.rebuilt, rebuilt)
    wrong = rebuilt / "model-00002-of-00003.safetensors"
    wrong.write_bytes(wrong.read_bytes()[:-1] + b"\x55")
    (rebuilt / "config.json").unlink()
    (rebuilt / "größe" / "evil.bin").write_bytes(b"x")
    (rebuilt / "link").symlink_to("/etc")
    arguments = [*filter(None, [option])]
    done = releasekit("verify", rebuilt, "--against", world.release, *arguments)
    assert done.returncode == 5
    statuses = {
        "config.json": "missing",
        "größe/evil.bin": "unexpected",
        "größe/notes.txt": "good",
        "link": "unexpected",
        "model-00001-of-00003.safetensors": "good",
        "model-00002-of-00003.safetensors": "wrong",
        "model-00003-of-00003.safetensors": "good",
        "model.safetensors.index.json": "good",
    }
    counts = "4 good, 1 wrong, 1 missing, 2 unexpected"
    if option == "--json":
        found = json.loads(done.stdout)
        assert found["ok"] is False
        assert found["signature"] == unsigned(world.release)
        assert {file["path"]: file["status"] for file in found["files"]} == statuses
        return
    assert done.stderr == (
        f"error: {rebuilt}: {counts}, compared with "
        f"{world.release / 'rebuilt.SHA256SUMS'}: download or rebuild what is wrong or "
        "missing, remove what is unexpected\n"
    )
    lines = [f"{status:10}  {name}" for name, status in statuses.items()]
    lines += [counts, "signature: none"]
    assert done.stdout.splitlines() == ([] if option == "-q" else lines)


def test_a_single_weight_file_is_verified(world: World) -> None:
    file = world.rebuilt / "model-00002-of-00003.safetensors"
    done = releasekit("verify", file, "--against", world.release)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"good        {file.name}",
        "1 good, 0 wrong, 0 missing, 0 unexpected",
        "signature: none",
    ]


def test_a_second_run_is_refused_while_one_writes(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "out.partial").mkdir()
    fd = os.open(tmp_path / "out.partial", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        done = releasekit(*applying(world.base, world.release, out), "--json")
    finally:
        os.close(fd)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "error": {
            "type": "ReleaseKitError",
            "message": f"{out}: another run is writing to it; wait for it, or choose "
            "another --out",
            "exit_code": 1,
        }
    }


# Names that would speak for us.


def test_names_of_tensors_cannot_write_lines_of_their_own(tmp_path: Path) -> None:
    name = "x\x1b[2J\u202e\nforged  line"
    (tmp_path / "m.safetensors").write_bytes(
        safetensors_bytes({name: ("U8", [1], b"x"), "ordinary": ("U8", [1], b"x")})
    )
    done = releasekit("inspect", tmp_path / "m.safetensors")
    assert done.returncode == 0
    assert done.stdout.replace("\n", "").isprintable()
    assert not any(line.startswith("forged") for line in done.stdout.splitlines())
    done = releasekit("inspect", "--json", tmp_path / "m.safetensors")
    assert json.loads(done.stdout)["tensors"][0]["name"] == name


def test_names_of_files_cannot_write_lines_of_their_own(
    world: World, tmp_path: Path
) -> None:
    release = world.copy(tmp_path / "release")
    (release / "x\x1b[2J\ngood        forged").write_bytes(b"x")
    done = releasekit("verify", release)
    assert done.returncode == 5
    assert done.stdout.replace("\n", "").isprintable()
    assert "good        forged" not in done.stdout.splitlines()


@pytest.mark.parametrize("option", ["--json", "-v"])
def test_a_path_that_is_not_text_is_named(tmp_path: Path, option: str) -> None:
    path = os.fsencode(tmp_path) + b"/gr\xf6\xdfe"
    done = subprocess.run(
        [*COMMAND, "inspect", path, option], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b": no such file or folder" in done.stderr
    if option == "--json":
        json.loads(done.stdout.decode(errors="surrogateescape"))


def test_a_pipe_in_the_target_is_not_waited_for(world: World, tmp_path: Path) -> None:
    target = model_folder(tmp_path / "target", small_pair()[1])
    os.mkfifo(target / "pipe")
    done = process(
        *("make-delta", "--base", world.base, "--target", target),
        *("--out", tmp_path / "out"),
        timeout=20,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {target / 'pipe'}: ")
    assert not (tmp_path / "out").exists()


def test_a_reader_that_goes_away_is_no_error(world: World) -> None:
    command = [*COMMAND, "inspect", "--json", str(world.release)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() in {0, 1}
