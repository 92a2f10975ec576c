"""PyTorch files of any bytes: the right tensors, or an error of ours, and soon.

Where torch reads a file too, it must read the same. Python's own unpickler must agree on
pickles that import nothing.
"""

from __future__ import annotations

import io
import pickle as stock
import string
import struct
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from releasekit.checkpoint.pytorch import PyTorchCheckpoint
from releasekit.checkpoint.torchfile.pickled import kind_of
from releasekit.checkpoint.torchfile.pickles import load
from releasekit.checkpoint.torchfile.statedict import state_dict
from releasekit.errors import FormatError, IntegrityError
from tests.torchfiles import (
    FALSE,
    MAGIC,
    NONE,
    ORDERED,
    call,
    dict_of,
    list_of,
    name,
    number,
    pickle,
    storage,
    tensor,
    text,
    tuple_of,
    zip_file,
)

SECONDS = 2.0  # a small file takes thousandths; a busy machine is not a failing test


def saved(zipped: bool, protocol: int) -> bytes:
    data = torch.arange(12.0)
    tensors = {
        "w": data.reshape(3, 4).T,
        "v": data[2:5],
        "h": torch.ones(3).half(),
        "u": torch.arange(4, dtype=torch.int32).to(torch.uint16),
        "b": torch.tensor([True, False]),
        "e": torch.empty(2, 0),
        "p": torch.nn.Parameter(torch.ones(1)),
    }
    made = io.BytesIO()
    torch.save(
        tensors, made, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol
    )
    return made.getvalue()


FILES = {
    (zipped, protocol): saved(zipped, protocol)
    for zipped in (True, False)
    for protocol in (2, 4)
}
# What faults are made of: opcodes, names, lengths and records at the edges.
TOKENS = [
    *(bytes([opcode]) for opcode in b"(.0125BCGIJKLMNOPQRSTUVXabcdehijlopqrstu]}"),
    *(
        b"\x80\x02",
        b"\x81",
        b"\x85",
        b"\x86",
        b"\x8a\x01\xff",
        b"\x8c\x01x",
        b"\x93",
        b"\x94",
    ),
    *(
        b"\x95" + bytes(8),
        b"\x8d" + b"\xff" * 8,
        b"r\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff",
    ),
    *(name("posix", "system"), name("torch", "FloatStorage"), ORDERED, storage(), tensor()),
    *(number(-1), number(2**62), tuple_of(), tuple_of(number(2), number(3)), text("0")),
    *(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", MAGIC),
    *(b"\xff" * 4, b"\xff" * 2, b"\0" * 4, b"\0" * 8, b"\x08\0", b"\x01\0", b"m/data.pkl"),
]


@st.composite
def mutated(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """Bytes of a file after a few cuts, copies and insertions, or overwritten in place."""
    data = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["token", "bytes", "copy", "bit", "bit", "bit"]))
        if kind == "token":
            new = draw(st.sampled_from(TOKENS))
        elif kind == "bytes":
            new = draw(st.binary(max_size=4))
        elif kind == "copy":
            start = draw(st.integers(0, len(data)))
            new = data[start : start + draw(st.integers(0, 60))]
        else:
            new = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[begin:][:1])
        taken = len(new) if kind == "bit" else draw(st.sampled_from([0, len(new), 1, 30]))
        data = data[:begin] + new + data[begin + taken :]
    return data


@contextmanager
def in_time() -> Iterator[None]:
    began = time.perf_counter()
    yield
    assert time.perf_counter() - began < SECONDS


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "m.bin"


def ours(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]] | None:
    """Shapes and bytes by name; None if the file is refused in words fit for a terminal."""
    try:
        with in_time(), PyTorchCheckpoint.open_files("x", path.parent, [path.name]) as file:
            read = {}
            for key, spec in file.specs.items():
                if spec.nbytes > 1 << 20:  # a few numbers, expanded
                    continue
                out = np.empty(spec.nbytes, np.uint8)
                file.read(key, 0, out)
                read[key] = (spec.shape, out.tobytes())
            return read
    except (FormatError, IntegrityError) as error:
        message = str(error)
    assert message.startswith((f"{path}: ", "x: "))
    assert message.isprintable()
    return None


def raw(value: torch.Tensor) -> bytes:
    flat = value.detach().contiguous().reshape(-1)
    data: bytes = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return data


def theirs(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]] | None:
    """What torch reads, if it does; it has many ways of saying no."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, weights_only=True)
        return {
            key: (tuple(value.shape), raw(value))
            for key, value in loaded.items()
            if value.nbytes <= 1 << 20
        }
    except Exception:
        return None


def check(path: Path, file: bytes) -> None:
    path.write_bytes(file)
    found = ours(path)
    if found is None:
        return
    expected = theirs(path)
    assert expected is None or found == expected


def test_the_files_that_are_mutated_are_read_by_both(path: Path) -> None:
    for (zipped, protocol), file in FILES.items():
        path.write_bytes(file)
        found = ours(path)
        assert found is not None
        assert len(found) == 7
        if zipped and protocol == 2:
            assert found == theirs(path)


@given(file=st.binary(max_size=200))
def test_any_bytes(path: Path, file: bytes) -> None:
    check(path, file)


@pytest.mark.parametrize("start", [b"PK\x03\x04", MAGIC, b"\x80\x02"])
@given(rest=st.binary(max_size=200))
def test_any_bytes_after_the_first(path: Path, start: bytes, rest: bytes) -> None:
    check(path, start + rest)


@given(file=mutated(list(FILES.values())))
def test_mutated_files(path: Path, file: bytes) -> None:
    check(path, file)


LONE = pickle(dict_of({"w": tensor(b"", 0, (2, 2), (1, 2)), "v": tensor(b"", 3, (), ())}))


@given(made=mutated([LONE]), data=st.binary(min_size=16, max_size=16))
def test_mutated_pickles_in_a_file_that_is_whole(
    path: Path, made: bytes, data: bytes
) -> None:
    check(path, zip_file(made, {"0": data}))


@given(file=mutated([FILES[True, 2][FILES[True, 2].index(b"PK\x01\x02") :]]))
def test_mutated_directories(path: Path, file: bytes) -> None:
    whole = FILES[True, 2]
    check(path, whole[: whole.index(b"PK\x01\x02")] + file)


@given(
    at=st.integers(0, 2**64 - 1), size=st.integers(0, 2**64 - 1), count=st.integers(0, 9)
)
def test_large_directories_anywhere(path: Path, at: int, size: int, count: int) -> None:
    file = FILES[True, 2]
    place = file.index(b"PK\5\6")
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)
    end += struct.pack("<4sIQI", b"PK\6\7", 0, place, 1)
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *(0xFFFF,) * 2, *(2**32 - 1,) * 2, 0)
    check(path, file[:place] + end)


# Tensors of all kinds: what is accepted lies in its storage.

SMALL = st.integers(0, 4)
ODD = SMALL | st.sampled_from([-1, 2**31, 2**62, 2**63 - 1, -(2**63)])
STEPS = st.tuples(SMALL, SMALL) | st.tuples(ODD, ODD)


@given(numel=st.integers(0, 20), offset=ODD, steps=st.lists(STEPS, max_size=3), more=SMALL)
def test_tensors_of_any_sizes(
    path: Path, numel: int, offset: int, steps: list[tuple[int, int]], more: int
) -> None:
    shape = tuple(size for size, _ in steps)
    strides = tuple(stride for _, stride in steps) + (1,) * (more // 4)
    value = tensor(storage("FloatStorage", "0", numel), offset, shape, strides)
    check(path, zip_file(pickle(dict_of({"w": value})), {"0": bytes(range(4 * numel))}))


# Pickles alone.

PARTS = st.sampled_from(
    [
        *(FALSE, NONE, ORDERED, b"}", b"]", b")", text("a"), text("b"), number(7)),
        *(storage(), storage(numel=5), tensor(), list_of(NONE), dict_of({"a": NONE})),
        *(b"(", b"t", b"e", b"u", b"s", b"a", b"b", b"R", b"Q", b"\x85", b"\x86", b"\x87"),
        *(b"q\0", b"q\1", b"h\0", b"h\1", b"\x94", b"\x93", name("torch", "Size")),
        *(name("torch._utils", "_rebuild_parameter"), name("torch", "float32")),
        *(name("torch._utils", "_rebuild_tensor_v2"), name("torch", "Tensor")),
        call(name("torch._utils", "_rebuild_parameter"), tensor(), FALSE, ORDERED),
        name("torch._tensor", "_rebuild_from_type_v2"),
    ]
)


@given(parts=st.lists(PARTS, max_size=30))
def test_any_opcodes(parts: list[bytes]) -> None:
    for value in (b"".join(parts), dict_of({"w": b"".join(parts)})):
        with in_time():
            message = complaint(pickle(value))
        assert message.startswith("x: ") or not message
        assert message.isprintable()


def complaint(data: bytes) -> str:
    """Why a pickle is refused; nothing if it is not."""
    try:
        loaded = load(data, "x")
        assert kind_of(loaded.value)
        state_dict(loaded, "x")
    except FormatError as error:
        return str(error)
    return ""


#: Opcodes that import nothing and call nothing, and what may follow them.
PLAIN = st.sampled_from(
    [bytes([opcode]) for opcode in b"()]}NaesutKMJGqhrjXUT\x85\x86\x87\x88\x89\x8a\x8c\x94"]
)
PIECES = st.one_of(
    PLAIN,
    PLAIN,
    st.binary(max_size=3),
    st.integers(-300, 300).map(number),
    st.text(string.ascii_letters + "é", max_size=3).map(text),
    st.sampled_from(
        [b"q\0", b"h\0", b"h\1", b"q\1", b"](", b"}(", b"\x8d\1" + bytes(7) + b"x"]
    ),
)


class Bare(stock._Unpickler):
    """Python's unpickler, which may import nothing; the fast one takes 2**32 for a size."""

    def find_class(self, module: str, name: str) -> object:
        raise stock.UnpicklingError


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**71), 2**71 - 1) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=8,
)
PROTOCOLS = st.integers(2, 5)


@given(value=VALUES, protocol=PROTOCOLS)
def test_values_are_those_of_python(value: object, protocol: int) -> None:
    assert repr(load(stock.dumps(value, protocol), "x").value) == repr(value)


@st.composite
def plain_pickles(draw: st.DrawFn) -> bytes:
    """Pickles that import nothing: of pieces, or of values and then mutated."""
    if draw(st.booleans()):
        return pickle(b"".join(draw(st.lists(PIECES, max_size=25))))
    return draw(mutated([stock.dumps(draw(VALUES), draw(PROTOCOLS))]))


@given(data=plain_pickles())
def test_pickles_that_import_nothing_are_those_of_python(data: bytes) -> None:
    try:
        ours = load(data, "x")
    except FormatError:
        return
    try:
        theirs = Bare(io.BytesIO(data)).load()
    except stock.UnpicklingError as error:
        if "frame" in str(error):  # their lengths do not matter to the fast unpickler
            return
        raise
    assert repr(ours.value) == repr(theirs)
