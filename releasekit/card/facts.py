"""What only the maintainer knows of a model, as `release.toml` says it.

    [card]        title, summary, description, developers, languages, tags, datasets,
                  pipeline_tag, library_name, repo, usage, contact, new_version, links
    [base]        id, name, relation, where
    [prompt]      format, system, tokenizer, notes
    [training]    data, sources, decontamination, procedure, phases, hardware
    [limits]      text
    [signing]     published_at
    [citation]    bibtex, text
    [licenses]    license, bases, rebuilt, files, folders, teachers
    [evaluations] model, base: files of results; model_name, base_name: their rows in
                  tables; date, harness, commit, url: of files that do not say

Nothing is made up: a fact that a card must state, and that nobody gave, is listed as
missing, and the card says that it is not stated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from releasekit import stricttoml
from releasekit.evals.scores import is_date
from releasekit.strictjson import Record

#: Tables of a `release.toml` that say how to release, and are no facts.
RELEASE_TABLES: Final = ("release", "hub")
#: How a model may derive from its base, in the Hub's words.
RELATIONS: Final = ("adapter", "finetune", "merge", "quantized")
#: Ids of models and data sets on the Hub; the oldest have no organisation.
HUB_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
#: ISO 639 codes, and two words that the Hub takes as well.
LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]+)*|code|multilingual")
# Only what cannot end a link or a cell.
_URL: Final = re.compile(r"https?://[^\s<>|\"`\\]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Something to read: a title and an address."""

    title: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a maintainer says of a model; what was left out is None or empty.

    Fields are the keys of the tables above; those of [base], [prompt] and [licenses] begin
    with the table's name. Texts are Markdown. `sources` and `phases` are rows of tables,
    each with the same columns, in order; `results` and `base_results` are the files of
    [evaluations].
    """

    title: str | None = None
    summary: str | None = None
    description: str | None = None
    developers: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    library_name: str | None = None
    repo: str | None = None
    usage: str | None = None
    contact: str | None = None
    new_version: str | None = None
    links: tuple[Link, ...] = ()
    base_id: str | None = None
    base_name: str | None = None
    base_relation: str | None = None
    base_where: str | None = None
    prompt_format: str | None = None
    prompt_system: str | None = None
    prompt_tokenizer: str | None = None
    prompt_notes: str | None = None
    data: str | None = None
    decontamination: str | None = None
    procedure: str | None = None
    hardware: str | None = None
    sources: tuple[Mapping[str, str], ...] = ()
    phases: tuple[Mapping[str, str], ...] = ()
    limits: str | None = None
    key_published_at: str | None = None
    bibtex: str | None = None
    citation: str | None = None
    license: str | None = None
    license_bases: tuple[str, ...] = ()
    license_rebuilt: str | None = None
    license_files: tuple[str, ...] = ()
    license_folders: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    base_results: tuple[str, ...] = ()
    results_name: str | None = None
    base_results_name: str | None = None
    results_date: str | None = None
    results_harness: str | None = None
    results_commit: str | None = None
    results_url: str | None = None

    def missing(self, *, derived: bool, delta: bool) -> tuple[str, ...]:
        """Facts that a card must state, and that nobody gave, by their paths in TOML.

        Args:
            derived: whether the model has a base.
            delta: whether it is rebuilt, which the card tells how; else its use is stated.
        """
        wanted: dict[str, object] = {
            "card.summary": self.summary,
            "card.description": self.description,
            "card.developers": self.developers,
            "card.languages": self.languages,
            "card.usage": self.usage or delta,
            "base.id": self.base_id or not derived,
            "prompt.format": self.prompt_format,
            "training.data": self.data,
            "training.decontamination": self.decontamination,
            "training.procedure": self.procedure or self.phases,
            "limits.text": self.limits,
        }
        return tuple(path for path, value in wanted.items() if not value)


#: Nothing is said.
NO_FACTS: Final = Facts()


def parse(document: bytes, subject: str) -> Facts:
    """Read facts from TOML; other tables of a `release.toml` may stand beside them.

    Args:
        document: the file.
        subject: its name, for messages.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    return parse_tables(stricttoml.loads(document, subject), subject)


def parse_tables(document: object, subject: str, path: str = "") -> Facts:
    """The same of what TOML came to; `path` is where it stands in its file."""
    root = Record(document, subject, path)
    tables = {
        name: root.optional_record(name) or Record({}, subject)
        for name in (
            *("card", "base", "prompt", "training", "limits", "signing"),
            *("citation", "licenses", "evaluations"),
        )
    }
    card, base, prompt = tables["card"], tables["base"], tables["prompt"]
    training, licenses = tables["training"], tables["licenses"]
    evaluations, citation = tables["evaluations"], tables["citation"]
    facts = Facts(
        title=_line(card, "title"),
        summary=_text(card, "summary"),
        description=_text(card, "description"),
        developers=_lines(card, "developers"),
        languages=_matching(card, "languages", LANGUAGE, "codes such as en or de"),
        tags=_lines(card, "tags"),
        datasets=_matching(card, "datasets", HUB_ID, "ids such as org/name"),
        pipeline_tag=_line(card, "pipeline_tag"),
        library_name=_line(card, "library_name"),
        repo=_one(card, "repo", HUB_ID, "the release's id on the Hub, org/name"),
        usage=_text(card, "usage"),
        contact=_text(card, "contact"),
        new_version=_one(card, "new_version", HUB_ID, "an id such as org/name"),
        links=_links(card),
        base_id=_one(base, "id", HUB_ID, "the base's id on the Hub, org/name"),
        base_name=_line(base, "name"),
        base_relation=base.choice("relation", RELATIONS) if base.has("relation") else None,
        base_where=_text(base, "where"),
        prompt_format=_text(prompt, "format"),
        prompt_system=_text(prompt, "system"),
        prompt_tokenizer=_text(prompt, "tokenizer"),
        prompt_notes=_text(prompt, "notes"),
        data=_text(training, "data"),
        decontamination=_text(training, "decontamination"),
        procedure=_text(training, "procedure"),
        hardware=_text(training, "hardware"),
        sources=_rows(training, "sources"),
        phases=_rows(training, "phases"),
        limits=_text(tables["limits"], "text"),
        key_published_at=_one(tables["signing"], "published_at", _URL, "https://…"),
        bibtex=_text(citation, "bibtex"),
        citation=_text(citation, "text"),
        license=_line(licenses, "license"),
        license_bases=_lines(licenses, "bases"),
        license_rebuilt=_line(licenses, "rebuilt"),
        license_files=_lines(licenses, "files"),
        license_folders=_lines(licenses, "folders"),
        teachers=_lines(licenses, "teachers"),
        results=_lines(evaluations, "model"),
        base_results=_lines(evaluations, "base"),
        results_name=_line(evaluations, "model_name"),
        base_results_name=_line(evaluations, "base_name"),
        results_date=_day(evaluations),
        results_harness=_line(evaluations, "harness"),
        results_commit=_line(evaluations, "commit"),
        results_url=_one(evaluations, "url", _URL, "https://…"),
    )
    for name in RELEASE_TABLES:
        root.optional_record(name)
    for table in (*tables.values(), root):
        table.close()
    return facts


def _text(record: Record, key: str) -> str | None:
    """Markdown; some text, or none given."""
    text = record.optional_text(key)
    if text is not None and not text.strip():
        raise record.fault(key, "some text; leave it out if there is none")
    return text.strip("\n") if text is not None else None


def _line(record: Record, key: str) -> str | None:
    text = record.optional_text(key)
    if text is not None and not _is_line(text):
        raise record.fault(key, "a line of text")
    return text


def _day(record: Record) -> str | None:
    text = record.optional_text("date")
    if text is not None and not is_date(text):
        raise record.fault("date", "a day such as 2023-07-21")
    return text


def _lines(record: Record, key: str) -> tuple[str, ...]:
    texts = record.optional_texts(key)
    if not all(map(_is_line, texts)):
        raise record.fault(key, "lines of text")
    return texts


def _is_line(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def _one(record: Record, key: str, pattern: re.Pattern[str], expected: str) -> str | None:
    text = record.optional_text(key)
    if text is not None and not pattern.fullmatch(text):
        raise record.fault(key, expected)
    return text


def _matching(
    record: Record, key: str, pattern: re.Pattern[str], expected: str
) -> tuple[str, ...]:
    texts = record.optional_texts(key)
    if not all(map(pattern.fullmatch, texts)):
        raise record.fault(key, f"an array of {expected}")
    return texts


def _links(card: Record) -> tuple[Link, ...]:
    links = []
    for record in card.optional_records("links"):
        url = record.text("url")
        if not _URL.fullmatch(url):
            raise record.fault("url", "https://…")
        links.append(Link(title=_line(record, "title") or url, url=url))
        record.close()
    return tuple(links)


def _rows(training: Record, key: str) -> tuple[Mapping[str, str], ...]:
    """Rows of a table, whose columns a maintainer names."""
    rows: list[dict[str, str]] = []
    for record in training.optional_records(key):
        columns = record.keys()
        if not columns:
            raise training.fault(key, "a column in each")
        row = {column: record.scalar(column) for column in columns}
        record.close()
        if rows and row.keys() != rows[0].keys():
            raise training.fault(key, f"the columns {', '.join(rows[0])} in each")
        rows.append({column: row[column] for column in rows[0]} if rows else row)
    return tuple(rows)
