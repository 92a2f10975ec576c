"""TOML that people write: what is read, what is refused, and in which words."""

import pytest

from releasekit.errors import FormatError
from releasekit.stricttoml import MAX_NBYTES, loads


def test_values_are_those_of_json() -> None:
    document = b"""
flag = true
number = 3
share = 0.5
text = "gr\xc3\xb6\xc3\x9fe"
day = 2023-07-18
moment = 2023-07-18T10:00:00+02:00
local = 2023-07-18 10:00:00
clock = 10:00:00.5
list = [1, [2.5, "x"], {a = 1979-05-27}]
[table.inner]
b = false
[[tables]]
c = 1
"""
    assert loads(document, "x.toml") == {
        "flag": True,
        "number": 3,
        "share": 0.5,
        "text": "größe",
        "day": "2023-07-18",
        "moment": "2023-07-18T10:00:00+02:00",
        "local": "2023-07-18T10:00:00",
        "clock": "10:00:00.500000",
        "list": [1, [2.5, "x"], {"a": "1979-05-27"}],
        "table": {"inner": {"b": False}},
        "tables": [{"c": 1}],
    }


@pytest.mark.parametrize("document", [b"", b"# nothing\n", b"\xef\xbb\xbf"])
def test_a_document_may_be_empty(document: bytes) -> None:
    assert loads(document, "x.toml") == {}


def test_the_mark_of_windows_editors_is_passed_over() -> None:
    assert loads(b"\xef\xbb\xbfa = 1\r\n", "x.toml") == {"a": 1}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            b"a",
            "not valid TOML: Expected '=' after a key in a key/value pair (at end of "
            "document)",
        ),
        (b"a = 1\na = 2", "not valid TOML: Cannot overwrite a value (at end of document)"),
        (
            b"a = 1\x00",
            "not valid TOML: Expected newline or end of document after a "
            "statement (at line 1, column 6)",
        ),
        (
            b'a = "\\ud800"',
            "not valid TOML: Escaped character is not a Unicode scalar "
            "value (at line 1, column 12)",
        ),
        (
            b"a = 2023-02-30",
            "not valid TOML: Invalid date or datetime (at line 1, column 5)",
        ),
        (b"a = \xff", "not UTF-8 at byte 4"),
        (b"\xff\xfea\x00", "not UTF-8 at byte 0"),
        (b"a = nan", "a: expected a finite number, found nan"),
        (
            b"[a]\nb = [1, {c = [-inf]}]",
            "a.b[1].c[0]: expected a finite number, found -inf",
        ),
        (b"a = 1e999", "a: expected a finite number, found inf"),
        (b"a = " + b"[" * 2000, "nested too deeply"),
        (
            b"a = " + b"9" * 5000,
            "not valid TOML: Exceeds the limit (4300 digits) for integer "
            "string conversion: value has 5000 digits; use sys.set_int_max_str_digits() to "
            "increase the limit",
        ),
    ],
)
def test_what_is_not_plain_toml_is_refused(document: bytes, message: str) -> None:
    with pytest.raises(FormatError) as error:
        loads(document, "x.toml")
    assert str(error.value) == f"x.toml: {message}"


def test_a_document_has_a_largest_size() -> None:
    assert loads(b"#" * MAX_NBYTES, "x.toml") == {}
    with pytest.raises(FormatError) as error:
        loads(b"#" * (MAX_NBYTES + 1), "x.toml")
    assert str(error.value) == "x.toml: expected at most 1048576 bytes, found 1048577"
