"""One release in the making: what its file says, and by what its steps are known.

What a step follows from is told as values that stay the same wherever the files are moved
together, and from wherever the command is run: files go by their names beside the release's
own file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from dataclasses import replace as but
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from releasekit.authenticity import Policy
from releasekit.checkpoint.beside import TOOL_FOLDERS
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.locate import is_on_hub
from releasekit.codec import Add, Ulp
from releasekit.delta.release import read_sums
from releasekit.digest import hash_file
from releasekit.errors import FormatError, IntegrityError, UsageError
from releasekit.evals.compare import Comparison
from releasekit.evals.document import EVALUATIONS as EVALUATIONS_JSON
from releasekit.license_files import kind_of, texts_in
from releasekit.licenses.chain import FOLDER as LICENSES
from releasekit.licensing.clearance import CARD
from releasekit.manifest import (
    MANIFEST,
    REBUILT_SIGNATURE,
    SIGNATURE,
    SUCCESSION,
    SUMS,
)
from releasekit.names import listed
from releasekit.presentation.evaluation import FOLDER as EVALUATIONS
from releasekit.presentation.evaluation import Evaluated, evaluate, read_comparison
from releasekit.presentation.writing import placed
from releasekit.provenance import EPOCH_VARIABLE
from releasekit.publication import Wishes
from releasekit.received import files_in
from releasekit.releasing.file import DELTA
from releasekit.releasing.published import Published, look_for
from releasekit.releasing.record import StepRecord, key_of, known
from releasekit.releasing.sweep import Entry
from releasekit.reporting import FIGURES
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.signing.keys import PrivateKey
from releasekit.statistics.summary import SUMMARY

#: Folders of a release that are its card's: results with charts, and figures for the Hub.
_OF_CARD: Final = (f"{EVALUATIONS}/", ".eval_results/")
#: How the names of files end that a report has.
_OF_REPORT: Final = (".html", ".json", ".md", ".png")
#: What signing makes, or renews.
_OF_SIGNING: Final = (SIGNATURE, REBUILT_SIGNATURE, SUMS, SUCCESSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the work may use.

    Attributes:
        device: as in `make_delta`.
        threads: as in `make_delta`.
        max_memory: bytes of host memory.
        force: replace a folder that is in the way, and remove files on the Hub that belong
            to something else.
    """

    device: str = "auto"
    threads: int | None = None
    max_memory: int = DEFAULT_MAX_MEMORY
    force: bool = False


class Work:
    """One release, from its file on.

    Attributes:
        entry: what its file says, and of how many releases that is.
        path: the file.
        file: what it says.
        out: the folder that is made.
        record: what was done before.
        key: signs it; None if it names none.
        means: what the work may use.
        published: what the Hub has of the version; None if it was not asked.
        facts: what the file says of the model, with whole paths.
        licensing: what it says of licences, with whole paths.
    """

    def __init__(self, entry: Entry, key: PrivateKey | None, means: Means) -> None:
        file = entry.file
        self.entry = entry
        self.path = entry.path
        self.file = file
        self.out = self.here(file.out)
        name = None if entry.number is None else file.name
        self.record = StepRecord.beside(self.out, entry.path, name)
        self.key = key
        self.means = means
        self.published: Published | None = None
        facts, self.licensing = placed(file.facts, entry.path)
        self.facts = but(facts, repo=facts.repo or file.repo)

    def here(self, text: str) -> Path:
        """A path of the file's."""
        return self.path.parent / text

    def model(self, text: str) -> str | Path:
        """A model that the file names: a path, or on the Hub."""
        path = self.here(text)
        return text if not path.exists() and is_on_hub(text) else path

    @property
    def codec(self) -> Ulp:
        """How a delta is coded."""
        return Add() if self.file.codec == "add" else Ulp()

    @property
    def places(self) -> list[Path]:
        """Folders that are made."""
        return [self.out, *([self.report] if self.report is not None else [])]

    @property
    def inputs(self) -> list[Path]:
        """Models that are read, as far as they are here."""
        models = (self.file.target, *([self.file.base] if self.file.base else []))
        return [model for model in map(self.model, models) if isinstance(model, Path)]

    @property
    def result_files(self) -> tuple[str, ...]:
        """Files of evaluations, with whole paths."""
        return (*self.facts.results, *self.facts.base_results)

    @property
    def forced(self) -> bool:
        """Whether a folder that is there may go: it is ours, or the user says so."""
        return self.means.force or "make" in self.record.steps

    def _named(self, paths: list[str] | list[Path]) -> list[tuple[str, Path]]:
        """Files as they are called from where the release's file lies."""
        return [(os.path.relpath(path, self.path.parent), Path(path)) for path in paths]

    def sources(self) -> object:
        """What the first step follows from."""
        file = self.file
        if file.kind != DELTA:  # its name and licences go into the card alone
            return [file.kind, file.dtype, file.shard_nbytes, self._model(file.target)]
        models = [file.target, str(file.base), *file.accept_base]
        models += [file.base_release] if file.base_release is not None else []
        return [
            *(file.kind, file.name, file.version, file.publisher, file.codec),
            *(file.shard_nbytes, list(file.exclude), list(map(self._model, models))),
            *(self.said_of_licenses(), os.environ.get(EPOCH_VARIABLE)),
        ]

    def _model(self, text: str) -> object:
        """By what a model is known; on the Hub by its name: what it is, is asked there."""
        return [text, self._files_of(text)]

    def _files_of(self, text: str) -> object:
        """By what the files of a model are known."""
        path = self.model(text)
        if not isinstance(path, Path):
            return None
        if path.is_dir():
            names = [n for n in files_in(path) if TOOL_FOLDERS.isdisjoint(n.split("/"))]
            return known((name, path / name) for name in sorted(names))
        if not path.is_file():
            return known([("", path)])
        found = find(path)
        names = [*found.files, *([found.index] if found.index else [])]
        names += texts_in(found.root)  # which are taken for its licence
        return known((name, found.root / name) for name in names)

    def said_of_licenses(self) -> object:
        """What the maintainer says of licences, and the texts that are named."""
        texts = [text.rpartition("=")[2] for text in self.licensing.files]
        named = self._named([*texts, *map(str, self.licensing.folders)])
        said = list(self.facts.license_files)
        return [self.licensing.parameters, said, known(named)]

    def base(self) -> object:
        """By what the base is known that a report compares with."""
        return self._model(self.file.base) if self.file.base is not None else None

    def texts_of_base(self) -> object:
        """Licences that lie beside the base that a full model was made from."""
        base = self.model(self.file.base) if self.file.base else None
        if not isinstance(base, Path):
            return base
        folder = base if base.is_dir() else base.parent
        named = [(name, folder / name) for name in (*texts_in(folder), CARD, LICENSES)]
        return [self.file.base, known(named)]

    def said_in_card(self) -> object:
        """What the card says, but for where the results lie."""
        return asdict(but(self.facts, results=(), base_results=()))

    def results(self) -> object:
        """The files of evaluations; which are whose shows in how many there are of each."""
        counts = len(self.facts.results), len(self.facts.base_results)
        return [*counts, known(self._named(list(self.result_files)))]

    def evaluated(self) -> Evaluated:
        """The files of evaluations, read; raises as `evaluate`."""
        # Of no folder: what an earlier card has there is written anew.
        nowhere = self.record.path
        return evaluate(nowhere, self.facts, self.file.name, (), (), chart=False)

    def said_of_results(self) -> object:
        """What models are called beside their figures."""
        facts = self.facts
        named = (facts.title, facts.base_name, facts.base_id)
        return [self.file.name, *named, facts.results_name, facts.base_results_name]

    def shown(self) -> Comparison | None:
        """Evaluations that the card will show; None for those in the release's folder.

        What an earlier card has put there is not asked: it may be of other results.
        """
        if self.result_files:
            return self.evaluated().comparison
        target = self.model(self.file.target)
        if self.file.kind != DELTA and not isinstance(target, Path):
            return None  # what it brought itself is not known, and stays
        if self.file.kind != DELTA and isinstance(target, Path):
            brought = target / EVALUATIONS / EVALUATIONS_JSON
            if brought.is_file():
                return read_comparison(brought)
        return Comparison(model=self.file.name, base=None, suites=(), others=())

    def weights(self) -> str | None:
        """Digest of what the first step made; None if a file of that is not there."""
        try:
            names = [n for n in read_sums(self.out / SUMS) if not self.is_of_card(n)]
        except (FormatError, IntegrityError):
            return None
        if any(not (self.out / n).is_file() for n in names if n not in _OF_SIGNING):
            return None
        if self.file.kind == DELTA:
            return self.digest(MANIFEST)
        weights = sorted(name for name in names if name.endswith(".safetensors"))
        return key_of(known((name, self.out / name) for name in weights))

    def is_of_card(self, name: str) -> bool:
        """Whether a file of the release is the card's, which writes it anew."""
        if name == CARD or name.startswith(_OF_CARD):
            return True
        if self.file.kind == DELTA:
            return False  # its licences are made with it
        return name.startswith(f"{LICENSES}/") or kind_of(name) is not None

    def is_added(self, name: str) -> bool:
        """Whether a file comes, or may come, with a step after the first."""
        return self.is_of_card(name) or name in _OF_SIGNING

    def signature(self) -> str | None:
        """Digests of what signing makes; None if that is not there."""
        names = [SIGNATURE, *([REBUILT_SIGNATURE] if self.file.kind == DELTA else [])]
        found = [self.digest(name) for name in names]
        return key_of(found) if all(found) else None

    @property
    def report(self) -> Path | None:
        """The folder of the report; None if none is wanted."""
        return self.here(self.file.report) if self.file.report is not None else None

    def reported(self) -> str | None:
        """Digests of the report's figures, and of its words; None if one is not there."""
        found = [self.report / name for name in (FIGURES, SUMMARY)] if self.report else []
        if not found or not all(path.is_file() for path in found):
            return None
        return " ".join(map(hash_file, found))

    def check_report(self) -> None:
        """Refuse a report in a folder that is not ours to make anew, as UsageError."""
        out = self.report
        if out is None or not os.path.lexists(out):
            return
        is_ours = self.means.force or "report" in self.record.steps
        if self.reported() is None or not is_ours:
            raise UsageError(
                f"{out}: exists already; name another folder in release.report, or remove "
                "it"
            )
        # It is removed before it is drawn anew, and nothing else with it.
        others = [p.name for p in out.iterdir() if p.is_dir() or p.suffix not in _OF_REPORT]
        if others:
            raise UsageError(
                f"{out}: holds what belongs to no report: {listed(sorted(others))}; move "
                "it away, or name another folder in release.report"
            )

    def card(self) -> str | None:
        """Digests of the card, and of what it shows."""
        card = self.digest(CARD)
        if card is None:
            return None
        others = [n for n in files_in(self.out) if n != CARD and self.is_of_card(n)]
        rest = key_of(known((name, self.out / name) for name in sorted(others)))
        return f"{card} {rest}"

    def digest(self, name: str) -> str | None:
        """SHA-256 of a file of the release; None if it is not there."""
        path = self.out / name
        return hash_file(path) if path.is_file() else None

    def content(self) -> object:
        """What is signed, but for what signing renews."""
        return [each for each in self.everything() if each[1] not in _OF_SIGNING]

    def everything(self) -> list[list[object]]:
        """By what all files of the release are known."""
        return known([("", self.out)])

    def links(self) -> object:
        """By what the file of links from former keys is known."""
        links = self.file.succession
        return known([("", self.here(links))]) if links is not None else None

    @cached_property
    def fingerprint(self) -> str | None:
        """The key's; None if there is none."""
        return self.key.public.fingerprint if self.key is not None else None

    def wished(self) -> object:
        """What is wished for of the Hub, and shows there."""
        wishes = asdict(self.wishes())
        return {name: wishes[name] for name in wishes if name not in ("force", "xet")}

    def wishes(self) -> Wishes:
        """How it is to be published."""
        file = self.file
        return Wishes(
            revision=file.hub_revision,
            public=file.public,
            gated=file.gated,
            version=None if file.kind == DELTA else file.version,
            force=self.means.force,
            xet=file.xet,
        )

    def on_hub(self) -> str | None:
        """The commit that has the version's tag; as it was noted, if nobody can say."""
        if self.published is None:
            self.published = look_for(str(self.file.repo), f"v{self.file.version}")
        if self.published.doubt is None:
            return self.published.commit
        done = self.record.steps.get("publish")
        return done.outcome if done is not None else None

    def doubt(self) -> str:
        """Why it is not certain that the version is still published; or nothing."""
        if self.published is None or self.published.doubt is None:
            return ""
        return (
            "; the Hub could not be asked whether it still has that "
            f"({self.published.doubt})"
        )

    @contextmanager
    def policy(self) -> Iterator[Policy]:
        """Asks for the signature of the release's own key, if it has one."""
        if self.key is None:
            yield Policy(warn=lambda warning: None)
            return
        with NamedTemporaryFile(suffix=".pub.pem") as file:
            file.write(self.key.public.pem)
            file.flush()
            yield Policy(public_key=file.name, require_signature=True)

    @property
    def aside(self) -> Path:
        """Where a card that somebody has edited waits for the release to be made anew."""
        return self.out.with_name(f"{self.out.name}.{CARD}")

    def is_edited(self) -> bool:
        """Whether somebody has edited the card, now or before; one that is gone is none."""
        done, now = self.record.steps.get("card"), self.digest(CARD)
        if now is None:
            return self.record.edited and self.aside.is_file()
        changed = done is not None and not done.outcome.startswith(now)
        return self.record.edited or changed
