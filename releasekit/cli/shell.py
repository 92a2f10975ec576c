"""What every command shares: its options, where its words go, and its error boundary.

Results go to stdout, everything else to stderr. With `--json` stdout holds exactly one
JSON document, also when the command fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from releasekit import sizes
from releasekit.cli.exits import FAILED, INTERRUPTED, exit_code
from releasekit.errors import ReleaseKitError

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
    """

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = False
        self.resume_hint = "nothing was written"

    def result(
        self, document: dict[str, Any], lines: Iterator[str] | Sequence[str]
    ) -> None:
        """Print a result, as JSON or as text."""
        if self.json:
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        elif not self.quiet:
            for line in lines:
                click.echo(line)

    def fail(self, kind: str, message: str, code: int) -> int:
        """Report an error; returns the exit code."""
        if self.json:
            error = {"type": kind, "message": message, "exit_code": code}
            click.echo(json.dumps({"error": error}, indent=2, ensure_ascii=False))
        click.echo(f"error: {printable(message)}", err=True)
        return code

    def warn(self, message: str) -> None:
        """Say what is no error, but ought to be known; not even `-q` keeps it back."""
        click.echo(f"warning: {printable(message)}", err=True)

    def note_compiling(self) -> None:
        """Tell whoever watches why the first run takes some seconds to get going."""
        if self.quiet or not sys.stderr.isatty():
            return
        from releasekit.codec.native import is_cold

        if is_cold():
            click.echo("first run: compiling the codec for this processor …", err=True)

    @contextmanager
    def progress(
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
            bar.set_postfix_str(note(), refresh=False)
            bar.update(progress.done - bar.n)

        try:
            yield show
        finally:
            for bar in bars.values():
                bar.close()


def common_options(command: _F) -> _F:
    """`--json`, `-q` and `-v`, kept in the `Shell` rather than passed as arguments."""

    def flag(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
        def keep(context: click.Context, _: click.Parameter, value: bool) -> None:
            setattr(context.ensure_object(Shell), name, value)

        return keep

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
    """Run the command line; the only place that turns errors into exit codes."""
    shell = Shell()
    # Known before click parses: its own complaints about the arguments are results too.
    shell.json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(
            args=arguments, prog_name="releasekit", obj=shell, standalone_mode=False
        )
    except click.ClickException as error:
        if shell.json:
            shell.fail("UsageError", error.format_message(), error.exit_code)
        else:
            error.show()
        return error.exit_code
    except ReleaseKitError as error:
        return shell.fail(type(error).__name__, str(error), exit_code(error))
    except (KeyboardInterrupt, click.Abort):
        return shell.fail("Interrupted", f"interrupted; {shell.resume_hint}", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does. Nothing more can be said.
        sys.stderr.close()
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
