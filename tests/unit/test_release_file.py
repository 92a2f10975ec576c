"""`release.toml`: what it may say, each mistake by the path of its field, and drafts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.errors import FormatError, LicenseError, UsageError
from releasekit.releasing.draft import Answers, draft
from releasekit.releasing.file import DELTA, FULL, ReleaseFile, default_out, parse
from releasekit.releasing.record import Done, StepRecord, key_of, known
from releasekit.releasing.wording import in_fields, telling_fields

LEAST = {
    DELTA: '[release]\nname="Tune"\nversion="1.0"\nkind="delta"\ntarget="t"\nbase="b"\n',
    FULL: '[release]\nname="Tune"\nversion="1.0"\nkind="full"\ntarget="t"\n',
}


def read(document: str) -> ReleaseFile:
    return parse(document.encode(), "release.toml")


def fault(document: str) -> str:
    """The message of a file that is refused."""
    with pytest.raises(FormatError) as caught:
        read(document)
    return str(caught.value)


# What it may say.


def test_the_least_that_a_file_says() -> None:
    delta, full = read(LEAST[DELTA]), read(LEAST[FULL])
    assert (delta.name, delta.version, delta.kind) == ("Tune", "1.0", DELTA)
    assert (delta.target, delta.base, delta.out) == ("t", "b", "Tune-delta")
    assert (full.kind, full.base, full.out) == (FULL, None, "Tune-full")
    for file in (delta, full):
        assert (file.publisher, file.shard_nbytes, file.dtype) == (None, None, None)
        assert (file.exclude, file.accept_base, file.codec) == ((), (), "ulp")
        assert (file.sign_key, file.passphrase_file, file.succession) == (None, None, None)
        assert (file.repo, file.public, file.gated) == (None, None, None)
        assert (file.hub_revision, file.xet, file.report) == ("main", True, None)


def test_all_that_a_delta_says() -> None:
    file = read(
        LEAST[DELTA]
        + 'publisher="acme"\nout="../out/x"\nexclude=["*.bin","a"]\n'
        + 'accept_base=["o","a/b"]\n'
        + 'codec="add"\nshard_size="1.5GB"\nsign_key="k.pem"\npassphrase_file="p"\n'
        + 'succession="s.json"\nreport="pictures"\n'
        + '[hub]\nrepo="acme/tune"\nvisibility="public"\ngated="manual"\n'
        + 'revision="drafts/1"\nxet=false\n'
        + '[licenses]\nlicense="mit"\n[card]\nsummary="It is good."\nrepo="acme/tune"\n'
    )
    assert (file.publisher, file.out, file.codec) == ("acme", "../out/x", "add")
    assert (file.exclude, file.accept_base) == (("*.bin", "a"), ("o", "a/b"))
    assert file.shard_nbytes == 1_500_000_000
    assert (file.sign_key, file.passphrase_file, file.succession) == (
        *("k.pem", "p", "s.json"),
    )
    assert (file.repo, file.public, file.gated) == ("acme/tune", True, "manual")
    assert (file.hub_revision, file.xet, file.report) == ("drafts/1", False, "pictures")
    assert (file.facts.license, file.facts.summary) == ("mit", "It is good.")


def test_all_that_a_full_model_says() -> None:
    file = read(LEAST[FULL] + 'base="org/base@v1"\ndtype="float16"\n[hub]\nrepo="a/b"\n')
    assert (file.base, file.dtype, file.repo, file.public) == (
        *("org/base@v1", "float16", "a/b", None),
    )
    private = read(LEAST[FULL] + '[hub]\nrepo="a/b"\nvisibility="private"\n')
    assert private.public is False


def test_a_name_on_the_hub_for_the_card_publishes_nothing() -> None:
    assert read(LEAST[DELTA] + '[card]\nrepo="acme/tune"\n').repo is None
    assert read(LEAST[DELTA] + "[hub]\n").repo is None


@pytest.mark.parametrize(
    ("name", "kind", "out"),
    [
        ("My Tune", DELTA, "My-Tune-delta"),
        ("My/Tune", FULL, "My-Tune-full"),
        ("../x", FULL, "x-full"),
        ("..", FULL, "release-full"),
        (".-.", DELTA, "release-delta"),
        ("größe 7B", FULL, "größe-7B-full"),
        ("名" * 200, FULL, f"{'名' * 66}-full"),
    ],
)
def test_the_folder_is_called_after_the_name(name: str, kind: str, out: str) -> None:
    assert default_out(name, kind) == out


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200))
def test_every_name_gives_a_folder_here(name: str) -> None:
    out = default_out(name, DELTA)
    assert "/" not in out
    assert not out.startswith((".", "-"))
    assert len(f".{out}.steps.json.new".encode()) <= 255


# Mistakes.

PATHS = "a path: some text, without control characters"
TITLE = "a line of 1 to 200 characters"
VERSION = "one to four numbers with dots between them, such as 1.0"
REPO = "the release's id on the Hub, org/name"
SIZE = "a size such as 2GB or 500MiB"
FLOATS = '"float16", "bfloat16", "float32", "smallest"'
NAME = "a name as organisations on the Hub have"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", 'missing field "release"'),
        ("release = 1", "release: expected an object, found 1"),
        ("[[release]]", "release: expected an object, found an array of 1"),
        ("[release]", 'release: missing field "kind"'),
        ('[release]\nkind="both"', 'release.kind: expected one of "delta", "full", '
         'found "both"'),
        ('[release]\nkind="full"', 'release: missing field "name"'),
        ('[release]\nkind="full"\nname="x"', 'release: missing field "version"'),
        ('[release]\nkind="full"\nname="x"\nversion="1"',
         'release: missing field "target"'),
        (LEAST[DELTA].replace('base="b"\n', ""), 'release: missing field "base"'),
        (LEAST[DELTA] + "[releases]\n", 'unknown field "releases"'),
        (LEAST[DELTA] + "nmae = 1\n", 'release: unknown field "nmae"'),
        (LEAST[DELTA] + "[hub]\nrepo='a/b'\ntoken='x'\n", 'hub: unknown field "token"'),
        (LEAST[DELTA] + "[card]\nsumary='x'\n", 'card: unknown field "sumary"'),
        (LEAST[DELTA] + "hub = 1\n", 'release: unknown field "hub"'),
        ("hub = 1\n" + LEAST[DELTA], "hub: expected an object, found 1"),
    ],
)  # fmt: skip
def test_tables_and_fields_that_lack_or_are_unknown(document: str, message: str) -> None:
    assert fault(document) == f"release.toml: {message}"


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        (DELTA, 'publisher = "a b"', f'publisher: expected {NAME}, found "a b"'),
        (DELTA, "publisher = 1", "publisher: expected a string, found 1"),
        (DELTA, 'out = ""', f'out: expected {PATHS}, found ""'),
        (DELTA, 'out = "."', 'out: expected a folder to make, found "."'),
        (DELTA, 'out = "a/.."', 'out: expected a folder to make, found "a/.."'),
        (DELTA, 'out = "/"', 'out: expected a folder to make, found "/"'),
        (DELTA, 'report = "/"', 'report: expected a folder to make, found "/"'),
        (DELTA, r'sign_key = "a\u0000b"', rf'sign_key: expected {PATHS}, found "a\u0000b"'),
        (DELTA, r'succession = "\n"', rf'succession: expected {PATHS}, found "\n"'),
        (DELTA, 'passphrase_file = " "', f'passphrase_file: expected {PATHS}, found " "'),
        (DELTA, "exclude = '*.bin'", 'exclude: expected an array, found "*.bin"'),
        (DELTA, "exclude = ['a', 1]", "exclude[1]: expected a string, found 1"),
        (DELTA, "accept_base = ['']",
         f"accept_base: expected an array, each item {PATHS}, found an array of 1"),
        (DELTA, "codec = 'zip'", 'codec: expected one of "ulp", "add", found "zip"'),
        (DELTA, "codec = true", 'codec: expected one of "ulp", "add", found true'),
        (DELTA, "shard_size = 2", "shard_size: expected a string, found 2"),
        (DELTA, "shard_size = '0GB'", f'shard_size: expected {SIZE}, found "0GB"'),
        (DELTA, "shard_size = '-2GB'", f'shard_size: expected {SIZE}, found "-2GB"'),
        (DELTA, "shard_size = '2\u212a'", f'shard_size: expected {SIZE}, found "2\u212a"'),
        (DELTA, "dtype = 'float16'",
         'dtype: expected none: kind = "delta" has no such choice, found "float16"'),
        (FULL, "dtype = 'int8'", f'dtype: expected one of {FLOATS}, found "int8"'),
        (FULL, "codec = 'ulp'",
         'codec: expected none: kind = "full" has no such choice, found "ulp"'),
        (FULL, "publisher = 'acme'",
         'publisher: expected none: kind = "full" has no such choice, found "acme"'),
        (FULL, "accept_base = ['a']",
         'accept_base: expected none: kind = "full" has no such choice, found an array '
         "of 1"),
        (FULL, "exclude = []",
         'exclude: expected none: kind = "full" has no such choice, found an array of 0'),
        (FULL, "passphrase_file = 'p'",
         'passphrase_file: expected sign_key beside it, found "p"'),
        (FULL, "succession = 's'", 'succession: expected sign_key beside it, found "s"'),
        (FULL, "base = ''", f'base: expected {PATHS}, found ""'),
    ],
)  # fmt: skip
def test_fields_of_release_that_are_wrong(kind: str, line: str, message: str) -> None:
    assert fault(f"{LEAST[kind]}{line}\n") == f"release.toml: release.{message}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", '""', f'expected {TITLE}, found ""'),
        ("name", r'"a\nb"', rf'expected {TITLE}, found "a\nb"'),
        ("name", '["a"]', "expected a string, found an array of 1"),
        ("version", "1.0", "expected a string, found 1.0"),
        ("version", '"v1"', f'expected {VERSION}, found "v1"'),
        ("version", '"1.0-rc1"', f'expected {VERSION}, found "1.0-rc1"'),
        ("version", "2026-01-02", f'expected {VERSION}, found "2026-01-02"'),
        ("target", '""', f'expected {PATHS}, found ""'),
        ("target", "3", "expected a string, found 3"),
        ("base", r'"\u007f"', rf'expected {PATHS}, found "\x7f"'),
    ],
)
def test_fields_that_every_release_has(key: str, value: str, message: str) -> None:
    document = re.sub(rf"(?m)^{key}=.*$", lambda _: f"{key}={value}", LEAST[DELTA])
    assert fault(document) == f"release.toml: release.{key}: {message}"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("repo='tune'", f'repo: expected {REPO}, found "tune"'),
        ("repo='a/b/c'", f'repo: expected {REPO}, found "a/b/c"'),
        ("repo='a/b@v1'", f'repo: expected {REPO}, found "a/b@v1"'),
        ("repo='a/b--c'", f'repo: expected {REPO}, found "a/b--c"'),
        ("repo='a/b.git'", f'repo: expected {REPO}, found "a/b.git"'),
        ("repo=''", f'repo: expected {REPO}, found ""'),
        ("repo=1", "repo: expected a string, found 1"),
        ("visibility='public'", 'visibility: expected repo beside it, found "public"'),
        ("xet=true", "xet: expected repo beside it, found true"),
        ("repo='a/b'\nvisibility='open'",
         'visibility: expected one of "public", "private", found "open"'),
        ("repo='a/b'\ngated=true",
         'gated: expected one of "auto", "manual", found true'),
        ("repo='a/b'\nrevision=''", 'revision: expected the name of a branch, found ""'),
        ("repo='a/b'\nrevision='../x'",
         'revision: expected the name of a branch, found "../x"'),
        ("repo='a/b'\nxet='no'", 'xet: expected true or false, found "no"'),
    ],
)  # fmt: skip
def test_fields_of_hub_that_are_wrong(lines: str, message: str) -> None:
    assert fault(f"{LEAST[DELTA]}[hub]\n{lines}\n") == f"release.toml: hub.{message}"


def test_a_card_of_another_repository_is_refused() -> None:
    document = LEAST[DELTA] + "[hub]\nrepo='acme/tune'\n[card]\nrepo='acme/other'\n"
    assert fault(document) == (
        'release.toml: card.repo: expected "acme/tune", as [hub] says, or none, found '
        '"acme/other"'
    )


_KEYS = st.sampled_from(
    [
        *("release", "hub", "card", "name", "version", "kind", "target", "base", "out"),
        *("exclude", "accept_base", "codec", "shard_size", "dtype", "sign_key", "repo"),
        *("visibility", "gated", "revision", "xet", "publisher", "passphrase_file", "x"),
    ]
)
_WORDS = st.sampled_from(
    ["delta", "full", "1.0", "a/b", "public", "auto", "2GB", "ulp", "", "\0", "\u017f"]
) | st.text(max_size=5)
_SCALARS = _WORDS | st.integers() | st.booleans() | st.floats()
_VALUES = _SCALARS | st.lists(_SCALARS, max_size=2)


def _toml(value: object) -> str:
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower()


@given(
    st.dictionaries(_KEYS, st.dictionaries(_KEYS, _VALUES, max_size=8), max_size=3),
    st.sampled_from(["", *LEAST.values()]),
)
def test_any_tables_are_read_or_refused_with_a_path(
    tables: dict[str, dict[str, object]], before: str
) -> None:
    lines = [before]
    for name, fields in tables.items():
        if name != "release" or not before:
            lines.append(f"[{name}]")
        lines += [f"{key} = {_toml(value)}" for key, value in fields.items()]
    _read_or_refused("\n".join(lines).encode(errors="replace"))


@given(st.binary(max_size=80), st.sampled_from(["", *LEAST.values()]))
def test_any_bytes_are_read_or_refused(document: bytes, before: str) -> None:
    _read_or_refused(before.encode() + document)


def _read_or_refused(document: bytes) -> None:
    told = None
    try:
        file = parse(document, "release.toml")
    except FormatError as error:
        told = str(error)
    if told is None:
        assert file.kind in (DELTA, FULL)
    else:
        assert told.startswith("release.toml: ")
        assert told.isprintable()


# Drafts.

HOSTILE = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
PATH = HOSTILE.filter(
    lambda text: bool(text.strip()) and all(c >= " " and c != "\x7f" for c in text)
)
NAMES = HOSTILE.filter(str.isprintable)


def settings_of(text: str) -> list[int]:
    """Numbers of the lines that are settings behind a comment's mark."""
    found = re.compile(r"# [a-z_]+ = ")
    return [n for n, line in enumerate(text.splitlines()) if found.match(line)]


def uncommented(text: str, numbers: list[int]) -> str:
    lines = text.splitlines()
    for number in numbers:
        lines[number] = lines[number].removeprefix("# ")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", [None, DELTA, FULL])
def test_a_draft_is_read_once_what_is_missing_is_filled_in(kind: str | None) -> None:
    answers = Answers(kind=kind)
    text = draft(answers).decode()
    assert fault(text).startswith("release.toml: release: missing field ")
    wanted = {path.rpartition(".")[2] for path in answers.missing}
    numbers = [
        number
        for number in settings_of(text.partition("[card]")[0])
        if text.splitlines()[number].split()[1] in wanted
    ]
    assert len(numbers) == len(wanted)
    file = read(uncommented(text, numbers))
    assert (file.name, file.version, file.kind) == ("my-tune", "1.0", kind or DELTA)
    assert file.repo is None


@pytest.mark.parametrize("kind", [DELTA, FULL])
def test_every_line_of_a_draft_may_be_uncommented(kind: str) -> None:
    known = Answers(kind=kind, name="x", target="t", base="b", repo="a/b", sign_key="k")
    text = draft(known).decode()
    assert len(settings_of(text)) > 20
    for number in settings_of(text):
        read(uncommented(text, [number]))
    bare = draft(Answers(kind=kind)).decode()
    for number in settings_of(bare):
        tomllib.loads(uncommented(bare, [number]))
    for draft_text in (text, bare):
        file = read(uncommented(draft_text, settings_of(draft_text)))
        assert file.kind == kind
        assert file.shard_nbytes == 2 * 10**9
        assert file.facts.prompt_format == "### User:\n{instruction}"


@pytest.mark.parametrize("kind", [DELTA, FULL])
@pytest.mark.parametrize("name", [None, "Tune", "x"])
def test_a_draft_makes_its_release_beside_the_models(kind: str, name: str | None) -> None:
    """A model's own folder is often called as the release is."""
    text = draft(Answers(kind=kind, name=name, target=name)).decode()
    file = read(uncommented(text, settings_of(text)))
    assert len({file.target, file.base, file.out, file.report}) == 4
    assert file.out == default_out(file.name, kind) == f"{file.name}-{kind}"
    assert file.target == file.name


def test_a_draft_names_every_field_of_release_and_hub() -> None:
    both: dict[str, object] = {}
    for kind in (DELTA, FULL):
        text = draft(Answers(kind=kind)).decode()
        tables = tomllib.loads(uncommented(text, settings_of(text)))
        both |= tables["release"] | tables["hub"]
    named = {"name", "version", "kind", "target", "out", "base", "publisher", "exclude"}
    named |= {
        "accept_base",
        "base_release",
        "codec",
        "shard_size",
        "dtype",
        "sign_key",
        "repo",
    }
    named |= {"report", "passphrase_file", "succession", "visibility", "gated", "revision"}
    assert both.keys() == named


@given(st.sampled_from([DELTA, FULL]), NAMES, PATH, PATH, PATH)
def test_answers_stand_in_a_draft_as_they_were_given(
    kind: str, name: str, target: str, base: str, key: str
) -> None:
    answers = Answers(
        kind=kind,
        name=name,
        target=target,
        base=base,
        sign_key=key,
        repo="acme/tune",
    )
    file = parse(draft(answers), "release.toml")
    assert (file.kind, file.name, file.target) == (kind, name, target)
    assert (file.base, file.sign_key, file.repo) == (base, key, "acme/tune")


def test_licences_stand_in_a_draft_by_any_of_their_names() -> None:
    file = parse(
        draft(
            Answers(license="MIT", base_license="llama-2", kind=FULL, name="x", target="t")
        ),
        "release.toml",
    )
    assert (file.facts.license, file.facts.license_bases) == ("MIT", ("llama-2",))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (Answers(kind="both"), 'kind "both": expected delta or full'),
        (Answers(name=""), f'name "": expected {TITLE}'),
        (Answers(name="a\nb"), rf'name "a\nb": expected {TITLE}'),
        (Answers(target="a\nb"), rf'target "a\nb": expected {PATHS}'),
        (Answers(base="\x7f"), rf'base "\x7f": expected {PATHS}'),
        (Answers(repo="tune"), f'repo "tune": expected {REPO}'),
        (
            Answers(sign_key="\udcff"),
            r"""sign_key "\udcff": expected text in this terminal's encoding""",
        ),
        (
            Answers(license="apache"),
            'license "apache": is not known; did you mean "apache-2.0"? `releasekit '
            "licenses list` names all, and --license-dir adds records of your own",
        ),
    ],
)
def test_an_answer_that_is_none_is_refused(answers: Answers, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        draft(answers)
    assert str(caught.value) == message


def test_a_draft_says_what_is_missing() -> None:
    assert Answers(kind=FULL, name="x", target="t", license="mit").missing == ()
    assert Answers(kind=DELTA, name="x", target="t", license="mit").missing == (
        *("release.base", "licenses.bases"),
    )
    assert Answers().missing == (
        *("release.name", "release.kind", "release.target", "release.base"),
        *("licenses.license", "licenses.bases"),
    )


# The record of what was done.

DONE = Done(key="0" * 64, outcome="x", said="two files")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "release.toml"
    record = StepRecord.beside(out, file)
    record.edited = True
    record.note("make", DONE)
    record.note("card", DONE)
    record.forget("card")
    record.forget("sign")
    again = StepRecord.beside(out, file)
    assert (again.steps, again.edited, again.other) == ({"make": DONE}, True, None)
    assert again.is_done("make", DONE.key, lambda: "x")
    assert not again.is_done("make", DONE.key, lambda: None)
    # What takes long to tell is told only if it decides.
    for step, key in (("make", "1" * 64), ("card", DONE.key)):
        assert not again.is_done(step, key, lambda: pytest.fail("asked"))


def test_a_record_of_another_file_does_not_count(tmp_path: Path) -> None:
    out = tmp_path / "out"
    StepRecord.beside(out, tmp_path / "release.toml").note("make", DONE)
    other = StepRecord.beside(out, tmp_path / "other.toml")
    assert (other.steps, other.other) == ({}, "release.toml")


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{}", b"[]", b"\xff", b'{"format": "releasekit-steps/2"}', b" " * (1 << 21)],
)
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "out.steps.json").write_bytes(damaged)
    record = StepRecord.beside(tmp_path / "out", tmp_path / "release.toml")
    assert (record.steps, record.other, record.edited) == ({}, None, False)


def test_files_are_known_by_their_content_and_large_ones_by_their_time(
    tmp_path: Path,
) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"1")
    large.write_bytes(bytes((1 << 20) + 1))
    before = key_of(known([("a", tmp_path), ("b", tmp_path / "none")]))
    small.unlink()
    small.write_bytes(b"1")
    assert key_of(known([("a", tmp_path), ("b", tmp_path / "none")])) == before
    small.write_bytes(b"2")
    changed = key_of(known([("a", tmp_path), ("b", tmp_path / "none")]))
    assert changed != before
    content = large.read_bytes()
    large.rename(tmp_path / "old")
    large.write_bytes(content)
    (tmp_path / "old").unlink()
    assert key_of(known([("a", tmp_path), ("b", tmp_path / "none")])) != changed


# Words.


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("give --license and --base-license", "give licenses.license and licenses.bases"),
        ("replace it with --force", "replace it with --force"),
        (
            "leave it out with --exclude '*.bin'",
            "leave it out with release.exclude '*.bin'",
        ),
        ("see `releasekit convert a --dtype X`", "see `releasekit convert a --dtype X`"),
        ("a higher --version, or `x --out`", "a higher release.version, or `x --out`"),
        ("a--base, --base-x and --license-files", "a--base, --base-x and --license-files"),
    ],
)
def test_options_are_told_as_fields(message: str, told: str) -> None:
    assert in_fields(message) == told
    for kind in (UsageError, LicenseError):
        with pytest.raises(kind) as caught, telling_fields():
            raise kind(message)
        assert str(caught.value) == told
