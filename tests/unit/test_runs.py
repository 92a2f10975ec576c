"""A run's log and report: what is in them, and what if they cannot be written."""

from __future__ import annotations

import errno
import io
import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from releasekit.errors import ReleaseKitError, UsageError
from releasekit.progress import Progress
from releasekit.runs import surroundings
from releasekit.runs.log import EventLog, Lines, LogFile, stream_writer, timestamp
from releasekit.runs.recorder import Recorder, stages_document

NOON = datetime(2026, 12, 24, 12, 0, tzinfo=UTC)


class Run:
    """A recorder whose clock the test sets, and the lines of its log."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.seconds = 0.0
        self.lines: list[str] = []
        self.recorder = Recorder(
            environment=environment or {},
            clock=lambda: self.seconds,
            now=lambda: NOON + timedelta(seconds=self.seconds),
        )
        self.recorder.log_to(self.lines.append)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def take(self, seconds: float, stage: str, done: int, total: int) -> None:
        self.seconds = seconds
        self.recorder.take(Progress(stage=stage, done=done, total=total))


def report_of(run: Run, path: Path) -> dict[str, Any]:
    """What the report says of a run that has ended."""
    assert run.recorder.end(0) is None
    found = json.loads(path.read_bytes())
    assert isinstance(found, dict)
    return found


# The log.


def test_times_are_utc_in_milliseconds() -> None:
    east = timezone(timedelta(hours=2))
    assert timestamp(NOON) == "2026-12-24T12:00:00.000Z"
    assert timestamp(datetime(2026, 1, 1, 1, 0, 0, 123_999, east)) == (
        "2025-12-31T23:00:00.123Z"
    )


def test_each_event_is_a_line_with_the_same_first_fields() -> None:
    run = Run()
    run.recorder.begin("make-delta", {"base": Path("a/b"), "exclude": ("*.bin",), "n": 1})
    run.take(1.0, "encode", 0, 100)
    run.take(6.0, "encode", 40, 100)
    run.take(11.0, "encode", 60, 100)
    run.take(21.0, "encode", 100, 100)
    run.recorder.warn("mind this")
    run.recorder.worker({"name": "node-1", "parts": 2, "nbytes": 10, "seconds": 1.5})
    run.recorder.end(0)
    common = {"run": run.recorder.run}
    stage = {"stage": "encode", "total_nbytes": 100}
    begin, *events = run.events
    assert {name: begin.pop(name) for name in ("version", "python", "platform", "pid")} == {
        "version": surroundings.own_version(),
        "python": surroundings.python(),
        "platform": surroundings.system(),
        "pid": os.getpid(),
    }
    assert begin == common | {
        "timestamp": "2026-12-24T12:00:00.000Z",
        "level": "info",
        "event": "run.begin",
        "message": "make-delta begins",
        "schema": 1,
        "command": "make-delta",
        "options": {"base": "a/b", "exclude": ["*.bin"], "n": 1},
    }
    assert events == [
        common | fields
        for fields in (
            {
                "timestamp": "2026-12-24T12:00:01.000Z",
                "level": "info",
                "event": "stage.begin",
                "message": "encode begins",
                **stage,
            },
            {
                "timestamp": "2026-12-24T12:00:11.000Z",
                "level": "info",
                "event": "stage.progress",
                "message": "encode: 60% done in 10.0 s",
                "seconds": 10.0,
                "nbytes": 60,
                "nbytes_per_second": 6,
                **stage,
            },
            {
                "timestamp": "2026-12-24T12:00:21.000Z",
                "level": "info",
                "event": "stage.end",
                "message": "encode: 100% done in 20.0 s",
                "seconds": 20.0,
                "nbytes": 100,
                "nbytes_per_second": 5,
                **stage,
            },
            {
                "timestamp": "2026-12-24T12:00:21.000Z",
                "level": "warning",
                "event": "warning",
                "message": "mind this",
            },
            {
                "timestamp": "2026-12-24T12:00:21.000Z",
                "level": "info",
                "event": "worker",
                "message": "worker node-1 is done",
                "worker": "node-1",
                "parts": 2,
                "nbytes": 10,
                "seconds": 1.5,
            },
            {
                "timestamp": "2026-12-24T12:00:21.000Z",
                "level": "info",
                "event": "run.end",
                "message": "make-delta done",
                "command": "make-delta",
                "exit_code": 0,
                "seconds": 21.0,
            },
        )
    ]


def test_steps_of_several_releases_are_told_apart() -> None:
    run = Run()
    for release in ("acme 1", "acme 2"):
        run.recorder.turn(release)
        run.recorder.step("make", 1, 8)
        run.take(run.seconds + 1, "hash", 0, 10)
        run.take(run.seconds + 1, "hash", 10, 10)
        if release == "acme 1":
            run.recorder.step_done("make", "done", "12 files", 2.0)
        else:
            run.recorder.step_failed("disk full")
    kinds = ("event", "release", "step", "stage", "level")
    assert [tuple(event.get(kind) for kind in kinds) for event in run.events] == [
        ("step.begin", "acme 1", "make", None, "info"),
        ("stage.begin", "acme 1", "make", "hash", "info"),
        ("stage.end", "acme 1", "make", "hash", "info"),
        ("step.end", "acme 1", "make", None, "info"),
        ("step.begin", "acme 2", "make", None, "info"),
        ("stage.begin", "acme 2", "make", "hash", "info"),
        ("stage.end", "acme 2", "make", "hash", "info"),
        ("release.failed", "acme 2", None, None, "error"),
    ]
    assert [event["message"] for event in run.events if event["event"] == "step.end"] == [
        "step make: done: 12 files"
    ]
    assert stages_document(run.recorder.stages.times)[0] == {
        "release": "acme 1",
        "step": "make",
        "name": "hash",
        "seconds": 1.0,
        "nbytes": 10,
    }


def test_the_first_error_is_the_runs() -> None:
    run = Run()
    run.recorder.begin("verify", {})
    run.recorder.fault("IntegrityError", "one is wrong")
    run.recorder.fail("OSError", "another")
    run.recorder.end(5)
    _, wrong, end = run.events
    error = {"type": "IntegrityError", "message": "one is wrong"}
    assert (wrong["event"], wrong["level"], wrong["error"]) == ("error", "error", error)
    assert (end["level"], end["exit_code"], end["error"]) == ("error", 5, error)
    assert end["message"] == "one is wrong"


def test_an_exit_code_without_an_error_is_told() -> None:
    run = Run()
    run.recorder.begin("diff", {})
    run.recorder.end(1)
    assert run.events[-1]["message"] == "diff ended with exit code 1"
    assert "error" not in run.events[-1]


def test_help_is_no_run(tmp_path: Path) -> None:
    run = Run()
    run.recorder.report_to(tmp_path / "report.json")
    run.recorder.end(0)
    assert run.lines == []
    assert list(tmp_path.iterdir()) == []


def test_a_log_holds_no_secrets_but_paths() -> None:
    run = Run({"HF_TOKEN": "it is secret"})
    run.recorder.begin("fetch", {"out": Path("/home/alice/x")})
    run.recorder.warn("it is secret, and so is hf_AbCdEfGhIjKlMnOp")
    begin, warning = run.events
    assert begin["options"] == {"out": "/home/alice/x"}
    assert warning["message"] == "<secret>, and so is <secret>"


def test_lines_are_ascii_and_json_whatever_is_in_them() -> None:
    run = Run()
    run.recorder.begin("x", {"a": "ü\udcff", "b": [math.nan, -math.inf], "c": "\n"})
    (line,) = run.lines
    assert line.isascii()
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert run.events[0]["options"] == {"a": "ü\\udcff", "b": ["nan", "-inf"], "c": "\n"}


def test_logs_are_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in ("a\n", "b\n"):
        log = LogFile(path)
        log.write(text)
        log.close()
    assert path.read_text() == "a\nb\n"
    with pytest.raises(UsageError) as caught:
        LogFile(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: cannot be written (Is a directory); give --log-json another file, or "
        "- for stderr"
    )


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), ValueError("closed")]
)
def test_a_log_that_cannot_be_written_ends_there(fault: OSError | ValueError) -> None:
    tried = []

    def write(line: str) -> None:
        tried.append(line)
        raise fault

    log = EventLog(write, run="1", hide=str, now=lambda: NOON)
    for _ in range(2):
        log.tell("warning", "x", {})
    assert (len(tried), log.lost) == (1, fault)


def test_lines_stand_in_for_a_stream() -> None:
    told: list[str] = []
    with (Path(os.devnull)).open("w") as behind:
        lines = Lines(told.append, behind)
        assert lines.fileno() == behind.fileno()
        assert lines.writable()
        assert not lines.isatty()
        print("a\n\nb", file=lines)
        assert told == ["a", "b"]
        lines.write("10%\r20%\rhal")
        assert told[2:] == ["10%", "20%"]
        lines.write("f")
        lines.flush()
        lines.flush()
        assert told[4:] == ["half"]
        with pytest.raises(TypeError):
            lines.write(b"bytes")  # type: ignore[arg-type]


def test_what_is_written_to_a_stream_is_there_at_once() -> None:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, "utf-8")
    stream_writer(stream)("{}\n")
    assert data.getvalue() == b"{}\n"


# The report.


def failing(*, alone: bool) -> None:
    """Fails over another failure."""
    try:
        raise KeyError("/data/acme/inner")
    except KeyError as error:
        raise ZeroDivisionError("/data/acme/outer") from (None if alone else error)


def test_a_report_says_what_was_run_and_where(tmp_path: Path) -> None:
    run = Run({"HF_HOME": "/x", "LANG": "C", "http_proxy": "http://u:secret1@p"})
    path = tmp_path / "report.json"
    run.recorder.report_to(path)
    options = {"base": "acme/base", "out": tmp_path / "deep" / "out", "limit": math.inf}
    run.recorder.begin("make-delta", options)
    run.take(1.0, "encode", 0, 100)
    run.take(3.0, "encode", 100, 100)
    run.recorder.warn(f"{tmp_path}/other: mind u:secret1")
    run.recorder.worker({"name": "10.1.2.3", "parts": 1})
    found = report_of(run, path)
    assert next(iter(found)) == "run_report"
    assert {name: found[name] for name in list(found)[2:13]} == {
        "run": run.recorder.run,
        "command": "make-delta",
        "options": {"base": "<path-1>/base", "out": "<path-2>/out", "limit": "inf"},
        "begun": "2026-12-24T12:00:00.000Z",
        "ended": "2026-12-24T12:00:03.000Z",
        "seconds": 3.0,
        "exit_code": 0,
        "error": None,
        "steps": [],
        "stages": [
            {
                "name": "encode",
                "begun_seconds": 1.0,
                "seconds": 2.0,
                "nbytes": 100,
                "total_nbytes": 100,
                "nbytes_per_second": 50,
            }
        ],
        "workers": [{"name": "<address>", "parts": 1}],
    }
    assert found["warnings"] == ["<path-3>/other: mind u:<secret>"]
    assert found["variables"] == ["HF_HOME", "http_proxy"]
    assert found["programs"]["releasekit"]["loaded"] is True
    assert found["programs"]["python"]["version"] == surroundings.python()
    assert found["machine"]["processors"] == os.cpu_count()
    assert found["machine"]["peak_memory_nbytes"] > 2**20
    assert found["disk"]["path"] == "<path-2>/out"
    assert 0 < found["disk"]["free_nbytes"] < found["disk"]["total_nbytes"]
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("alone", [True, False])
def test_a_bug_is_told_with_its_trace_but_no_paths(tmp_path: Path, alone: bool) -> None:
    run = Run()
    path = tmp_path / "report.json"
    run.recorder.report_to(path)
    with pytest.raises(ZeroDivisionError) as caught:
        failing(alone=alone)
    run.recorder.fail("ZeroDivisionError", str(caught.value), caught.value)
    run.recorder.end(1)
    text = path.read_text()
    found = json.loads(text)["error"]
    frame = found["trace"][-1]
    assert frame.startswith(f"{__name__}:")
    assert frame.endswith(" in failing")
    assert (found["type"], found["message"]) == ("ZeroDivisionError", "<path-1>/outer")
    cause = found.get("cause", {})
    assert (cause.get("type"), cause.get("message")) == (
        (None, None) if alone else ("KeyError", "'<path-1>/inner'")
    )
    assert str(Path(__file__).parent) not in text
    stack = run.events[-1]["error"]["stack_trace"]
    assert stack.startswith("Traceback (most recent call last)")
    assert stack.endswith("ZeroDivisionError: /data/acme/outer\n")


def test_an_endless_recursion_is_told_in_part(tmp_path: Path) -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()
    run = Run()
    path = tmp_path / "report.json"
    run.recorder.report_to(path)
    run.recorder.fail("RecursionError", "", caught.value)
    run.recorder.end(1)
    trace = json.loads(path.read_bytes())["error"]["trace"]
    assert len(trace) == 61
    assert trace[30].endswith(" more …")


def test_a_report_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    path, other, link = (tmp_path / name for name in ("report.json", "model", "link"))
    other.write_text("{}")
    link.symlink_to(path)
    for _ in range(2):
        run = Run()
        run.recorder.report_to(path)
        run.recorder.begin("x", {})
        assert run.recorder.end(0) is None
    assert json.loads(path.read_bytes())["run"] == run.recorder.run
    for wrong in (other, link, tmp_path):
        with pytest.raises(UsageError) as caught:
            run.recorder.report_to(wrong)
        assert str(caught.value) == (
            f"{wrong}: exists already, and is no report of a run; give --run-report "
            "another file"
        )
    with pytest.raises(UsageError) as caught:
        run.recorder.report_to(tmp_path / "gone" / "report.json")
    assert str(caught.value) == (
        f"{tmp_path}/gone: no such folder; make it first, for --run-report"
    )


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "here" / "report.json"
    path.parent.mkdir()
    run = Run()
    run.recorder.report_to(path)
    run.recorder.begin("x", {})
    path.mkdir()  # since then
    fault = run.recorder.end(0)
    assert isinstance(fault, IsADirectoryError)
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_a_report_goes_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run()
    run.recorder.report_to(Path("report.json"))
    run.recorder.begin("x", {})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run.recorder.end(0)
    assert (tmp_path / "report.json").is_file()


# Where it runs.


def test_what_is_private_is_known_in_all_its_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    (real / "alice").mkdir(parents=True)
    (tmp_path / "home").symlink_to(real)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home" / "alice"
    monkeypatch.setenv("HOME", str(home))
    environment = {
        "HOME": str(home),
        "USER": "alicia",
        "LOGNAME": "",
        "HOSTNAME": "node7.acme",
        "HF_TOKEN": "hf_secret",
    }
    options = (
        Path("home/alice/x"),
        ("org/name", "plain", 3),
        "https://acme/x",
        "nul/\0",
        1,
    )
    found = surroundings.private(environment, options)
    assert {str(home), str(real / "alice")} <= set(found.homes)
    assert {"alice", "alicia"} <= set(found.users)
    assert {"node7.acme", "node7"} <= set(found.hosts)
    assert found.secrets == ("hf_secret",)
    assert set(found.paths) == {
        *("home/alice/x", str(home / "x"), str(real / "alice" / "x")),
        *("org/name", str(tmp_path / "org" / "name")),
    }


def test_a_disk_is_that_of_what_is_there(tmp_path: Path) -> None:
    found = surroundings.disk(tmp_path / "not" / "there")
    assert found == surroundings.disk(tmp_path) | {
        "path": tmp_path / "not" / "there",
        "free_nbytes": found["free_nbytes"],
    }


def test_an_error_of_ours_has_no_trace(tmp_path: Path) -> None:
    run = Run()
    path = tmp_path / "report.json"
    run.recorder.report_to(path)
    run.recorder.fail(ReleaseKitError.__name__, "no")
    run.recorder.end(1)
    found = json.loads(path.read_bytes())
    assert (found["command"], found["exit_code"]) == (None, 1)
    assert found["error"] == {"type": "ReleaseKitError", "message": "no"}
    assert run.events[0]["message"] == "releasekit begins"
