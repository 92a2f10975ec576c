"""Output folders: whole or not at all, one writer, and nobody else's data touched."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from releasekit.errors import ReleaseKitError, UsageError
from releasekit.output import OutputFolder, check_output, free_nbytes, require_space


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def leave(out: Path, files: dict[str, str], key: str = "k") -> Path:
    """Starts work with the given files, stops, and returns the folder they are left in."""
    with OutputFolder(out, key=key) as folder:
        for name, text in files.items():
            folder.write(name, text.encode())
    return folder.path("x").parent


def finish(out: Path, files: dict[str, str], *, force: bool = False) -> None:
    with OutputFolder(out, key="k", force=force) as folder:
        for name, text in files.items():
            folder.write(name, text.encode())
        folder.keep_only(files)
        folder.commit()


def model(path: Path) -> Path:
    """A folder that may be replaced by force."""
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text("old")
    return path


def test_a_folder_appears_with_its_commit(tmp_path: Path) -> None:
    out = tmp_path / "new" / "parents" / "out"
    with OutputFolder(out, key="k") as folder:
        assert not folder.reused
        folder.write("a", b"1")
        folder.write("größe/b", b"2")
        assert not out.exists()
        assert folder.partial == out.with_name("out.partial")
        assert folder.path("größe/b").read_bytes() == b"2"
        folder.commit()
    assert names(out) == ["a", "größe", "größe/b"]
    assert names(out.parent) == ["out", "out/a", "out/größe", "out/größe/b"]


def test_a_failure_leaves_a_folder_that_says_so(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fail() -> None:
        with OutputFolder(out, key="k") as folder:
            folder.write("a", b"1")
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    assert [path.read_text() for path in tmp_path.rglob("a")] == ["1"]


def test_the_same_work_finds_what_it_left(tmp_path: Path) -> None:
    left = leave(tmp_path / "out", {"a": "1", "sub/b": "2"})
    with OutputFolder(tmp_path / "out", key="k") as folder:
        assert folder.reused
        assert folder.path("a") == left / "a"
        assert folder.path("a").read_text() == "1"
        folder.write("a", b"new")
        folder.keep_only(["a"])
        folder.commit()
    assert names(tmp_path / "out") == ["a"]
    assert (tmp_path / "out" / "a").read_text() == "new"


def test_other_work_starts_from_nothing(tmp_path: Path) -> None:
    leave(tmp_path / "out", {"a": "1", "sub/b": "2"})
    with OutputFolder(tmp_path / "out", key="other") as folder:
        assert not folder.reused
        folder.commit()
    assert names(tmp_path / "out") == []


def test_restart_empties_the_folder(tmp_path: Path) -> None:
    leave(tmp_path / "out", {"a": "1", "sub/b": "2"})
    with OutputFolder(tmp_path / "out", key="k") as folder:
        folder.restart()
        folder.commit()
    assert names(tmp_path / "out") == []


def test_discard_removes_what_was_made(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out", key="k") as folder:
        folder.write("a", b"1")
        folder.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_file_bears_another_name(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out", key="k") as folder:
        name = folder.unfinished("sub/a")
        folder.write(name, b"1")
        assert not folder.path("sub/a").exists()
        folder.finish(name, "sub/a")
        folder.commit()
    assert names(tmp_path / "out") == ["sub", "sub/a"]


# What is in the way.


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    out = model(tmp_path / "out")
    with pytest.raises(UsageError) as caught:
        OutputFolder(out, key="k")
    assert str(caught.value) == (
        f"{out}: exists already; choose another --out, or replace it with --force"
    )
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("content", [{}, {"release.json": "{}"}, {"a.safetensors": ""}])
def test_force_replaces_a_model_a_release_or_nothing(
    tmp_path: Path, content: dict[str, str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, text in content.items():
        (out / name).write_text(text)
    finish(out, {"new": "1"}, force=True)
    assert names(tmp_path) == ["out", "out/new"]


def test_force_keeps_the_old_folder_until_the_new_one_is_complete(tmp_path: Path) -> None:
    out = model(tmp_path / "out")
    with OutputFolder(out, key="k", force=True) as folder:
        folder.write("model.safetensors", b"new")
        assert names(out) == ["model.safetensors"]
        assert (out / "model.safetensors").read_text() == "old"
    assert (out / "model.safetensors").read_text() == "old"
    finish(out, {"model.safetensors": "new"}, force=True)
    assert (out / "model.safetensors").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_force_does_not_remove_a_folder_of_other_things(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError) as caught:
        OutputFolder(out, key="k", force=True)
    assert str(caught.value) == (
        f"{out}: holds neither a release nor a model; --force does not remove such a "
        "folder: remove it yourself, or choose another --out"
    )
    assert names(tmp_path) == ["out", "out/thesis.tex"]


def test_force_replaces_folders_only(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("1")
    link, broken = tmp_path / "link", tmp_path / "broken"
    link.symlink_to(model(tmp_path / "elsewhere"))
    broken.symlink_to(tmp_path / "nothing")
    for out in (file, link, broken):
        with pytest.raises(UsageError) as caught:
            OutputFolder(out, key="k", force=True)
        assert str(caught.value) == f"{out}: is not a folder; --force replaces folders only"
        with pytest.raises(UsageError, match="exists already"):
            OutputFolder(out, key="k")
    assert (tmp_path / "elsewhere" / "model.safetensors").read_text() == "old"


def test_force_leaves_a_neighbour_named_replaced_alone(tmp_path: Path) -> None:
    neighbour = tmp_path / "out.replaced"
    neighbour.mkdir()
    (neighbour / "thesis.tex").write_text("years of work")
    out = model(tmp_path / "out")
    try:
        finish(out, {"model.safetensors": "new"}, force=True)
    except ReleaseKitError:
        assert (out / "model.safetensors").read_text() == "old"
    else:
        assert (out / "model.safetensors").read_text() == "new"
    assert (neighbour / "thesis.tex").read_text() == "years of work"


def test_a_partial_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError) as caught:
        OutputFolder(tmp_path / "out", key="k", force=True)
    assert str(caught.value) == (
        f"{partial}: is in the way and was not made by releasekit; move or remove it"
    )
    assert names(tmp_path) == ["out.partial", "out.partial/thesis.tex"]


def test_an_empty_partial_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()  # as a run leaves it that was killed at once
    finish(tmp_path / "out", {"a": "1"})
    assert names(tmp_path) == ["out", "out/a"]


def test_a_partial_folder_that_is_a_file_or_a_link_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "a.partial").write_text("1")
    (tmp_path / "b.partial").symlink_to(elsewhere)
    (tmp_path / "c.partial").symlink_to(tmp_path / "nothing")
    for name in "abc":
        partial = tmp_path / f"{name}.partial"
        with pytest.raises(UsageError) as caught:
            OutputFolder(tmp_path / name, key="k")
        assert str(caught.value) == f"{partial}: is in the way; move or remove it"
    assert list(elsewhere.iterdir()) == []
    assert not (tmp_path / "nothing").exists()


# Killed between the last check and the new name, then run again.

DIE_AT_RENAME = """
import os, sys
from pathlib import Path
from releasekit.output import OutputFolder
rename, left = os.rename, int(sys.argv[3])
def dying(*arguments):
    global left
    if not left:
        os._exit(9)
    left -= 1
    rename(*arguments)
os.rename = dying
with OutputFolder(Path(sys.argv[1]), key="k", force=sys.argv[2] == "force") as folder:
    folder.write("model.safetensors", b"new")
    folder.commit()
"""


@pytest.mark.parametrize(("force", "renames"), [(False, 0), (True, 0), (True, 1)], ids=str)
def test_a_run_killed_as_it_commits_can_be_repeated(
    tmp_path: Path, force: bool, renames: int
) -> None:
    out = tmp_path / "out"
    if force:
        model(out)
    arguments = [str(out), "force" if force else "no", str(renames)]
    command = [sys.executable, "-c", DIE_AT_RENAME, *arguments]
    assert subprocess.run(command, check=False).returncode == 9
    kept = tmp_path.glob("**/model.safetensors")
    assert {path.read_text() for path in kept} == ({"old", "new"} if force else {"new"})
    finish(out, {"model.safetensors": "new"}, force=force)
    assert names(tmp_path) == ["out", "out/model.safetensors"]
    assert (out / "model.safetensors").read_text() == "new"


# Links that somebody put into the partial folder.


def test_a_link_in_place_of_a_file_is_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    left = leave(tmp_path / "out", {})
    (left / "a").symlink_to(precious)
    (left / "b").symlink_to(tmp_path / "nothing")
    finish(tmp_path / "out", {"a": "1", "b": "2"})
    assert precious.read_text() == "years of work"
    assert not (tmp_path / "nothing").exists()
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_a_second_name_of_a_file_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    left = leave(tmp_path / "out", {})
    (left / "a").hardlink_to(precious)
    finish(tmp_path / "out", {"a": "1"})
    assert precious.read_text() == "years of work"


def test_only_a_file_of_its_own_is_gone_on_with(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    left = leave(tmp_path / "out", {"a.part": "1"})
    (left / "b.part").symlink_to(precious)
    (left / "c.part").hardlink_to(precious)
    with OutputFolder(tmp_path / "out", key="k") as folder:
        for name in ("b.part", "c.part", "d.part"):
            assert folder.reopen(name) is None
        file = folder.reopen("a.part")
        assert file is not None
        with file:
            assert file.read() == b"1"


def test_new_work_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    leave(tmp_path / "out", {"a.part": "1"}, key="other")
    with OutputFolder(tmp_path / "out", key="k") as folder:
        assert folder.reopen("a.part") is None


def test_a_link_in_place_of_a_folder_leads_nothing_out(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a").write_text("years of work")
    left = leave(tmp_path / "out", {})
    (left / "sub").symlink_to(elsewhere)
    with suppress(ReleaseKitError, OSError):
        finish(tmp_path / "out", {"sub/a": "1"})
    assert (elsewhere / "a").read_text() == "years of work"
    if (tmp_path / "out").exists():
        assert names(tmp_path / "out") == ["sub", "sub/a"]
        assert not (tmp_path / "out" / "sub").is_symlink()


def test_what_is_removed_is_never_what_a_link_points_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a").write_text("years of work")
    left = leave(tmp_path / "out", {})
    (left / "sub").symlink_to(elsewhere)
    (left / "file").symlink_to(elsewhere / "a")
    finish(tmp_path / "out", {"b": "1"})
    assert names(tmp_path / "out") == ["b"]
    assert (elsewhere / "a").read_text() == "years of work"


def test_a_state_that_is_a_link_is_not_believed(tmp_path: Path) -> None:
    left = leave(tmp_path / "out", {"a": "1"})
    state = tmp_path / "out.partial" / "state.json"
    state.rename(tmp_path / "state")
    state.symlink_to(tmp_path / "state")
    with pytest.raises(UsageError, match="was not made by releasekit; move"):
        OutputFolder(tmp_path / "out", key="k")
    assert (left / "a").read_text() == "1"


# Two writers.

HOLD = """
import sys
from pathlib import Path
from releasekit.output import OutputFolder
with OutputFolder(Path(sys.argv[1]), key="k") as folder:
    folder.write("a", b"1")
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(out: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that writes to `out` until it reads a line."""
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holder(out):
        with pytest.raises(ReleaseKitError) as caught:
            OutputFolder(out, key="other")
        assert str(caught.value) == (
            f"{out}: another run is writing to it; wait for it, or choose another --out"
        )
        assert [path.read_text() for path in tmp_path.rglob("a")] == ["1"]


def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holder(out) as process:
        process.kill()
        process.wait()
        with OutputFolder(out, key="k") as folder:
            assert folder.reused
            folder.commit()
    assert names(out) == ["a"]


def test_a_second_writer_in_this_process_is_refused(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out", key="k"):
        with pytest.raises(ReleaseKitError, match="another run is writing to it"):
            OutputFolder(tmp_path / "out", key="k")
        OutputFolder(tmp_path / "other", key="k").__exit__()
    OutputFolder(tmp_path / "out", key="k").__exit__()


# Output and input.


def test_an_output_that_holds_or_lies_in_an_input_is_refused(tmp_path: Path) -> None:
    base = model(tmp_path / "models" / "base")
    link = tmp_path / "link"
    link.symlink_to(base)
    for out, source, fault in [
        (base, base, "holds the input"),
        (base.parent, base, "holds the input"),
        (tmp_path, base, "holds the input"),
        (base, base / "model.safetensors", "holds the input"),
        (base / ".." / "base", base, "holds the input"),
        (base, link, "holds the input"),
        (link, base, "holds the input"),
        (base / "out", base, "lies in the input"),
        (base / "new" / "out", base, "lies in the input"),
        (base / "out", link, "lies in the input"),
        (link / "out", base, "lies in the input"),
    ]:
        for force in (False, True):
            with pytest.raises(UsageError) as caught:
                check_output(out, force=force, inputs=[source, tmp_path / "x"])
            assert str(caught.value) == f"{out}: {fault} {source}; choose another --out"
            with pytest.raises(UsageError):
                OutputFolder(out, key="k", force=force, inputs=[source])
    assert sorted(tmp_path.iterdir()) == [link, tmp_path / "models"]
    assert names(base) == ["model.safetensors"]


def test_an_output_beside_its_inputs_is_fine(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    for out in (tmp_path / "base2", tmp_path / "bas", tmp_path / "base" / ".." / "x"):
        check_output(out, force=False, inputs=[base, base / "model.safetensors"])


def test_the_root_is_no_output() -> None:
    with pytest.raises(UsageError):
        OutputFolder(Path("/"), key="k", force=True)


# Space.


def test_work_that_cannot_fit_is_refused(tmp_path: Path) -> None:
    require_space(tmp_path, [])
    require_space(tmp_path, [1, 4096, 0])
    require_space(tmp_path, [10**18], there=10**18)
    with pytest.raises(ReleaseKitError) as caught:
        require_space(tmp_path, [10**18])
    assert re.fullmatch(
        f"{re.escape(str(tmp_path))}: expected 1,000,000,000,000,000,000 bytes free, found "
        "[0-9,]+: free some space, or choose an --out on another disk",
        str(caught.value),
    )


def test_free_space_is_that_of_the_folder_to_be(tmp_path: Path) -> None:
    assert free_nbytes(tmp_path / "not" / "yet" / "there") > 0


def test_a_folder_that_is_a_link_may_hold_the_output(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with OutputFolder(tmp_path / "link" / "out", key="work") as folder:
        folder.write("file", b"content")
        folder.commit()
    assert (tmp_path / "real" / "out" / "file").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["out"]
