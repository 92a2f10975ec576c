"""SHA256SUMS: both directions from one table, the real sha256sum, and each refusal."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from releasekit.errors import FormatError
from releasekit.sums import format_sums, parse_sums

A = "a" * 64
B = "0123456789abcdef" * 4
EXPECTED = "expected 64 lowercase hexadecimal digits, two spaces and a path, found"

ROUND_TRIPS = [
    ({"x": A}, f"{A}  x\n"),
    (
        {"README.md": B, "target/config.json": A},
        f"{B}  README.md\n{A}  target/config.json\n",
    ),
    ({"a b": A, "größe": B, " c": A}, f"{A}   c\n{A}  a b\n{B}  größe\n"),
    ({"*x": A}, f"{A}  *x\n"),
    # By code point, which is the order of the bytes too.
    ({"\U00010000": A, "\uffee": B}, f"{B}  \uffee\n{A}  \U00010000\n"),
]


@pytest.mark.parametrize(("digests", "text"), ROUND_TRIPS)
def test_round_trip(digests: dict[str, str], text: str) -> None:
    assert format_sums(digests) == text.encode()
    parsed = parse_sums(text.encode(), "SHA256SUMS")
    assert parsed == digests
    assert list(parsed) == sorted(digests)


def test_binary_marks_and_any_order_are_read() -> None:
    text = f"{A} *x\n{B}  a\n{B} * y\n"
    assert parse_sums(text.encode(), "S") == {"x": A, "a": B, " y": B}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "S: is empty; expected a line for each file"),
        (
            b"\xef\xbb\xbf" + f"{A}  x\n".encode(),
            "S: begins with a byte order mark; expected none",
        ),
        (f"{A}  x\n{A}  \xff\n".encode("latin-1"), "S: line 2: not UTF-8"),
        (
            f"{A}  x\n{A}  y".encode(),
            "S: line 2: expected an end of line, found the end of the file; "
            "it may be cut short",
        ),
        (
            f"{A}  x\n\n".encode(),
            f'S: line 2: {EXPECTED} ""',
        ),
        (
            f"{A} x\n".encode(),
            f'S: line 1: {EXPECTED} "{"a" * 59}…"',
        ),
        (
            f"{A[:-1]}  x\n".encode(),
            f'S: line 1: {EXPECTED} "{"a" * 59}…"',
        ),
        (
            f"{B.upper()}  x\n".encode(),
            f'S: line 1: {EXPECTED} "{B.upper()[:59]}…"',
        ),
        (
            f"\\{A}  a\\nb\n".encode(),
            f'S: line 1: {EXPECTED} "\\\\{"a" * 58}…"',
        ),
        (
            b"# comment\n",
            f'S: line 1: {EXPECTED} "# comment"',
        ),
        (f"{A}  \n".encode(), 'S: line 1: path "" is empty'),
        (f"{A}  ../x\n".encode(), 'S: line 1: path "../x" has a ".." segment'),
        (
            f"{A}  x\r\n".encode(),
            r'S: line 1: path "x\r" holds the control character U+000D',
        ),
        (
            f"{A}  x\u2028y\n".encode(),
            r'S: line 1: path "x\u2028y" holds the control character U+2028',
        ),
        (f"{A}  x\n{A}  x\n".encode(), 'S: line 2: path "x" appears twice'),
        (
            f"{A}  x\n{A}  X\n".encode(),
            'S: paths "x" and "X" are one file '
            "where case or Unicode form is not kept apart",
        ),
        (
            f"{A}  x\n{A}  x/y\n".encode(),
            'S: path "x" is a file, and also the folder of "x/y"',
        ),
    ],
)
def test_parse_refuses(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_sums(data, "S")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("digests", "message"),
    [
        ({}, "SHA256SUMS: is empty; expected a line for each file"),
        (
            {f"x\n{A}  y": A},
            rf'SHA256SUMS: path "x\n{A}  y" holds the control character U+000A',
        ),
        (
            {"x": "A" * 64},
            f'SHA256SUMS: line 1: {EXPECTED} "{"A" * 59}…"',
        ),
        (
            {"x": A, "x/y": A},
            'SHA256SUMS: path "x" is a file, and also the folder of "x/y"',
        ),
    ],
)
def test_format_refuses_what_parse_would(digests: dict[str, str], message: str) -> None:
    with pytest.raises(FormatError) as caught:
        format_sums(digests)
    assert str(caught.value) == message


def test_sha256sum_reads_it(tmp_path: Path) -> None:
    tool = shutil.which("sha256sum") or shutil.which("gsha256sum")
    assert tool, "these tests need sha256sum, of GNU coreutils"
    files = {"a b.txt": b"one", "größe/*x": b"", "-dash": b"two"}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    (tmp_path / "SHA256SUMS").write_bytes(format_sums(digests))
    command = [tool, "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "-dash").write_bytes(b"2wo")
    result = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)
    assert result.returncode == 1
    assert b"-dash" in result.stdout
