"""What users hold in the base's place: told in seconds, by `preflight` and by the work."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

import releasekit as kit
from releasekit import layout
from releasekit.codec import Ulp
from releasekit.digest import sha256_hex
from releasekit.manifest import MANIFEST, SUMS, FileEntry, Manifest, WeightEntry
from releasekit.operations import BaseTensor, Op, Operation
from releasekit.sums import format_sums
from releasekit.tensors import DType, TensorSpec
from tests.builders import model_folder, raw_header
from tests.integration.test_memory import peak_nbytes
from tests.integration.tools import (
    Model,
    as_raw,
    digests,
    fine_tuned,
    llama,
    numbers,
    unsigned,
)
from tests.integration.tools import in_process as releasekit

FREQS = "model.layers.0.self_attn.rotary_emb.inv_freq"


@dataclass(frozen=True)
class World:
    """A base, a fine-tune of it, its release, and what the base holds."""

    base: Path
    target: Path
    release: Path
    tensors: Model

    @property
    def identity(self) -> str:
        manifest = json.loads((self.release / MANIFEST).read_bytes())
        found = manifest["base"]["identity"]
        assert isinstance(found, str)
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    source = np.random.default_rng(7)
    base = llama(source, label="F16")
    model_folder(root / "base", base, shards=2)
    model_folder(root / "tune", fine_tuned(source, base), shards=3)
    (root / "tune" / "config.json").write_text(
        '{"hidden_size": 64, "num_attention_heads": 4}'
    )
    kit.make_delta(root / "base", root / "tune", root / "release")
    return World(
        base=root / "base",
        target=root / "tune",
        release=root / "release",
        tensors=base,
    )


def checking(base: str | Path, release: Path, *more: str | Path) -> list[str | Path]:
    return ["preflight", "--base", base, "--delta", release, *more]


def checked(base: str | Path, release: Path, *more: str | Path) -> tuple[int, Any]:
    """The exit code of `preflight`, and its document."""
    done = releasekit(*checking(base, release, "--json", *more))
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def faults(document: Any) -> list[tuple[str, str]]:
    return [(f["kind"], f["message"]) for f in document["findings"] if f["fatal"]]


def refused(base: str | Path, release: Path, out: Path, *more: str) -> tuple[int, str]:
    """The exit code and the message of a rebuild; it leaves nothing."""
    done = releasekit(
        *("apply-delta", "--base", base, "--delta", release, "--out", out, "--json", *more)
    )
    assert not out.exists()
    return done.returncode, json.loads(done.stdout)["error"]["message"]


# All is well.


def test_a_good_pair_as_json(world: World, tmp_path: Path) -> None:
    before = digests(world.base.parent)
    code, found = checked(world.base, world.release, "--out", tmp_path / "deep" / "out")
    assert code == 0
    assert 0 < found.pop("seconds") < 10
    assert found.pop("free_nbytes") > 0
    assert found.pop("download_nbytes") == 0
    assert 2**27 < found.pop("memory_nbytes") < 2**30
    assert found == {
        "base": str(world.base),
        "delta": str(world.release),
        "name": "tune",
        "ok": True,
        "findings": [],
        "write_nbytes": sum(p.stat().st_size for p in world.target.iterdir()),
        "signature": unsigned(world.release),
    }
    assert list(tmp_path.iterdir()) == []
    assert digests(world.base.parent) == before


def test_a_good_pair_in_words(world: World, tmp_path: Path) -> None:
    done = releasekit(*checking(world.base, world.release))
    assert (done.returncode, done.stderr) == (0, "")
    ready, memory, disk, signature = done.stdout.splitlines()
    assert ready == f"ready      tune can be rebuilt from {world.base}"
    assert memory.startswith("memory     at most ")
    assert disk.startswith("disk       ")
    assert disk.endswith(" to write")
    assert signature == "signature  none"
    done = releasekit(*checking(world.base, world.release, "-v", "--out", tmp_path / "out"))
    *_, disk, signature, took = done.stdout.splitlines()
    assert disk.endswith(" free")
    assert signature == "signature  none"
    assert took.startswith("took       0")
    done = releasekit(*checking(world.base, world.release, "-q"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_good_pair_in_python(world: World) -> None:
    found = kit.preflight(str(world.base), str(world.release), threads=1)
    assert isinstance(found, kit.Preflight)
    assert found.ok
    assert (found.name, found.findings, found.free_nbytes) == ("tune", (), None)
    assert (found.base, found.delta) == (str(world.base), str(world.release))


def test_notes_are_told_and_are_no_fault(world: World, tmp_path: Path) -> None:
    base = model_folder(
        tmp_path / "base", world.tensors | {FREQS: as_raw(np.ones(8), "F32")}
    )
    note = (
        f"{base}: has 1 rotary_emb.inv_freq buffers that the delta's base has not: they "
        "are ignored, since model libraries compute them"
    )
    code, found = checked(base, world.release)
    assert (code, found["ok"]) == (0, True)
    assert found["findings"] == [
        {"kind": "extra-inv-freq", "message": note, "fatal": False}
    ]
    done = releasekit(*checking(base, world.release))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"note       {note}\n")
    command: list[str | Path] = ["apply-delta", "--base", base, "--delta", world.release]
    for more in (["--out", tmp_path / "x", "--dry-run"], ["--out", tmp_path / "out"]):
        done = releasekit(*command, *map(str, more))
        assert (done.returncode, done.stderr) == (0, "")
        assert f" {note}\n" in done.stdout
    plan = kit.plan_apply(base, world.release, tmp_path / "x")
    assert plan.notes == (note,)
    done = releasekit(*command, "--out", tmp_path / "again", "--json")
    assert json.loads(done.stdout)["notes"] == [note]
    assert digests(tmp_path / "again") == digests(tmp_path / "out") == digests(world.target)


# Another base. What is said of each is held by tests/unit/test_preflight.py.


def renamed_only(model: Model) -> Model:
    """q and k with their rows as in Meta's files; heads have 16."""
    found = dict(model)
    for name, tensor in model.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            rows = numbers(tensor).reshape(-1, 2, 8, 64).swapaxes(1, 2)
            found[name] = as_raw(rows.reshape(tensor[1]), tensor[0])
    return found


def with_a_token(model: Model) -> Model:
    names = ("model.embed_tokens.weight", "lm_head.weight")
    rows = {name: numbers(model[name]) for name in names}
    return model | {
        name: as_raw(np.concatenate([values, values[:1]]), "F16")
        for name, values in rows.items()
    }


Change = Callable[[Model], Model]
BASES: list[tuple[str, Change]] = [
    ("other-model", lambda _: llama(np.random.default_rng(8), label="F16")),
    ("edited", lambda m: m | {"lm_head.weight": m["model.embed_tokens.weight"]}),
    ("vocabulary", with_a_token),
    ("dtype", lambda m: {n: as_raw(numbers(t), "BF16") for n, t in m.items()}),
    ("row-order", renamed_only),
    ("missing", lambda m: {n: t for n, t in m.items() if "up_proj" not in n}),
    ("shape", lambda _: llama(np.random.default_rng(7), label="F16", hidden=128)),
    (
        "additive-delta",
        lambda m: {n: as_raw(numbers(t) * 1e-3, "F16") for n, t in m.items()},
    ),
    (
        "quantised",
        lambda m: {n.replace("weight", "qweight"): ("I32", [1], bytes(4)) for n in m},
    ),
]


@pytest.mark.parametrize(("kind", "change"), BASES, ids=[kind for kind, _ in BASES])
def test_another_base_is_refused_alike(
    world: World, tmp_path: Path, kind: str, change: Change
) -> None:
    base = model_folder(tmp_path / "base", change(world.tensors))
    code, found = checked(base, world.release)
    assert (code, found["ok"], found["name"]) == (4, False, "tune")
    assert found["memory_nbytes"] > 0
    assert faults(found)[0][0] == kind
    message = faults(found)[0][1]
    assert message.startswith(f"{base}: ")
    assert world.identity in message
    assert refused(base, world.release, tmp_path / "out") == (4, message)
    assert refused(base, world.release, tmp_path / "out", "--dry-run") == (4, message)
    with pytest.raises(kit.BaseMismatchError) as caught:
        kit.open_delta(world.release, base)
    assert str(caught.value) == message


@pytest.mark.parametrize("container", ["safetensors", "bin"])
def test_the_order_of_rows_is_recognised_in_any_container(
    world: World, tmp_path: Path, container: str
) -> None:
    base = model_folder(tmp_path / "base", renamed_only(world.tensors), shards=2)
    if container == "bin":
        torch = pytest.importorskip("torch")
        tensors = {
            name: torch.from_numpy(numbers(tensor).astype(np.float16))
            for name, tensor in renamed_only(world.tensors).items()
        }
        base = tmp_path / "pytorch_model.bin"
        torch.save(tensors, base)
    assert [kind for kind, _ in faults(checked(base, world.release)[1])] == ["row-order"]


def test_the_fine_tune_in_place_of_its_base(world: World, tmp_path: Path) -> None:
    code, found = checked(world.target, world.release)
    assert code == 4
    ((kind, message),) = faults(found)
    assert kind == "fine-tune"
    assert message.startswith(f"{world.target}: is the fine-tuned model tune itself: ")
    assert refused(world.target, world.release, tmp_path / "out") == (4, message)


def test_the_delta_in_place_of_the_base(world: World, tmp_path: Path) -> None:
    # Both its folder and one of its files.
    nothing = tmp_path / "nothing"  # a release without payloads
    kit.make_delta(world.base, world.base, nothing)
    shard = world.release / "delta-00001-of-00001.safetensors"
    for base in (world.release, shard, nothing):
        code, found = checked(base, world.release)
        assert code == 4
        message = (
            f"{base}: is a delta itself, which holds no model: give the base model with "
            f"--base; expected the base with identity {world.identity}; get that base, in "
            "the revision that the release names"
        )
        assert faults(found) == [("release", message)]
        assert refused(base, world.release, tmp_path / "out") == (4, message)


def test_all_that_is_wrong_goes_to_stderr(world: World, tmp_path: Path) -> None:
    other = with_a_token(llama(np.random.default_rng(8), label="F16"))
    base = model_folder(tmp_path / "base", other | {"more": ("U8", [1], b"x")})
    for option in ("-q", "-v"):
        done = releasekit(*checking(base, world.release, option))
        assert done.returncode == 4
        first, second = done.stderr.splitlines()
        assert first.startswith(f"error: {base}: some tensors have the right shapes, but ")
        assert second.startswith(f"error: {base}: expected 320 rows in ")
        notes = [line for line in done.stdout.splitlines() if line.startswith("note ")]
        assert len(notes) == (option == "-v")
        assert "ready" not in done.stdout


# What cannot be opened.

GGUF = b"GGUF\x03\0\0\0" + bytes(100)
IMPOSTORS: dict[str, tuple[bytes, str]] = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:"
        + b"0" * 64
        + b"\nsize 9\n",
        "is a Git LFS pointer, not the weights: run `git lfs pull`, or download the file "
        "itself",
    ),
    "page": (
        b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>",
        "is an HTML page, not weights: the download answered with an error; download the "
        "file again",
    ),
    "gguf": (
        GGUF,
        "is a GGUF file, whose weights are quantised: get the original weights",
    ),
    "ggml": (
        b"tjgg\1\0\0\0" + bytes(100),
        "is a GGML file, whose weights are quantised: get the original weights",
    ),
}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pth"])
@pytest.mark.parametrize("impostor", IMPOSTORS)
@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_what_is_no_weight_file_is_named(
    world: World, tmp_path: Path, name: str, impostor: str, whole: bool
) -> None:
    data, words = IMPOSTORS[impostor]
    (tmp_path / "base").mkdir()
    file = tmp_path / "base" / name
    file.write_bytes(data)
    base = file.parent if whole else file
    found = kit.preflight(base, world.release)
    assert not found.ok
    ((kind, message),) = [(f.kind, f.message) for f in found.findings]
    assert (kind, message) == ("FormatError", f"{file}: {words}")
    with pytest.raises(kit.FormatError) as caught:
        kit.apply_delta(base, world.release, tmp_path / "out")
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors"])
@pytest.mark.parametrize("impostor", ["pointer", "page"])
def test_one_shard_that_is_no_weights_is_named_to_the_user(
    world: World, tmp_path: Path, name: str, impostor: str
) -> None:
    data, words = IMPOSTORS[impostor]
    base = tmp_path / "base"
    shutil.copytree(world.base, base)
    (base / name).write_bytes(data)
    message = f"{base / name}: {words}"
    code, found = checked(base, world.release)
    assert (code, faults(found)) == (3, [("FormatError", message)])
    assert refused(base, world.release, tmp_path / "out") == (3, message)
    assert refused(base, world.release, tmp_path / "out", "--dry-run") == (3, message)
    done = releasekit(*checking(base, world.release))
    assert (done.returncode, done.stderr) == (3, f"error: {message}\n")


def test_a_folder_of_gguf_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "llama-q4.gguf").write_bytes(GGUF)
    code, found = checked(tmp_path / "base", world.release)
    ((kind, message),) = faults(found)
    assert (code, kind) == (2, "UsageError")
    assert message.startswith(f"{tmp_path / 'base'}: holds no weights that can be read")
    assert "llama-q4.gguf" in message
    assert "quantised" in message
    assert refused(tmp_path / "base", world.release, tmp_path / "out") == (2, message)


def test_nothing_at_the_path(world: World, tmp_path: Path) -> None:
    code, found = checked(tmp_path / "gone", world.release)
    message = f"{tmp_path / 'gone'}: no such file or folder"
    assert (code, faults(found)) == (2, [("UsageError", message)])
    assert found["memory_nbytes"] is None
    assert found["write_nbytes"] > 0


def test_a_base_on_the_hub_that_is_out_of_reach(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("releasekit.hub.answers.FIRST_WAIT", 0.01)
    code, found = checked("org/base", world.release)
    ((kind, message),) = faults(found)
    assert (code, kind) == (8, "HubError")
    assert "org/base" in message


# The release.


def test_a_delta_that_is_none(world: World) -> None:
    done = releasekit(*checking(world.base, world.base.parent / "none", "--json"))
    assert done.returncode == 2
    ((_, message),) = faults(json.loads(done.stdout))
    assert message == f"{world.base.parent / 'none'}: no such file or folder"


@pytest.mark.parametrize("file", ["target/config.json", "delta-00001-of-00001.safetensors"])
def test_all_faults_are_found_at_once(world: World, tmp_path: Path, file: str) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release, release)
    (release / file).unlink()
    code, found = checked(tmp_path / "gone", release, "--out", world.target)
    assert code == 5
    kinds = [kind for kind, _ in faults(found)]
    assert kinds == ["IntegrityError", "UsageError", "UsageError"]
    assert faults(found)[0][1].startswith(f"{release / file}: is missing")


def test_a_damaged_manifest_leaves_little_to_say(world: World, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(world.release, release)
    (release / MANIFEST).write_bytes(b"{}")
    code, found = checked(world.base, release, "--out", tmp_path / "out")
    assert (code, [kind for kind, _ in faults(found)]) == (5, ["IntegrityError"])
    assert (found["name"], found["write_nbytes"], found["memory_nbytes"]) == (None,) * 3
    assert found["free_nbytes"] > 0


# What the work needs.


@pytest.mark.parametrize(
    ("more", "code", "kind", "start"),
    [
        (["--max-memory", "1MB"], 2, "memory", "memory: expected a limit of at least "),
        (["--device", "abacus"], 2, "UsageError", "device: expected auto, cpu, "),
    ],
)
def test_what_the_machine_lacks_is_said(
    world: World, more: list[str], code: int, kind: str, start: str
) -> None:
    found_code, found = checked(world.base, world.release, *more)
    ((found_kind, message),) = faults(found)
    assert (found_code, found_kind) == (code, kind)
    assert message.startswith(start)
    assert found["memory_nbytes"] is None


def test_an_output_in_the_way_is_said(world: World) -> None:
    for out in (world.target, world.base / "out", Path("/")):
        code, found = checked(world.base, world.release, "--out", out)
        assert (code, [kind for kind, _ in faults(found)]) == (2, ["UsageError"])


# Models as large as they come. Their files are sparse: they have their full size, and no
# blocks but for the headers, so that all values are 0.


def sparse_base(folder: Path, files: Iterable[list[TensorSpec]]) -> None:
    """A base of these tensors, file by file."""
    folder.mkdir()
    every = list(files)
    weight_map: dict[str, str] = {}
    for number, specs in enumerate(every, 1):
        name = f"model-{number:05}-of-{len(every):05}.safetensors"
        header: dict[str, object] = {}
        end = 0
        for spec in specs:
            begin, end = end, end + spec.nbytes
            header[spec.name] = {
                "dtype": spec.dtype.label,
                "shape": list(spec.shape),
                "data_offsets": [begin, end],
            }
            weight_map[spec.name] = name
        head = raw_header(header)
        with (folder / name).open("wb") as file:
            file.write(head)
            file.truncate(len(head) + end)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def release_of(
    folder: Path,
    files: Iterable[list[TensorSpec]],
    digest: Callable[[int], str],
    aliases: Mapping[str, str] | None = None,
) -> None:
    """A release that changes no tensor, as make-delta writes it but for one thing.

    The files' SHA-256 are made up: nobody hashes a hundred gigabytes here, and nothing
    before the end of a rebuild asks for them.
    """
    folder.mkdir()
    base: dict[str, BaseTensor] = {}
    operations: dict[str, Operation] = {}
    weights = []
    aliases = aliases or {}
    for number, specs in enumerate(files):
        placed = layout.build(specs, {"format": "pt"})
        entry = FileEntry(
            path=f"{number}.safetensors", size=placed.file_size, sha256="0" * 64
        )
        weights.append(WeightEntry(file=entry, layout=placed))
        for spec in specs:
            of = aliases.get(spec.name)
            found = digest(spec.nbytes)
            operations[spec.name] = Operation(
                op=Op.ALIAS if of else Op.SAME, digest=found, of=of
            )
            if of is None:
                base[spec.name] = BaseTensor(spec=spec, digest=found)
    manifest = Manifest(
        name="vast",
        made_with="a test",
        codec=Ulp(),
        base=base,
        weights=tuple(weights),
        files=(),
        operations=operations,
        shards=(),
    )
    document = manifest.pack()
    (folder / MANIFEST).write_bytes(document)
    (folder / SUMS).write_bytes(format_sums({MANIFEST: sha256_hex(document)}))


def llama_65b() -> list[list[TensorSpec]]:
    """The tensors of LLaMA-65B as transformers has them, in files of five layers each."""
    hidden, inner, rows = 8192, 22016, 32000

    def spec(name: str, *shape: int) -> TensorSpec:
        return TensorSpec(name=name, dtype=DType.F16, shape=shape)

    files = []
    for first in range(0, 80, 5):
        specs = [spec("model.embed_tokens.weight", rows, hidden)] if not first else []
        for number in range(first, first + 5):
            layer = f"model.layers.{number}"
            specs += [
                spec(f"{layer}.input_layernorm.weight", hidden),
                spec(f"{layer}.mlp.down_proj.weight", hidden, inner),
                spec(f"{layer}.mlp.gate_proj.weight", inner, hidden),
                spec(f"{layer}.mlp.up_proj.weight", inner, hidden),
                spec(f"{layer}.post_attention_layernorm.weight", hidden),
                *(
                    spec(f"{layer}.self_attn.{name}_proj.weight", hidden, hidden)
                    for name in "kqvo"
                ),
            ]
        files.append(specs)
    files[-1] += [
        spec("model.norm.weight", hidden),
        spec("lm_head.weight", rows, hidden),
    ]
    return files


def digest_of_zeros(nbytes: int, known: dict[int, str]) -> str:
    """The digest of a tensor of zeros; only a few sizes occur."""
    if nbytes not in known:
        hasher, piece = blake3(max_threads=blake3.AUTO), bytes(1 << 24)
        for start in range(0, nbytes, len(piece)):
            hasher.update(piece[: nbytes - start])
        known[nbytes] = hasher.hexdigest()
    return known[nbytes]


@pytest.fixture(scope="module")
def vast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of 130 GB, and a release on it."""
    root = tmp_path_factory.mktemp("vast")
    known: dict[int, str] = {}
    sparse_base(root / "base", llama_65b())
    release_of(root / "release", llama_65b(), lambda size: digest_of_zeros(size, known))
    return root


def test_this_base_is_vast(vast: Path) -> None:
    files = list((vast / "base").glob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) > 130_571_000_000
    assert sum(path.stat().st_blocks * 512 for path in files) < 1 << 22
    assert sum(len(specs) for specs in llama_65b()) == 723


@pytest.mark.parametrize("command", ["preflight", "apply-delta"])
def test_a_vast_base_is_checked_in_seconds_and_little_memory(
    vast: Path, command: str
) -> None:
    arguments: list[str | Path] = ["--base", vast / "base", "--delta", vast / "release"]
    if command == "apply-delta":
        arguments += ["--out", vast / "out", "--dry-run"]
    start = time.monotonic()
    peak = peak_nbytes(command, *arguments)
    seconds = time.monotonic() - start
    print(f"{command}: {peak / 2**20:.0f} MiB, {seconds:.2f} s")
    assert peak < 512 << 20
    assert seconds < 20
    assert not (vast / "out").exists()


@pytest.mark.parametrize("command", ["preflight", "apply-delta"])
def test_a_vast_delta_of_another_tool_is_checked_likewise(vast: Path, command: str) -> None:
    arguments: list[str | Path] = ["--base", vast / "base", "--delta", vast / "base"]
    if command == "apply-delta":
        arguments += ["--out", vast / "out", "--dry-run"]
    start = time.monotonic()
    peak = peak_nbytes(command, *arguments)
    print(f"{command}: {peak / 2**20:.0f} MiB, {time.monotonic() - start:.2f} s")
    assert peak < 512 << 20
    assert time.monotonic() - start < 20


def test_a_vast_base_of_other_values_is_told_in_seconds(vast: Path, tmp_path: Path) -> None:
    shutil.copytree(vast / "release", tmp_path / "release")
    other = tmp_path / "other"
    release_of(other, llama_65b(), lambda size: f"{size:064x}")
    found = kit.preflight(vast / "base", other)
    assert [finding.kind for finding in found.findings] == ["blank"]
    assert found.findings[0].message.startswith(
        f"{vast / 'base'}: holds zeros wherever it was looked at: files that were "
        "reserved, and not downloaded, look so; download it again; expected the base with "
        "identity "
    )
    assert found.seconds < 10


def test_too_little_disk_is_said(tmp_path: Path) -> None:
    # A thousand names for a tensor of a terabyte: no disk here has room for all of them.
    first = TensorSpec(name="0", dtype=DType.U8, shape=(1 << 40,))
    small = TensorSpec(name="small", dtype=DType.U8, shape=(1,))
    specs = [small, first]
    more = [
        TensorSpec(name=str(n), dtype=DType.U8, shape=(1 << 40,)) for n in range(1, 1000)
    ]
    known: dict[int, str] = {1 << 40: "0" * 64}
    sparse_base(tmp_path / "base", [specs])
    release_of(
        tmp_path / "release",
        [specs + more],
        lambda size: digest_of_zeros(size, known),
        {spec.name: "0" for spec in more},
    )
    out = tmp_path / "out"
    code, found = checked(tmp_path / "base", tmp_path / "release", "--out", out)
    ((kind, message),) = faults(found)
    assert (code, kind) == (1, "disk")
    assert message.startswith(f"{out}.partial: expected 1,099,511,6")
    assert message.endswith(": free some space, or choose an --out on another disk")
    assert found["free_nbytes"] < found["write_nbytes"]
    assert checked(tmp_path / "base", tmp_path / "release")[0] == 0


def test_what_an_interrupted_run_wrote_needs_no_room(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    kit.apply_delta(world.base, world.release, out)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    found = kit.preflight(world.base, world.release, out=tmp_path / "other")
    assert [finding.kind for finding in found.findings] == ["disk"]
    partial.mkdir()
    os.rename(out, partial / "new")
    assert kit.preflight(world.base, world.release, out=out).ok
