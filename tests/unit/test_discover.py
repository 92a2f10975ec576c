"""Which files are the checkpoint, and each way for a download to be something else."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.discover import Kind, choose, find
from releasekit.errors import FormatError, IntegrityError, UsageError
from tests.builders import RawTensor, model_folder, safetensors_bytes

SHARD_1, SHARD_2 = (f"model-{i:05}-of-00002.safetensors" for i in (1, 2))
WEIGHTS = ".safetensors"
INDEX = "model.safetensors.index.json"
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)


def tensor(name: str = "w") -> dict[str, RawTensor]:
    return {name: ("U8", [1], b"x")}


def folder(path: Path, files: Mapping[str, object]) -> Path:
    """Writes files: bytes as they are, tensors as safetensors, an index as JSON."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        elif name.endswith(".json"):
            (path / name).write_text(json.dumps(content))
        elif isinstance(content, dict):
            (path / name).write_bytes(safetensors_bytes(content))
    return path


def index(**weight_map: str) -> dict[str, object]:
    return {"metadata": {"total_size": 2}, "weight_map": weight_map}


def opened(path: Path) -> dict[str, str]:
    """The file of each tensor of the checkpoint at `path`."""
    with open_checkpoint(path) as checkpoint:
        for name, spec in checkpoint.specs.items():
            checkpoint.read(name, 0, np.empty(spec.nbytes, np.uint8))
        return {name: spec.describe() for name, spec in checkpoint.specs.items()}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["model.safetensors"], ["model.safetensors"]),
        (["any name.safetensors"], ["any name.safetensors"]),
        (["adapter.safetensors", "config.json", "x.bin"], ["adapter.safetensors"]),
        ([SHARD_2, SHARD_1], [SHARD_1, SHARD_2]),
        (["model-00001-of-00001.safetensors"], ["model-00001-of-00001.safetensors"]),
        (
            [f"a-{i:05}-of-00003.safetensors" for i in (3, 1, 2)],
            [f"a-{i:05}-of-00003.safetensors" for i in (1, 2, 3)],
        ),
        (["sub/x.safetensors", "model.safetensors"], ["model.safetensors"]),
    ],
)
def test_a_folder_without_an_index(
    tmp_path: Path, files: list[str], names: list[str]
) -> None:
    folder(tmp_path, {n: tensor(n) if n.endswith(WEIGHTS) else b"x" for n in files})
    found = find(tmp_path)
    assert list(found.files) == names
    assert (found.root, found.index, found.weight_map) == (tmp_path, None, None)
    assert list(opened(tmp_path)) == names


def test_an_index_decides(tmp_path: Path) -> None:
    files = {"a.safetensors": tensor("a"), "b.safetensors": tensor("b")}
    shards = {"sub/x.safetensors": tensor("x"), "y.safetensors": tensor("y")}
    folder(tmp_path, files | shards)
    folder(tmp_path, {INDEX: index(y="y.safetensors", x="sub/x.safetensors")})
    for path in (tmp_path, tmp_path / INDEX):
        found = find(path)
        assert found.files == ("sub/x.safetensors", "y.safetensors")
        assert (found.subject, found.root, found.index) == (str(path), tmp_path, INDEX)
        assert list(opened(path)) == ["x", "y"]


def test_a_file_is_itself_beside_others(tmp_path: Path) -> None:
    folder(tmp_path, {"a.safetensors": tensor("a"), "b.safetensors": tensor("b")})
    assert list(opened(tmp_path / "b.safetensors")) == ["b"]


@pytest.mark.parametrize(
    ("files", "kind", "names"),
    [
        (["model.safetensors", "pytorch_model.bin"], "SAFETENSORS", ["model.safetensors"]),
        (["pytorch_model.bin"], "PYTORCH", ["pytorch_model.bin"]),
        (["a.pt", "optimizer.pt", "training_args.bin"], "PYTORCH", ["a.pt"]),
        (
            ["b-00002-of-00002.bin", "b-00001-of-00002.bin", "model.gguf"],
            "PYTORCH",
            ["b-00001-of-00002.bin", "b-00002-of-00002.bin"],
        ),
        (
            ["consolidated.01.pth", "consolidated.00.pth", "params.json"],
            "META",
            ["consolidated.00.pth", "consolidated.01.pth"],
        ),
        (
            ["consolidated.00.pth", "params.json", "model.safetensors"],
            "SAFETENSORS",
            ["model.safetensors"],
        ),
        (
            ["consolidated.00.pth", "params.json", "pytorch_model.bin"],
            "PYTORCH",
            ["pytorch_model.bin"],
        ),
    ],
)
def test_a_folder_in_several_formats(
    tmp_path: Path, files: list[str], kind: str, names: list[str]
) -> None:
    folder(tmp_path, dict.fromkeys(files, b"x"))
    found = find(tmp_path)
    assert (found.kind.name, list(found.files)) == (kind, names)
    # What would be downloaded is no more, and found as the same.
    chosen = choose(files)
    for name in set(files) - set(chosen):
        (tmp_path / name).unlink()
    assert find(tmp_path) == found


def test_a_part_of_metas_checkpoint_stands_for_all(tmp_path: Path) -> None:
    names = ["consolidated.00.pth", "consolidated.01.pth"]
    folder(tmp_path, dict.fromkeys([*names, "params.json"], b"x"))
    assert list(find(tmp_path / names[1]).files) == names
    (tmp_path / "params.json").unlink()
    assert find(tmp_path / names[1]).kind is Kind.PYTORCH
    with pytest.raises(FormatError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds Meta's consolidated.NN.pth, but no params.json, which says how "
        "their tensors are joined: get it from where the weights came from"
    )


def test_links_are_followed_as_a_cache_has_them(tmp_path: Path) -> None:
    blob = folder(tmp_path / "blobs", {"0123abcd.safetensors": tensor()})
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to(blob / "0123abcd.safetensors")
    assert list(opened(snapshot)) == ["w"]
    assert list(opened(snapshot / "model.safetensors")) == ["w"]


NONE = "holds no weights that can be read"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], f"{{}}: {NONE}: expected a .safetensors, .bin, .pt or .pth file"),
        (
            ["config.json", "training_args.bin", "optimizer.pt", "rng_state_0.pth"],
            f"{{}}: {NONE}: expected a .safetensors, .bin, .pt or .pth file",
        ),
        (
            ["model.Q4_K_M.gguf"],
            f'{{}}: {NONE}, but "model.Q4_K_M.gguf", which is quantised, and rebuilds '
            "nothing: get the original weights",
        ),
        (
            ["flax_model.msgpack", "config.json"],
            f'{{}}: {NONE}, but "flax_model.msgpack", which is of a format that cannot be '
            "read: get the model as safetensors",
        ),
        (
            ["a.bin", "b.pt"],
            "{}: holds 2 PyTorch files and no index (a.bin, b.pt): name the file that you "
            "mean, or --exclude the others of a target",
        ),
        (
            ["pytorch_model.bin.index.json", "other.bin.index.json"],
            "{}: holds 2 checkpoints (other.bin.index.json, pytorch_model.bin.index.json): "
            "name the index of the one you mean",
        ),
        (
            ["a.safetensors", "b.safetensors"],
            "{}: holds 2 safetensors files and no index (a.safetensors, b.safetensors): "
            "name the file that you mean, or "
            "--exclude the others of a target",
        ),
        (
            [f"{letter}.safetensors" for letter in "abcde"],
            "{}: holds 5 safetensors files and no index (a.safetensors, b.safetensors, "
            "c.safetensors, d.safetensors, …): name the file that you mean, or "
            "--exclude the others of a target",
        ),
        (
            [SHARD_1, SHARD_2, "model.safetensors"],
            f"{{}}: holds 3 safetensors files and no index ({SHARD_1}, {SHARD_2}, "
            "model.safetensors): name the file that you mean, or "
            "--exclude the others of a target",
        ),
        (
            [SHARD_1, "other-00002-of-00002.safetensors"],
            f"{{}}: holds 2 safetensors files and no index ({SHARD_1}, "
            "other-00002-of-00002.safetensors): name the file that you mean, or "
            "--exclude the others of a target",
        ),
        (
            [INDEX, "other.safetensors.index.json"],
            f"{{}}: holds 2 checkpoints ({INDEX}, other.safetensors.index.json): name the "
            "index of the one you mean",
        ),
    ],
)
def test_none_or_several_checkpoints_are_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    folder(tmp_path, {n: tensor(n) if n.endswith(WEIGHTS) else b"x" for n in files})
    with pytest.raises(UsageError) as caught:
        find(tmp_path)
    assert str(caught.value) == message.format(tmp_path)


FILES = "a .safetensors, .bin, .pt or .pth file, its index, or a folder of them"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("nothing", "no such file or folder"),
        ("broken.safetensors", "no such file or folder"),
        ("index.json", f"expected {FILES}"),
        (
            "weights.gguf",
            "is quantised, and rebuilds nothing: get the original weights",
        ),
        ("flax.h5", "is of a format that cannot be read: get the model as safetensors"),
    ],
)
def test_other_paths_are_refused(tmp_path: Path, name: str, fault: str) -> None:
    folder(tmp_path, {"weights.gguf": b"x", "index.json": b"{}", "flax.h5": b"x"})
    (tmp_path / "broken.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError) as caught:
        find(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {fault}"


@pytest.mark.parametrize(
    ("numbers", "found", "missing"),
    [([1], 1, 2), ([2], 1, 1), ([1, 3], 2, 2)],
)
def test_a_family_with_a_gap_is_refused(
    tmp_path: Path, numbers: list[int], found: int, missing: int
) -> None:
    count = 2 if numbers[-1] < 3 else 3
    names = [f"model-{i:05}-of-{count:05}.safetensors" for i in numbers]
    folder(tmp_path, {name: tensor(name) for name in names})
    with pytest.raises(FormatError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected {count} shards, found {found}: "
        f'"model-{missing:05}-of-{count:05}.safetensors" is missing'
    )


def test_a_shard_beyond_the_count_does_not_stand_for_a_missing_one(tmp_path: Path) -> None:
    folder(tmp_path, {SHARD_1: tensor("a"), "model-00003-of-00002.safetensors": tensor()})
    with pytest.raises((FormatError, UsageError)):
        find(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (index(), "weight_map: expected at least one tensor"),
        (
            index(w="gone.safetensors"),
            'weight_map: shard "gone.safetensors" is missing',
        ),
        (index(w="sub"), 'weight_map: shard "sub" is missing'),
        (
            index(w="../b.safetensors"),
            'weight_map: path "../b.safetensors" has a ".." segment',
        ),
        (
            index(w="/b.safetensors"),
            'weight_map: path "/b.safetensors" is absolute; expected one relative to the '
            "release",
        ),
        (
            index(w="b.safetensors\n"),
            r'weight_map: path "b.safetensors\n" holds the control character U+000A',
        ),
        ({"weight_map": {"w": 1}}, "weight_map.w: expected a string, found 1"),
        ({"weight_map": []}, "weight_map: expected an object, found an array of 0"),
        ({"metadata": {}}, 'missing field "weight_map"'),
        ([], "expected an object, found an array of 0"),
        (b'{"weight_map": {"w": "a", "w": "b"}}', 'key "w" appears twice'),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"", "not valid JSON: Expecting value at line 1, column 1 (byte 0)"),
    ],
)
def test_a_bad_index_is_refused(tmp_path: Path, content: object, message: str) -> None:
    folder(tmp_path, {"b.safetensors": tensor(), "m/sub/x": b""})
    folder(tmp_path / "m", {INDEX: content, "a.safetensors": tensor()})
    with pytest.raises(FormatError) as caught:
        find(tmp_path / "m")
    assert str(caught.value) == f"{tmp_path / 'm' / INDEX}: {message}"


def test_other_fields_of_an_index_are_its_writers_business(tmp_path: Path) -> None:
    folder(tmp_path, {INDEX: index(w="a.safetensors") | {"x": [1.5, None]}})
    folder(tmp_path, {"a.safetensors": tensor()})
    assert list(opened(tmp_path)) == ["w"]


@pytest.mark.parametrize(
    ("weight_map", "fault"),
    [
        (
            {"a": SHARD_1, "b": SHARD_2, "c": SHARD_2},
            f'tensor "c" is not in {SHARD_2}',
        ),
        (
            {"a": SHARD_2, "b": SHARD_1},
            f'tensor "a": expected in {SHARD_2}, found in {SHARD_1}',
        ),
        (
            {"a": SHARD_1, "x": SHARD_2},
            f'tensor "x" is not in {SHARD_2}',
        ),
    ],
)
def test_an_index_that_its_shards_contradict_is_refused(
    tmp_path: Path, weight_map: dict[str, str], fault: str
) -> None:
    folder(tmp_path, {SHARD_1: tensor("a"), SHARD_2: tensor("b")})
    folder(tmp_path, {INDEX: index(**weight_map)})
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == f"{tmp_path / INDEX}: weight_map: {fault}"


def test_a_tensor_that_the_index_does_not_list_is_refused(tmp_path: Path) -> None:
    both = tensor("a") | tensor("b")
    folder(tmp_path, {"x.safetensors": both, INDEX: index(a="x.safetensors")})
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == (
        f'{tmp_path / INDEX}: weight_map: tensor "b" of x.safetensors is not listed'
    )


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {SHARD_1: tensor("w"), SHARD_2: tensor("w")})
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == (
        f'{tmp_path}: tensor "w" stands in two files, {SHARD_1} and {SHARD_2}'
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            POINTER,
            "is a Git LFS pointer, not the weights: run `git lfs pull`, or download the "
            "file itself",
        ),
        (
            b"<!DOCTYPE html>\n<html><title>404</title>",
            "is an HTML page, not weights: the download answered with an error; download "
            "the file again",
        ),
        (
            b"\n <HTML lang=en>",
            "is an HTML page, not weights: the download answered with an error; download "
            "the file again",
        ),
        (b"", "expected a header length of 8 bytes, found a file of 0 bytes"),
        (
            safetensors_bytes(tensor())[:20],
            "header length: expected at most 12, the bytes that follow it, found 56; the "
            "file may be cut short",
        ),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", SHARD_2])
def test_what_is_not_the_weights_is_named(
    tmp_path: Path, content: bytes, fault: str, name: str
) -> None:
    folder(tmp_path, {name: content})
    if name == SHARD_2:
        folder(tmp_path, {SHARD_1: tensor("a"), INDEX: index(a=SHARD_1, w=SHARD_2)})
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == f"{tmp_path / name}: {fault}"


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises((UsageError, FormatError, OSError)) as caught:
        open_checkpoint(tmp_path)
    error = caught.value
    named = str(error.filename) if isinstance(error, OSError) else str(error)
    assert str(tmp_path) in named


@pytest.mark.parametrize("byte", [2, 255])
def test_a_bool_is_0_or_1(tmp_path: Path, byte: int) -> None:
    data = bytes([0, 1, byte, 1])
    model_folder(tmp_path, {"good": ("BOOL", [2], b"\0\1"), "bad": ("BOOL", [4], data)})
    with open_checkpoint(tmp_path) as checkpoint:
        checkpoint.read("good", 0, np.empty(2, np.uint8))
        checkpoint.read("bad", 0, np.empty(2, np.uint8))
        with pytest.raises(FormatError) as caught:
            checkpoint.read("bad", 1, np.empty(3, np.uint8))
    assert str(caught.value) == (
        f'{tmp_path / "model.safetensors"}: tensor "bad": expected BOOL bytes 0 or 1, '
        f"found {byte}"
    )


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"w": ("U8", [100], bytes(100))}))
    with open_checkpoint(path) as checkpoint:
        start = path.stat().st_size - 100
        with path.open("r+b") as file:
            file.truncate(start + 30)
        with pytest.raises(IntegrityError) as caught:
            checkpoint.read("w", 10, np.empty(90, np.uint8))
    assert str(caught.value) == (
        f"{path}: ends at byte {start + 30}, 70 bytes before its tensor does: the file was "
        "cut short while it was in use"
    )


def test_ranges_of_a_tensor_are_read(tmp_path: Path) -> None:
    data = bytes(range(100))
    model_folder(tmp_path, {"a": ("U8", [3], b"abc"), "w": ("U8", [10, 10], data)})
    with open_checkpoint(tmp_path) as checkpoint:
        for start, stop in [(0, 100), (0, 0), (100, 100), (17, 93)]:
            out = np.empty(stop - start, np.uint8)
            checkpoint.read("w", start, out)
            assert out.tobytes() == data[start:stop]
        for start, size in [(-1, 1), (0, 101), (100, 1)]:
            with pytest.raises(ValueError, match="are outside it"):
                checkpoint.read("w", start, np.empty(size, np.uint8))


def test_files_are_closed_when_opening_fails(tmp_path: Path) -> None:
    def lowest_free() -> int:
        fd = os.open(os.devnull, os.O_RDONLY)
        os.close(fd)
        return fd

    folder(tmp_path, {SHARD_1: tensor("w"), SHARD_2: b"x"})
    before = lowest_free()
    with pytest.raises(FormatError):
        open_checkpoint(tmp_path)
    assert lowest_free() == before
