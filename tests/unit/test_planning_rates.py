"""Rates of a machine, and the file that keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.errors import FormatError, UsageError
from releasekit.planning import rates
from releasekit.planning.rates import BUILT_IN, Rates, default_path, load, parse, save


def changed(**fields: object) -> bytes:
    """The built-in rates as a document, but for some fields."""
    return json.dumps(json.loads(BUILT_IN.pack()) | fields).encode()


@given(
    st.builds(
        Rates,
        measured=st.dates().map(lambda day: day.isoformat()),
        machine=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=200),
        **{
            name: st.floats(1e-6, 1e15)
            for name in asdict(BUILT_IN)
            if name not in ("measured", "machine")
        },
    )
)
def test_rates_come_back_as_they_were(found: Rates) -> None:
    assert parse(found.pack(), "rates.json") == found


@given(st.binary(max_size=300) | st.binary().map(lambda data: BUILT_IN.pack() + data))
def test_bytes_are_rates_or_a_format_error(data: bytes) -> None:
    try:
        found = parse(data, "rates.json")
    except FormatError:
        return
    assert parse(found.pack(), "rates.json") == found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(read=0), "read: expected a number above 0, and of at most 1e+15, found 0"),
        (
            changed(sha256=1e16),
            "sha256: expected a number above 0, and of at most 1e+15, found 1e+16",
        ),
        (changed(start="1"), 'start: expected a number, found "1"'),
        (
            changed(measured="yesterday"),
            'measured: expected a day such as 2026-11-23, found "yesterday"',
        ),
        (
            changed(measured="20261123"),
            'measured: expected a day such as 2026-11-23, found "20261123"',
        ),
        (
            changed(machine=""),
            'machine: expected a line of 1 to 200 characters, found ""',
        ),
        (changed(format="x"), 'format: expected one of "releasekit-rates/1", found "x"'),
    ],
)
def test_a_field_that_is_wrong_is_named(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(data, "rates.json")
    assert str(caught.value) == f"rates.json: {message}"


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(FormatError, match=r'^rates.json: unknown field "more"$'):
        parse(changed(more=1), "rates.json")


def test_rates_are_kept_in_the_users_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_path() == tmp_path / ".local/state/releasekit/rates.json"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default_path() == tmp_path / "state/releasekit/rates.json"
    assert load() == BUILT_IN
    mine = parse(changed(machine="mine"), "x")
    save(mine, default_path())
    assert load() == mine


def test_a_file_of_rates_that_is_named_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: no such file: make it with `releasekit plan --measure --out {path}`"
    )


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_bytes(bytes(1 << 17))
    with pytest.raises(FormatError, match="expected at most 65536 bytes"):
        load(path)
    assert rates.BUILT_IN.pack().startswith(b'{\n "format"')
