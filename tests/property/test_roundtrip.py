"""Any small model on any base: files made, released, rebuilt and compared byte for byte."""

import math
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from releasekit import apply_delta, make_delta, open_delta, verify
from releasekit.codec import Ulp
from releasekit.tensors import DTYPES
from tests.builders import RawTensor, model_folder
from tests.property.strategies import shapes, tensor_names

Model = dict[str, RawTensor]

KINDS: Final = (
    *("same", "changed", "other", "dtype", "rows"),
    *("new", "dropped", "alias", "large"),
)
FLOATS: Final = ["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"]
_WORDS: Final = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def filled(source: np.random.Generator, label: str, shape: tuple[int, ...]) -> RawTensor:
    """A tensor of random bits, or of numbers as weights have them."""
    size = math.prod(shape) * DTYPES[label].bits // 8
    if label == "BOOL":
        return label, shape, source.integers(0, 2, size, np.uint8).tobytes()
    if label in {"BF16", "F32"} and source.random() < 0.7:
        values = (source.standard_normal(math.prod(shape)) * 0.02).astype(np.float32)
        words = values.view(np.uint32)
        if label == "BF16":
            return label, shape, (words >> np.uint32(16)).astype(np.uint16).tobytes()
        return label, shape, words.tobytes()
    return label, shape, source.bytes(size)


def nudged(source: np.random.Generator, tensor: RawTensor) -> RawTensor:
    """The tensor with some of its words one step away."""
    label, shape, data = tensor
    if label == "BOOL":
        return label, shape, bytes(byte ^ (source.random() < 0.1) for byte in data)
    words: Any = np.frombuffer(data, _WORDS[DTYPES[label].word.bits])
    return (
        label,
        shape,
        (words + (source.random(words.size) < 0.2)).astype(words.dtype).tobytes(),
    )


def resized(source: np.random.Generator, tensor: RawTensor, rows: int) -> RawTensor:
    """The tensor with another number of rows, the common ones equal."""
    label, shape, data = tensor
    new = filled(source, label, (rows, *shape[1:]))
    return label, new[1], data[: len(new[2])] + new[2][len(data) :]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Model, Model]:
    """A base and a target, related tensor by tensor in every way that is handled."""
    source = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    base: Model = {}
    target: Model = {}
    for name in draw(st.lists(tensor_names, min_size=1, max_size=7, unique=True)):
        dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
        tensor = filled(source, dtype.label, draw(shapes(dtype)))
        match draw(st.sampled_from(KINDS)):
            case "same":
                base[name] = target[name] = tensor
            case "changed":
                base[name], target[name] = tensor, nudged(source, tensor)
            case "other":
                base[name], target[name] = tensor, filled(source, tensor[0], (8,))
            case "dtype":
                labels = draw(st.tuples(*[st.sampled_from(FLOATS)] * 2))
                shape = draw(shapes(dtype))
                base[name], target[name] = (filled(source, x, shape) for x in labels)
            case "rows":
                rows, more = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
                base[name] = filled(source, dtype.label, (rows, 8))
                target[name] = resized(source, base[name], more)
            case "new":
                target[name] = tensor
            case "dropped":
                base[name] = tensor
            case "alias":
                target[name] = target.get(draw(st.sampled_from([*target, ""])), tensor)
            case "large":  # of several chunks
                base[name] = filled(source, "BF16", (draw(st.integers(30, 60)), 70))
                target[name] = nudged(source, base[name])
    if not target:
        target["w"] = filled(source, "F16", ())
    return base, target


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@settings(max_examples=settings().max_examples // 2)
@given(pair=pairs(), data=st.data())
def test_files_are_rebuilt_byte_for_byte(
    pair: tuple[Model, Model], data: st.DataObject
) -> None:
    base, target = pair

    def shards(model: Model) -> int:
        return data.draw(st.integers(1, max(1, min(3, len(model)))))

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model_folder(root / "base", base, shards=shards(base))
        model_folder(root / "other base", dict(reversed(base.items())), shards=shards(base))
        model_folder(root / "target", target, shards=shards(target), metadata={"é": "\n"})
        (root / "target" / "config.json").write_bytes(b"\xff\0 any bytes")
        codec = Ulp(chunk=1024)
        made = make_delta(
            root / "base",
            root / "target",
            root / "delta",
            codec=codec,
            shard_nbytes=data.draw(st.sampled_from([1, 3000, 10**9])),
            threads=2,
        )
        assert made.tensors.keys() == base.keys() | target.keys()
        assert {name for name, op in made.tensors.items() if op == "dropped"} == (
            base.keys() - target.keys()
        )
        assert verify(root / "delta").ok
        rebuilt = apply_delta(root / "other base", root / "delta", root / "out", threads=2)
        assert contents(root / "out") == contents(root / "target")
        assert rebuilt.identity == made.target_identity
        assert verify(root / "out", against=root / "delta").ok


@settings(max_examples=settings().max_examples // 10)
@given(pair=pairs())
def test_memory_is_rebuilt_byte_for_byte(pair: tuple[Model, Model]) -> None:
    base, target = pair
    # torch has no dtypes of six bits, and the shapes of the four-bit one differ.
    target = {
        name: tensor for name, tensor in target.items() if tensor[0][:2] not in {"F4", "F6"}
    }
    target["w"] = ("BF16", (), b"xy")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model_folder(root / "base", base)
        model_folder(root / "target", target)
        make_delta(root / "base", root / "target", root / "delta", codec=Ulp(chunk=1024))
        with open_delta(root / "delta", root / "base") as delta:
            state = delta.state_dict()
    assert state.keys() == target.keys()
    for name, (_, shape, content) in target.items():
        assert tuple(state[name].shape) == tuple(shape)
        assert bytes(state[name].reshape(-1).untyped_storage()) == content
