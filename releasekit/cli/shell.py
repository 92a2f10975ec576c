"""What every command shares: its options, where its words go, and its error boundary.

Results go to stdout, everything else to stderr. With `--json` stdout holds exactly one
JSON document, also when the command fails; with `--log-json -` stderr holds nothing but
lines of JSON. What happens in a run goes to its `Recorder`, whoever wants to know.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from releasekit import sizes
from releasekit.cli.exits import FAILED, INTERRUPTED, exit_code
from releasekit.cli.recording import LOG_OPTION, REPORT_OPTION, Recording
from releasekit.errors import ReleaseKitError
from releasekit.runs.recorder import stages_document

if TYPE_CHECKING:
    from tqdm import tqdm

    from releasekit.progress import Progress, ProgressCallback

_F = TypeVar("_F", bound=Callable[..., Any])


class Shell:
    """How this run of the command line speaks.

    Attributes:
        json: one JSON document on stdout instead of text.
        quiet: no progress, no summary.
        verbose: details in the summary.
        resume_hint: what to tell a user who interrupts.
        recording: what is written down of the run.
    """

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = False
        self.resume_hint = "nothing was written"
        self.recording = Recording()

    def result(
        self, document: dict[str, Any], lines: Iterator[str] | Sequence[str]
    ) -> None:
        """Print a result, as JSON or as text; JSON says what the stages took, too."""
        for worker in document.get("workers", ()):
            self.recording.recorder.worker(worker)
        if self.json:
            if times := self.recording.recorder.stages.times:
                document = document | {"stages": stages_document(times)}
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        elif not self.quiet:
            for line in lines:
                click.echo(line)

    def fail(
        self, kind: str, message: str, code: int, error: BaseException | None = None
    ) -> int:
        """Report an error, and of a bug the error itself; returns the exit code."""
        self.recording.recorder.fail(kind, message, error)
        if self.json:
            document = {"type": kind, "message": message, "exit_code": code}
            click.echo(json.dumps({"error": document}, indent=2, ensure_ascii=False))
        if error is None and not self.recording.logs_to_stderr:
            click.echo(f"error: {printable(message)}", err=True)
        return code

    def fault(self, kind: str, message: str, *, always: bool = False) -> None:
        """Say what is wrong, though there is a result.

        Args:
            kind: the error's class.
            message: what it says.
            always: also where the result is JSON, which tells of it in its own way.
        """
        self.recording.recorder.fault(kind, message)
        if (always or not self.json) and not self.recording.logs_to_stderr:
            click.echo(f"error: {printable(message)}", err=True)

    def warn(self, message: str) -> None:
        """Say what is no error, but ought to be known; not even `-q` keeps it back."""
        self.recording.recorder.warn(message)
        if not self.recording.logs_to_stderr:
            click.echo(f"warning: {printable(message)}", err=True)

    def note_compiling(self) -> None:
        """Tell whoever watches why the first run takes some seconds to get going."""
        if self.quiet or not sys.stderr.isatty():
            return
        from releasekit.codec.native import is_cold

        if is_cold():
            click.echo("first run: compiling the codec for this processor …", err=True)

    @contextmanager
    def progress(self) -> Iterator[ProgressCallback | None]:
        """A callback for whoever wants to know: a bar a stage, results in JSON, the log."""
        recorder = self.recording.recorder
        with self.bars() as draw:
            if not (self.json or recorder.wanted):
                yield draw
                return

            def show(progress: Progress) -> None:
                recorder.take(progress)
                if draw is not None:
                    draw(progress)

            try:
                yield show
            finally:
                recorder.stages.close()

    @contextmanager
    def bars(
        self, note: Callable[[], str] = lambda: ""
    ) -> Iterator[ProgressCallback | None]:
        """A callback that draws one bar a stage on stderr, if anyone can see it.

        Args:
            note: asked each time what else there is to say beside the bar.
        """
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from tqdm import tqdm

        bars: dict[str, tqdm[Any]] = {}

        def show(progress: Progress) -> None:
            bar = bars.get(progress.stage)
            if bar is None:
                for other in bars.values():
                    if other.n >= (other.total or 0):  # others go on beside it
                        other.close()
                bar = bars[progress.stage] = tqdm(
                    total=progress.total,
                    desc=progress.stage,
                    unit="B",
                    unit_scale=True,
                    file=sys.stderr,
                )
            bar.total = progress.total  # it grows, where others join in
            bar.set_postfix_str(note(), refresh=False)
            bar.update(progress.done - bar.n)

        try:
            yield show
        finally:
            for bar in bars.values():
                bar.close()


def common_options(command: _F) -> _F:
    """What every command has: `--json`, `-q`, `-v`, `--log-json`, `--run-report`.

    They are kept in the `Shell` rather than passed as arguments.
    """

    def flag(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
        def keep(context: click.Context, _: click.Parameter, value: bool) -> None:
            setattr(context.ensure_object(Shell), name, value)

        return keep

    def place(
        tell: Callable[[Recording, str], None],
    ) -> Callable[[click.Context, click.Parameter, str | None], None]:
        def keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
            if value is not None and not context.resilient_parsing:
                tell(context.ensure_object(Shell).recording, value)

        return keep

    command = _begins(command)
    for name, use, text in (
        (
            *(REPORT_OPTION, Recording.report_to),
            "Write a report of this run, without what is private, for a report of a bug.",
        ),
        (
            *(LOG_OPTION, Recording.log_to),
            "Append what happens to a file, a line of JSON each; - for stderr.",
        ),
    ):
        command = click.option(
            name,
            metavar="FILE",
            expose_value=False,
            is_eager=True,
            callback=place(use),
            help=text,
        )(command)
    for names, attribute, text in (
        (("-v", "--verbose"), "verbose", "Show details."),
        (("-q", "--quiet"), "quiet", "Show errors and warnings only."),
        (("--json",), "json", "Print the result as one JSON document on stdout."),
    ):
        command = click.option(
            *names,
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=flag(attribute),
            help=text,
        )(command)
    return command


def _begins(command: _F) -> _F:
    """Has the run begin once it is known what is to be done."""

    @functools.wraps(command)
    def begun(*arguments: Any, **options: Any) -> Any:
        context = click.get_current_context()
        context.ensure_object(Shell).recording.begin(context)
        return command(*arguments, **options)

    return cast(_F, begun)


def memory_options(command: _F) -> _F:
    """`--threads` and `--max-memory`: what the work may use."""
    for option in (
        click.option(
            "--max-memory",
            type=Size(),
            default="1GiB",
            show_default=True,
            help="Host memory to use at most.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="By default one a processor; two where they write to the disk.",
        ),
    ):
        command = option(command)
    return command


#: `--recipe`: whose delta it is, if not one of ours.
recipe_option: Final = click.option(
    "--recipe",
    type=click.Choice(["auto", "fastchat", "llava", "alpaca", "xor"]),
    default="auto",
    show_default=True,
    help="Whose script to follow with a delta that is not of releasekit.",
)


def recipe_options(command: _F) -> _F:
    """`--recipe`, `--dtype` and `--order`: how somebody else's delta is added."""
    for option in (
        click.option(
            "--order",
            type=click.Choice(["cast-add", "add-cast"]),
            help="Round base and delta to the dtype, then add, as the scripts do; or add "
            "in float32, then round. By default the recipe's.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float16", "bfloat16", "float32"]),
            help="Dtype of sum and result. By default the recipe's: float16, for alpaca "
            "float32.",
        ),
        recipe_option,
    ):
        command = option(command)
    return command


def work_options(command: _F) -> _F:
    """`--device`, `--threads` and `--max-memory`: what the work may use."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="Where residuals are added: auto, cpu, cuda, cuda:N, cuda:all or mps. "
        "The result is the same.",
    )(memory_options(command))


class Size(click.ParamType[int]):
    """A number of bytes: `2GB` is 2 x 10**9, `2GiB` is 2 x 2**30."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Bytes from text; fails as click does."""
        if isinstance(value, int):
            return value
        nbytes = sizes.parse(str(value))
        if nbytes is None:
            self.fail(f"{value!r} is not a size; write 2GB or 500MiB", param, ctx)
        return nbytes


def run(cli: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the only place that turns errors into exit codes.

    A bug passes, with a traceback and what to do about it, once it has been written down.
    """
    shell = Shell()
    given = sys.argv[1:] if arguments is None else arguments
    # Known before click parses: its own complaints about the arguments are results too.
    shell.json = "--json" in given
    with shell.recording as recording:
        try:
            code = _run(shell, cli, given)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            shell.fail(type(error).__name__, str(error), FAILED, error)
            _end(recording, FAILED)
            recording.explain_bug(error)
            raise
        _end(recording, code)
    return code


def _end(recording: Recording, code: int) -> None:
    for lack in recording.end(code):
        click.echo(f"warning: {printable(lack)}", err=True)


def _run(shell: Shell, cli: click.Command, arguments: Sequence[str]) -> int:
    recording = shell.recording
    try:
        code = cli.main(
            args=arguments, prog_name="releasekit", obj=shell, standalone_mode=False
        )
    except click.ClickException as error:
        recording.refused(error, arguments)
        if shell.json or recording.logs_to_stderr:
            shell.fail("UsageError", error.format_message(), error.exit_code)
        else:
            recording.recorder.fail("UsageError", error.format_message())
            error.show()
        return error.exit_code
    except ReleaseKitError as error:
        return shell.fail(type(error).__name__, str(error), exit_code(error))
    except (KeyboardInterrupt, click.Abort):
        how = "terminated" if recording.terminated else "interrupted"
        return shell.fail("Interrupted", f"{how}; {shell.resume_hint}", INTERRUPTED)
    except BrokenPipeError as error:
        # The reader of our output went away, as `head` does. Nothing more can be said.
        recording.recorder.fail(type(error).__name__, "who read the output went away")
        recording.unread = True
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return shell.fail(type(error).__name__, f"{where}{error.strerror}", FAILED)
    return code if isinstance(code, int) else 0


def printable(text: str) -> str:
    """Text from files made safe to print: it stays on its line, and controls nothing."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
