"""Every parser, on any bytes: it returns a value, or raises FormatError, nothing else.

What is not refused must also be right: the stock reader has to see the same tensors, and
the standard JSON parser the same value.
"""

import json
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import TypeVar
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.errors import FormatError
from releasekit.layout import Layout, header_length, parse
from releasekit.names import refuse_clashes, safe_path, tensor_name
from releasekit.strictjson import Record, dumps, loads
from releasekit.sums import format_sums, parse_sums
from tests.builders import safetensors_bytes, stock_tensors
from tests.fuzz import mutation

SAFETENSORS = safetensors_bytes(
    {
        "a": ("BF16", [2, 3], bytes(range(12))),
        "größe": ("F32", [], b"wxyz"),
        "e": ("F4", [0, 4], b""),
        "b/c": ("U8", [2], b"!!"),
    },
    {"format": "pt", "k": 'é"\\'},
)
JSON = (
    b'{"name": "x\\u00e9\\ud83d\\ude00", "files": [{"size": 12, "path": "a/b"}, {}],\n'
    b' "rate": -1.5e3, "ok": [true, false, null, 0, [[]]], "\\"": "\\\\"}'
)
SUMS = f"{'0a' * 32}  a b\n{'f' * 64} *größe/x\n{'1' * 64}  c.json\n".encode()

T = TypeVar("T")

# What faults are made of: syntax, escapes, and numbers at the edges.
TOKENS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b" ", b"\n", b"\r\n", b"\0", b"-"),
    *(b"0", b"-0", b"1.0", b"1e999", b"18446744073709551616", b"9" * 25, b"NaN", b"null"),
    *(b"\\u0061", b"\\ud800", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff", "é".encode()),
    *(
        b"../",
        b"/",
        b"__metadata__",
        b"dtype",
        b"[" * 70,
        b'{"a":' * 70,
        b"  ",
        b"e\xcc\x81",
    ),
]


mutated = partial(mutation.mutated, tokens=TOKENS)


def attempt(call: Callable[[], T]) -> T | None:
    """Returns what `call` returns, or None if it refuses in words fit for a terminal."""
    try:
        return call()
    except FormatError as error:
        message = str(error)
    assert message.startswith("x: ")
    assert message.isprintable()
    return None


def read(file: bytes) -> Layout:
    length = header_length(file[:8], len(file), "x")
    return parse(file[8 : 8 + length], len(file), "x")


def check_safetensors(file: bytes) -> None:
    layout = attempt(lambda: read(file))
    if layout is None:
        return
    assert layout.file_size == len(file)
    data = file[layout.data_start :]
    assert stock_tensors(file) == {
        placed.spec.name: (
            placed.spec.dtype.label,
            placed.spec.shape,
            data[placed.begin : placed.end],
        )
        for placed in layout.tensors
    }


@given(st.binary(max_size=64))
def test_safetensors_of_any_bytes(file: bytes) -> None:
    check_safetensors(file)


@given(mutated(SAFETENSORS))
def test_safetensors_mutated(file: bytes) -> None:
    check_safetensors(file)


@given(mutated(SAFETENSORS[8:-18]))
def test_safetensors_with_a_mutated_header_of_right_length(header: bytes) -> None:
    check_safetensors(len(header).to_bytes(8, "little") + header + SAFETENSORS[-18:])


@given(st.binary(max_size=64), st.integers(-1, 2**64))
def test_header_of_any_bytes_in_a_file_of_any_size(header: bytes, size: int) -> None:
    attempt(lambda: header_length(header, size, "x"))
    attempt(lambda: parse(header, size, "x"))


def check_json(data: bytes) -> None:
    wrapped = attempt(lambda: [loads(data, "x")])
    if wrapped is not None:
        assert wrapped == [json.loads(data)]
        assert wrapped == [loads(dumps(*wrapped), "x")]


@given(
    st.binary(max_size=64) | st.text('[]{}",:\\u0d8e1.-+ \n', max_size=64).map(str.encode)
)
def test_json_of_any_bytes(data: bytes) -> None:
    check_json(data)


@given(mutated(JSON))
def test_json_mutated(data: bytes) -> None:
    check_json(data)


def check_sums(data: bytes) -> None:
    digests = attempt(lambda: parse_sums(data, "x"))
    if digests is not None:
        assert parse_sums(format_sums(digests), "x") == digests


@given(st.binary(max_size=200))
def test_sums_of_any_bytes(data: bytes) -> None:
    check_sums(data)


@given(mutated(SUMS))
def test_sums_mutated(data: bytes) -> None:
    check_sums(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
READS: list[Callable[[Record, str], object]] = [
    Record.text,
    Record.optional_text,
    Record.integer,
    Record.optional_integer,
    Record.boolean,
    lambda record, key: record.choice(key, {"a", "b"}),
    Record.hex_digest,
    Record.integers,
    Record.texts,
    Record.record,
    Record.optional_record,
    Record.records,
    lambda record, key: record.close(),
]


@given(value=VALUES, key=st.text(st.characters(), max_size=3), data=st.data())
def test_record_of_any_value(value: object, key: str, data: st.DataObject) -> None:
    read_field = data.draw(st.sampled_from(READS))
    fields = data.draw(st.sampled_from([value, {key: value}]))
    attempt(lambda: read_field(Record(fields, "x"), key))


@pytest.mark.parametrize("check", [safe_path, tensor_name])
@given(name=st.text(st.characters() | st.sampled_from("./\\: \0\u202eA"), max_size=20))
def test_names_of_any_text(check: Callable[[str, str], str], name: str) -> None:
    assert attempt(lambda: check(name, "x")) in {name, None}


@given(st.lists(st.text("aAéE\u0301ßS/", min_size=1, max_size=4), max_size=5))
def test_clashes_are_those_of_any_two(names: list[str]) -> None:
    def folded(name: str) -> str:
        return normalize("NFC", normalize("NFD", name).casefold())

    clash = any(
        f"{folded(one)}/".startswith(f"{folded(other)}/")
        for one, other in permutations(names, 2)
    )

    def passes() -> bool:
        refuse_clashes(names, "x")
        return True

    assert attempt(passes) is (None if clash else True)
