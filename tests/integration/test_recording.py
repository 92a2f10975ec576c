"""`--log-json` and `--run-report`: what they say of runs that end in any way."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from releasekit.cli import cli
from releasekit.cli.shell import Shell, common_options, run
from releasekit.errors import FormatError
from releasekit.progress import Stage
from tests.builders import model_folder
from tests.integration.tools import Done, good, here, small_pair

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345"


@dataclass(frozen=True)
class World:
    """A base, and a model tuned from it."""

    base: Path
    target: Path
    root: Path

    def make(self, *options: str | Path) -> list[str | Path]:
        models = ("--base", self.base, "--target", self.target)
        return ["make-delta", *models, "--out", self.root / "delta", *options]


@pytest.fixture
def world(tmp_path: Path) -> World:
    base, target = small_pair()
    return World(
        base=model_folder(tmp_path / "base", base),
        target=model_folder(tmp_path / "target", target),
        root=tmp_path,
    )


def events(text: str) -> list[dict[str, Any]]:
    """What a log says; every line of it must be JSON."""
    return [json.loads(line) for line in text.splitlines()]


def kinds(text: str) -> list[str]:
    return [event["event"] for event in events(text)]


class Terminal(io.StringIO):
    """Somebody reads along."""

    def isatty(self) -> bool:
        return True


def group(work: Callable[[Shell], Any]) -> click.Group:
    """A command line with the one command `work`, which does that."""

    @click.command("work")
    @click.option("--model", type=click.Path(path_type=Path))
    @common_options
    @click.pass_obj
    def command(shell: Shell, model: Path | None) -> Any:
        return work(shell)

    return click.Group("releasekit", [command])


def ran(work: Callable[[Shell], Any], *options: str | Path, stderr: io.StringIO) -> Done:
    """What became of `work`."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(stderr):
        code = run(group(work), ["work", *map(str, options)])
    return Done(code, out.getvalue(), stderr.getvalue())


# The log.


def test_a_log_on_stderr_has_it_to_itself(world: World) -> None:
    done = good(*world.make("--log-json", "-"))
    begin, *stages, end = events(done.stderr)
    assert done.stdout.startswith("release    target, version 1, in ")
    assert (begin["event"], begin["command"], begin["options"]) == (
        *("run.begin", "make-delta"),
        {"base": str(world.base), "target": str(world.target)}
        | {"out": str(world.root / "delta")},
    )
    told = [(event["event"], event["stage"]) for event in stages]
    names = ["encode", "hash base", "hash inputs", "read back"]
    assert told == [(f"stage.{end}", name) for name in names for end in ("begin", "end")]
    assert all(event["nbytes"] == event["total_nbytes"] for event in stages[1::2])
    assert (end["event"], end["exit_code"]) == ("run.end", 0)
    assert len({event["run"] for event in (begin, *stages, end)}) == 1


def test_a_log_in_a_file_changes_nothing_else(world: World) -> None:
    log = world.root / "log.jsonl"
    good(*world.make())
    apply = ("apply-delta", "--base", world.base, "--delta", world.root / "delta")
    plain = good(*apply, "--out", world.root / "a", "--json")
    done = good(*apply, "--out", world.root / "b", "--json", "--log-json", log)
    assert done.stderr == plain.stderr
    assert done.stderr.startswith("warning: ")
    assert done.json.keys() == plain.json.keys()
    assert [(stage["name"], stage["nbytes"]) for stage in done.json["stages"]] == [
        ("rebuild", done.json["nbytes"])
    ]
    assert kinds(log.read_text()) == [
        *("run.begin", "warning", "stage.begin", "stage.end", "run.end")
    ]
    before = log.read_text()
    good("verify", world.root / "b", "--against", world.root / "delta", "--log-json", log)
    assert log.read_text().startswith(before)
    assert events(log.read_text())[-1]["command"] == "verify"


@pytest.mark.parametrize("to_stderr", [True, False])
def test_bars_are_drawn_beside_a_log_only(tmp_path: Path, to_stderr: bool) -> None:
    log = tmp_path / "log"

    def work(shell: Shell) -> None:
        with shell.progress() as progress:
            Stage(progress, "encode", 10).advance(10)

    target = "-" if to_stderr else log
    done = ran(work, "--log-json", target, stderr=Terminal())
    assert ("encode: 100%|" in done.stderr) is not to_stderr
    text = done.stderr if to_stderr else log.read_text()
    assert kinds(text) == ["run.begin", "stage.begin", "stage.end", "run.end"]


def test_whatever_is_printed_becomes_a_line_of_the_log() -> None:
    def work(shell: Shell) -> None:
        print("said", file=sys.stderr)
        click.echo("echoed", err=True)
        logging.StreamHandler().handle(logging.makeLogRecord({"msg": "logged"}))
        shell.warn("ours")
        sys.stderr.write("cut")

    done = ran(work, "--log-json", "-", stderr=io.StringIO())
    said = [(e["event"], e["message"]) for e in events(done.stderr)[1:-2]]
    assert said[:3] == [("text", "said"), ("text", "echoed"), ("text", "logged")]
    assert said[3:] == [("warning", "ours")]
    assert kinds(done.stderr)[-2:] == ["run.end", "text"]  # that had no end of a line


def test_steps_of_a_release_are_told(world: World, tmp_path: Path) -> None:
    file = tmp_path / "release.toml"
    what = ("--kind", "full", "--name", "tune", "--target", world.target)
    good("init", file, *what, "--license", "apache-2.0")
    asked = ("release", file, "--until", "make", "--log-json", "-", "--json")
    done = good(*asked)
    told = [
        (event["event"], event.get("step"), event.get("stage"))
        for event in events(done.stderr)
    ]
    assert told == [
        ("run.begin", None, None),
        ("step.begin", "make", None),
        ("stage.begin", "make", "write"),
        ("stage.end", "make", "write"),
        ("step.end", "make", None),
        ("run.end", None, None),
    ]
    assert [(stage["step"], stage["name"]) for stage in done.json["stages"]] == [
        ("make", "write")
    ]
    assert kinds(good(*asked).stderr) == ["run.begin", "run.end"]


# How runs end.


def test_an_error_ends_the_log(world: World) -> None:
    done = here("verify", world.root / "gone", "--log-json", "-")
    assert done.code == 2
    end = events(done.stderr)[-1]
    message = f"{world.root}/gone: no such file or folder"
    assert (end["event"], end["level"], end["exit_code"]) == ("run.end", "error", 2)
    assert end["error"] == {"type": "UsageError", "message": message}


def test_what_a_check_finds_is_told(world: World) -> None:
    good(*world.make())
    (world.root / "delta" / "config.json").write_text("changed")
    log = world.root / "log"
    done = here("verify", world.root / "delta", "--log-json", log)
    assert done.code == 5
    *_, wrong, end = events(log.read_text())
    assert (wrong["event"], wrong["message"]) == ("error", done.error)
    assert end["error"] == {"type": "IntegrityError", "message": done.error}
    assert events(here("verify", world.root / "delta", "--log-json", "-").stderr)[-2][
        "message"
    ] == (done.error)


@pytest.mark.parametrize(
    ("arguments", "command", "message"),
    [
        (["verify", "--bogus"], "verify", "No such option '--bogus'."),
        (["trust", "add"], "trust add", "Missing argument 'PUBLISHER'."),
        (["bogus"], "releasekit", "No such command 'bogus'."),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], command: str, message: str) -> None:
    for log in (("--log-json", "-"), ("--log-json=-",)):
        done = here(*arguments, *log)
        begin, end = events(done.stderr)
        assert (done.code, begin["command"]) == (2, command)
        assert end["error"] == {"type": "UsageError", "message": end["message"]}
        assert end["message"].startswith(message)


def test_interruptions_are_told(tmp_path: Path) -> None:
    def stop(shell: Shell) -> None:
        shell.resume_hint = "run it again"
        raise KeyboardInterrupt

    report = tmp_path / "report.json"
    done = ran(stop, "--log-json", "-", "--run-report", report, stderr=io.StringIO())
    error = {"type": "Interrupted", "message": "interrupted; run it again"}
    assert (done.code, events(done.stderr)[-1]["error"]) == (130, error)
    assert json.loads(report.read_bytes())["error"] == error


def test_sigterm_ends_a_recorded_run_as_an_interruption(tmp_path: Path) -> None:
    def hang(shell: Shell) -> None:
        with shell.progress() as progress:
            Stage(progress, "encode", 10).advance(5)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    report = tmp_path / "report.json"
    done = ran(hang, "--run-report", report, stderr=io.StringIO())
    assert (done.code, done.error) == (130, "terminated; nothing was written")
    assert signal.getsignal(signal.SIGTERM) is before
    found = json.loads(report.read_bytes())
    assert (found["exit_code"], found["error"]["type"]) == (130, "Interrupted")
    (stage,) = found["stages"]
    assert (stage["name"], stage["nbytes"], stage["total_nbytes"]) == ("encode", 5, 10)


def bug(shell: Shell) -> None:
    raise ZeroDivisionError("in /data/acme/model")


@pytest.fixture
def hook() -> Iterator[None]:
    """What Python does with errors that nobody catches, as it was."""
    before = sys.excepthook
    yield
    sys.excepthook = before


def test_a_bug_says_what_to_do_next(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        ran(bug, stderr=io.StringIO())
    assert caught.value.__notes__ == [
        "This is a bug in releasekit. Run the same command with --run-report FILE, look "
        "through the file, and send it to the maintainers, with what you wanted to do."
    ]
    report = tmp_path / "report.json"
    with pytest.raises(ZeroDivisionError) as caught:
        ran(bug, "--run-report", report, stderr=io.StringIO())
    assert caught.value.__notes__ == [
        f"This is a bug in releasekit. Look through {report}, and send it to the "
        "maintainers, with what you wanted to do."
    ]
    error = json.loads(report.read_bytes())["error"]
    assert (error["type"], error["message"]) == ("ZeroDivisionError", "in <path-1>/model")
    assert error["trace"][-1].startswith(f"{__name__}:")
    assert error["trace"][-1].endswith(" in bug")


@pytest.mark.usefixtures("hook")
def test_a_bug_is_in_the_log_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    stderr = io.StringIO()
    with pytest.raises(ZeroDivisionError) as caught:
        ran(bug, "--log-json", "-", stderr=stderr)
    end = events(stderr.getvalue())[-1]
    assert (end["exit_code"], end["error"]["type"]) == (1, "ZeroDivisionError")
    assert end["error"]["stack_trace"].startswith("Traceback (most recent call last):\n")
    # Python says no more of it, where each line is to be JSON.
    sys.excepthook(ZeroDivisionError, caught.value, caught.tb)
    assert capsys.readouterr().err == ""


def test_a_bug_is_one_json_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        run(group(bug), ["work", "--json"])
    error = {"type": "ZeroDivisionError", "message": "in /data/acme/model", "exit_code": 1}
    assert json.loads(capsys.readouterr().out) == {"error": error}


# Where they go.


def test_places_that_do_not_do_are_refused_before_any_work(world: World) -> None:
    model = world.target / "model.safetensors"
    before = model.read_bytes()
    done = here(*world.make("--run-report", model))
    assert (done.code, done.error) == (
        2,
        f"{model}: exists already, and is no report of a run; give --run-report another "
        "file",
    )
    assert model.read_bytes() == before
    done = here(*world.make("--log-json", world.root))
    assert (done.code, done.error) == (
        2,
        f"{world.root}: cannot be written (Is a directory); give --log-json another file, "
        "or - for stderr",
    )
    assert not (world.root / "delta").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_a_log_that_cannot_be_written_does_not_end_the_run(world: World) -> None:
    done = good(*world.make("--log-json", "/dev/full"))
    assert done.stderr == (
        "warning: the log is not complete: [Errno 28] No space left on device\n"
    )


def test_a_report_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = ran(lambda _: report.mkdir(), "--run-report", report, stderr=io.StringIO())
    assert (done.code, done.stderr) == (
        0,
        f"warning: {report}: the run's report was not written: Is a directory\n",
    )


def test_help_is_not_recorded(tmp_path: Path) -> None:
    log, report = tmp_path / "log", tmp_path / "report.json"
    done = good("verify", "--log-json", log, "--run-report", report, "--help")
    assert "--run-report FILE" in done.stdout
    assert log.read_text() == ""
    assert not report.exists()


# The report.


def test_a_report_tells_of_no_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "willie"
    models = home / "My Secrets" / "project-x"
    models.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "willie")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxyuser:proxypass@proxy.acme.corp:1")
    monkeypatch.chdir(models)
    message = (
        f"{models}/sub dir/tune/x.bin: https://u:{TOKEN}@hub.acme.corp/project-x/y?sig=quo "
        f"gave: proxypass willie's Authorization: Bearer {TOKEN}"
    )

    def work(shell: Shell) -> None:
        shell.warn(f"sub dir/tune: willie@{os.uname().nodename} in {home}")
        raise FormatError(message)

    report = tmp_path / "report.json"
    asked = ("--model", "sub dir/tune", "--run-report", report)
    done = ran(work, *asked, stderr=io.StringIO())
    assert done.code == 3
    text = report.read_text()
    private = (
        "willie",
        "Secrets",
        "project-x",
        "sub dir",
        TOKEN,
        "acme.corp",
        "proxy",
        "quo",
    )
    assert [word for word in private if word in text.replace("HTTPS_PROXY", "")] == []
    found = json.loads(text)
    assert (found["command"], found["options"]) == ("work", {"model": "<path-1>/tune"})
    assert found["warnings"] == ["<path-1>/tune: <user>@<host> in ~"]
    assert found["error"] == {
        "type": "FormatError",
        "message": "~/<path-2>/x.bin: https://<secret>@<host>/<path-3>/y?<secret> gave: "
        "<secret> <user>'s Authorization: <secret>",
    }


def test_every_command_can_be_recorded() -> None:
    def leaves(command: click.Command) -> Iterator[click.Command]:
        if not isinstance(command, click.Group):
            yield command
            return
        for sub in command.commands.values():
            yield from leaves(sub)

    for command in leaves(cli):
        names = {name for option in command.params for name in option.opts}
        assert {"--log-json", "--run-report"} <= names, command.name
