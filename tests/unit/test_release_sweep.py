"""Files of several releases: what each says, and each mistake by the path of its field."""

from __future__ import annotations

from pathlib import Path

import pytest

from releasekit.errors import FormatError, UsageError
from releasekit.releasing.run import read
from releasekit.releasing.sweep import read_entries

COMMON = """
[release]
version = "1.0"
kind = "delta"
base = "b"
exclude = ["*.bin"]

[hub]
visibility = "public"

[card]
summary = "One of several."
"""
ONE = """
[[sweep]]
release.name = "one"
release.target = "runs/1"
hub.repo = "acme/one"
"""
TWO = """
[[sweep]]
release = {name = "two", version = "2.0", target = "runs/2", exclude = []}
hub.repo = "acme/two"
card.summary = "The other."
evaluations.model = ["runs/2/results.json"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sweep.toml"


def fault(file: Path, document: str) -> str:
    """The message of a file that is refused."""
    file.write_text(document)
    with pytest.raises(FormatError) as caught:
        read_entries(file)
    return str(caught.value).replace(str(file), "sweep.toml")


def test_each_says_what_is_its_own_and_all_what_they_have_in_common(file: Path) -> None:
    file.write_text(COMMON + ONE + TWO)
    one, two = read_entries(file)
    assert (one.number, two.number) == (0, 1)
    assert (one.told, two.told) == (f"{file} (one)", f"{file} (two)")
    assert (one.file.name, one.file.version, one.file.target) == ("one", "1.0", "runs/1")
    assert (two.file.name, two.file.version, two.file.target) == ("two", "2.0", "runs/2")
    assert (one.file.out, two.file.out) == ("one-delta", "two-delta")
    assert (one.file.base, two.file.base) == ("b", "b")
    assert (one.file.exclude, two.file.exclude) == (("*.bin",), ())
    assert (one.file.repo, two.file.repo) == ("acme/one", "acme/two")
    assert (one.file.public, two.file.public) == (True, True)
    assert one.file.facts.summary == "One of several."
    assert two.file.facts.summary == "The other."
    assert two.file.facts.results == ("runs/2/results.json",)


def test_a_file_of_one_release_is_no_sweep(file: Path) -> None:
    file.write_text('[release]\nname="x"\nversion="1"\nkind="full"\ntarget="t"\n')
    (entry,) = read_entries(file)
    assert (entry.number, entry.told, entry.file.name) == (None, str(file), "x")
    assert read(file) == entry.file


def test_a_sweep_is_not_read_as_one_release(file: Path) -> None:
    file.write_text(COMMON + ONE)
    assert len(read_entries(file)) == 1
    with pytest.raises(UsageError) as caught:
        read(file)
    assert str(caught.value) == f"{file}: expected a file of one release, found a sweep"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("sweep = 1\n" + COMMON, "sweep: expected an array of one object or more, found 1"),
        ("sweep = []\n" + COMMON,
         "sweep: expected an array of one object or more, found an array of 0"),
        ("[sweep]\n" + COMMON,
         "sweep: expected an array of one object or more, found an object"),
        ("sweep = [1]\n" + COMMON, "sweep[0]: expected an object, found 1"),
        (COMMON + ONE + '[[sweep]]\nname = "two"\n',
         "sweep[1].name: expected an object, such as release.name = …, found \"two\""),
        (COMMON + ONE + "[[sweep]]\n", 'sweep[1].release: missing field "name"'),
        (COMMON + ONE + '[[sweep]]\nrelease.nmae = "x"\nrelease.name = "y"\n'
         'release.target = "t"\nhub.repo = "a/b"\n',
         'sweep[1].release: unknown field "nmae"'),
        (COMMON + ONE + "relase.x = 1\n", 'sweep[0]: unknown field "relase"'),
        (COMMON + ONE + "release.codec = 'zip'\n",
         'sweep[0].release.codec: expected one of "ulp", "add", found "zip"'),
        (COMMON + ONE + "card.languages = ['english']\n",
         "sweep[0].card.languages: expected an array of codes such as en or de, found an "
         "array of 1"),
        ("hub = 1\n" + COMMON.replace('[hub]\nvisibility = "public"\n', "") + ONE,
         "sweep[0].hub: expected an object, found 1"),
    ],
)  # fmt: skip
def test_mistakes_are_told_by_the_place_of_the_release(
    file: Path, document: str, message: str
) -> None:
    assert fault(file, document) == f"sweep.toml: {message}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file; `releasekit init` writes one"):
        read_entries(tmp_path / "gone.toml")
