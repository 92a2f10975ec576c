"""Numbers of bytes, as people write them and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.sizes import parse, shown


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1", 1),
        ("1B", 1),
        ("0", 0),
        ("2GB", 2 * 10**9),
        ("2 gb", 2 * 10**9),
        ("2g", 2 * 10**9),
        (" 2GiB ", 2 << 30),
        ("500MiB", 500 << 20),
        ("1.5kB", 1500),
        ("1.5KiB", 1536),
        ("1TB", 10**12),
        # No float is either of these.
        ("1.001GB", 1_001_000_000),
        ("4.35TB", 4_350_000_000_000),
        ("0.0019kB", 1),
        ("9223372036854775807", None),
        ("999999999999999", 999_999_999_999_999),
        ("9223372.036854775TB", 9_223_372_036_854_775_000),
        ("9223372.036854776TB", None),
        ("8388608TiB", None),
    ],
)
def test_sizes_are_read(text: str, nbytes: int | None) -> None:
    assert parse(text) == nbytes


@pytest.mark.parametrize(
    "text",
    [
        *("", "B", "GB", "-1GB", "+1", "1e9", "1,5GB", ".5GB", "1.GB", "1 0", "0x10"),
        *("2PB", "2iB", "2GBs", "2Gb/s", "nan", "inf", "1_000", "2\0", "2GB\n3"),
        "\u0662GB",  # a digit two in Arabic
        "2\u212a",  # the sign of the kelvin, which folds to K
        "2G\u0131B",  # an i without its dot, which folds to I
    ],
)
def test_what_is_no_size_is_none(text: str) -> None:
    assert parse(text) is None


@given(st.text())
def test_any_text_is_a_size_or_none(text: str) -> None:
    found = parse(text)
    assert found is None or 0 <= found < 2**63


@given(st.integers(0, 2**63 - 1), st.sampled_from(["", "k", "M", "G", "T"]))
def test_whole_numbers_are_exact(number: int, prefix: str) -> None:
    nbytes = number * 1000 ** ("", "k", "M", "G", "T").index(prefix)
    expected = nbytes if number < 10**15 and nbytes < 2**63 else None
    assert parse(f"{number}{prefix}B") == expected


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_310_000_000, "1.31 GB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (13_476_839_424, "13.5 GB"),
        (1_500 * 10**12, "1.5 PB"),
        (2**63, "9.22 EB"),
    ],
)
def test_sizes_are_shown_with_three_digits(nbytes: int, text: str) -> None:
    assert shown(nbytes) == text


@given(st.integers(0, 2**63 - 1))
def test_what_is_shown_is_what_is_read_to_half_a_percent(nbytes: int) -> None:
    text = shown(nbytes)
    number, unit = text.split()
    read = float(number) * 1000 ** ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert read == pytest.approx(nbytes, rel=0.005001)
    assert "e" not in number
