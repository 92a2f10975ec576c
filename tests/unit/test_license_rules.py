"""Every rule with releases that break it, in the words that say so, and ones that keep it.

A case says what a release is like; the release is in good order but for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from releasekit.findings import Severity
from releasekit.license_files import load_catalogue
from releasekit.licenses.chain import (
    CHAIN,
    FOLDER,
    LICENSE,
    NOTICE,
    Chain,
    Grant,
    Kind,
    Text,
)
from releasekit.licenses.evidence import CardEvidence, Evidence
from releasekit.licenses.notice import assemble
from releasekit.licenses.records import OTHER, Catalogue, parse
from releasekit.licenses.rules import RULES, check

CATALOGUE = load_catalogue()
NAMES = {Kind.LICENSE: "LICENSE", Kind.USE_POLICY: "USE_POLICY.md", Kind.NOTICE: "NOTICE"}
LLAMA_2 = "FreeWilly2"
LLAMA_3 = "Llama-3-Tune"


def record(name: str, **fields: Any) -> Catalogue:
    """The catalogue, with a record of a user's own."""
    terms = {"commercial": True, "research_only": False, "acceptance": False} | fields
    lines = [f"{key} = {str(value).lower()}" for key, value in terms.items()]
    document = [
        f'id = "{name}"',
        f'name = "{name}"',
        'hub = "other"',
        f'hub_name = "{name}"',
    ]
    document += ['url = "https://licences.example/"', 'summary = "Terms."', *lines]
    own = parse("\n".join(document).encode(), f"{name}.toml")
    return Catalogue([*CATALOGUE, own])


def grant(name: str, of: str = "Tune", *, without: str = "", **fields: Any) -> Grant:
    """A licence with all the texts that must go with it, but for those of a kind."""
    known = CATALOGUE.get(name)
    asked = {
        Kind.LICENSE: True,
        Kind.USE_POLICY: known.travels.use_policy,
    }
    texts = tuple(
        Text(path=f"{FOLDER}/{known.id}/{NAMES[kind]}", kind=kind, sha256="0" * 64)
        for kind, wanted in asked.items()
        if wanted and kind.value != without
    )
    return replace(Grant.under(known, of, texts), **fields)


def unrecorded(name: str, *, commercial: bool) -> Grant:
    """A licence that nobody has a record of."""
    return replace(grant("mit"), id=name, commercial=commercial, notice=None)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A release: as `Evidence`, most of which follows from the rest.

    Attributes:
        rule: which is put to the test.
        finds: what it finds: why, and what to do; nothing if the release keeps to it.
        license, bases, rebuilt: licences, by id or as they are; `rebuilt` is as `license`
            with a delta by default.
        without: files that are missing.
        card: metadata in place of those that follow; None to leave one out.
        body: of the card.
    """

    rule: str
    finds: tuple[tuple[str, str], ...] = ()
    name: str = "Tune"
    delta: bool = True
    license: str | Grant | None = "cc-by-nc-4.0"
    bases: tuple[str | Grant, ...] = ("apache-2.0",)
    rebuilt: str | Grant | None = None
    teachers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    notices: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    body: str = "A fine-tune.\n\nBuilt with Llama. Built with Meta\nLlama 3."
    no_card: bool = False
    no_chain: bool = False
    card_expected: bool = True
    public: bool = True
    base_license: str | None = None
    catalogue: Catalogue = CATALOGUE

    @property
    def evidence(self) -> Evidence:
        own = grant(self.license) if isinstance(self.license, str) else self.license
        rebuilt = grant(self.rebuilt) if isinstance(self.rebuilt, str) else self.rebuilt
        chain = Chain(
            bases=tuple(grant(b, "Base") if isinstance(b, str) else b for b in self.bases),
            release=own,
            rebuilt=(rebuilt or own) if self.delta else None,
            teachers=self.teachers,
        )
        texts = {text.path for one in chain.grants for text in one.texts}
        files = {*texts, *self.files, CHAIN, LICENSE, NOTICE} - {*self.without}
        hub = {"license": own.hub} if own else {}
        if own is not None and own.hub_name is not None:
            hub |= {"license_name": own.hub_name, "license_link": LICENSE}
        data = {"base_model": "org/base", "extra_gated_prompt": "Do you agree?", **hub}
        data = {key: value for key, value in (data | {**self.card}).items() if value != ""}
        notice = assemble(chain, self.name, ())
        return Evidence(
            name=self.name,
            delta=self.delta,
            chain=None if self.no_chain else chain,
            files=frozenset(files),
            changed=frozenset(self.changed),
            notices=notice if self.notices is None else self.notices.encode(),
            card=None if self.no_card else CardEvidence(data=data, text=self.body),
            card_expected=self.card_expected,
            base_license=self.base_license,
            public=self.public,
        )


NAME_ONE = "name one with --license; `releasekit licenses list` has them"
NAME_BASE = "name it with --base-license"
CHOOSE_NC = "choose a non-commercial licence, such as cc-by-nc-4.0"
PUBLISH_DELTA = "publish the delta that make-delta makes"
WRITE_NOTICE = "add it to NOTICE; make-delta and card write it"
SAY_CHANGED = "say so in NOTICE; make-delta and card write it"
WRITE_LINE = "write the card with `releasekit card`, or add the line to README.md"
WRITE_CARD = "write the card again with `releasekit card`"
MAKE_AGAIN = "make the release again, or give the record it was made with by --license-dir"
ASK_HOLDER = "check with whoever holds the rights, and say so in the card"
NO_LICENSE_YET = "has no licence, so nobody may use it"
KNOWN_BY = (
    "`releasekit licenses list` names all, and --license-dir adds records of your own"
)
LLAMA_WEIGHTS = (
    "holds full weights, and llama-1 does not allow publishing those: the licence of the "
    "base is personal and cannot be passed on, and its weights were given to applicants "
    "only: publish a delta, which is of use to those who have the base"
)
LLAMA_1_LINE = (
    "LLaMA is licensed under the LLaMA License, Copyright (c) Meta Platforms, Inc. All "
    "Rights Reserved."
)


def commercial(license_id: str, base: str, of: str = "Tune") -> tuple[str, str]:
    why = f"{license_id} allows commercial use of {of}, and its base's licence, {base}, "
    return why + "forbids it", CHOOSE_NC


def same(base: str, other: str) -> tuple[str, str]:
    why = f"{base} asks that derivatives be under {base} too, and Tune is under {other}"
    return why, f"use --license {base}"


def no_text(license_id: str, url: str) -> tuple[str, str]:
    return (
        f"the text of {license_id} is not there, and must go with every copy",
        f"give the text with --license-file {license_id}=FILE; it is published at {url}",
    )


def no_policy(license_id: str) -> tuple[str, str]:
    return (
        f"the use policy of {license_id} is not there, and must go with every copy",
        f"give the text with --license-file {license_id}=USE_POLICY.md, from the base's "
        "repository or where its licensor publishes it",
    )


def no_line(license_id: str, line: str) -> tuple[str, str]:
    return f'{license_id} prescribes a line that no NOTICE file has: "{line}"', WRITE_NOTICE


def prefix(license_id: str, wanted: str, name: str, call: str) -> tuple[str, str]:
    return (
        f'{license_id} asks that derivatives\' names begin with "{wanted}", and this one '
        f'is called "{name}"',
        f'call it "{call}", or so',
    )


def no_display(license_id: str, line: str) -> tuple[str, str]:
    return (
        f'{license_id} asks to display "{line}", and the model card does not',
        WRITE_LINE,
    )


def outputs(license_id: str) -> tuple[str, str]:
    why = f"it was trained on outputs of a model under {license_id}, which may not be used "
    return why + "to improve other models", ASK_HOLDER


def dropped(base: str, own: str) -> tuple[str, str]:
    return (
        f"{base} restricts what may be done with derivatives, and {own} of Tune does not "
        "say so",
        "point to the base's restrictions in the card, which `releasekit card` does, or "
        f"use --license {base}",
    )


def card_says(key: str, found: str, license_id: str, wanted: str) -> tuple[str, str]:
    why = f"README.md says {key}: {found}, and the release is under {license_id}, which "
    return f'{why}the Hub calls "{wanted}"', WRITE_CARD


def milder(term: str, found: str, license_id: str, wanted: str) -> tuple[str, str]:
    why = f"licenses/chain.json says {term}: {found} of {license_id}, whose record says "
    return why + wanted, MAKE_AGAIN


CASES = [
    # Has it a licence?
    Case(rule="license-missing"),
    Case(rule="license-missing", bases=(), delta=False, license="mit"),
    Case(
        rule="license-missing",
        license=None,
        finds=((f"Tune {NO_LICENSE_YET}", NAME_ONE),),
    ),
    Case(
        rule="license-missing",
        no_chain=True,
        delta=False,
        finds=((f"Tune {NO_LICENSE_YET}", NAME_ONE),),
    ),
    Case(  # that of the rebuilt model is not that of what is published
        rule="license-missing",
        license=None,
        rebuilt="mit",
        finds=((f"Tune {NO_LICENSE_YET}", NAME_ONE),),
    ),
    # Is each known?
    Case(rule="license-unknown", bases=("llama-1", "gemma", "openrail")),
    Case(
        rule="license-unknown",
        license=unrecorded("own", commercial=True),
        catalogue=record("own"),
    ),
    Case(
        rule="license-unknown",
        license=unrecorded("lama-2", commercial=True),
        finds=(
            (
                'licence "lama-2" is not known',
                'did you mean "llama-2", "llama-3.2", "llama-4"? ' + KNOWN_BY,
            ),
        ),
    ),
    Case(
        rule="license-unknown",
        bases=(unrecorded("zzzzzzzz", commercial=True),),
        finds=(('licence "zzzzzzzz" is not known', KNOWN_BY),),
    ),
    # Is that of its base?
    Case(rule="base-license-missing"),
    Case(rule="base-license-missing", delta=False, bases=(), card={"base_model": ""}),
    Case(rule="base-license-missing", delta=False, bases=(), no_card=True),
    Case(
        rule="base-license-missing",
        bases=(),
        finds=(("Tune derives from another model, whose licence is not named", NAME_BASE),),
    ),
    Case(
        rule="base-license-missing",
        bases=(),
        delta=False,
        card={"base_model": ["org/base"]},
        finds=(("Tune derives from another model, whose licence is not named", NAME_BASE),),
    ),
    # May it be used commercially, though its base may not?
    Case(rule="noncommercial-base", license="cc-by-nc-4.0", bases=("llama-1",)),
    Case(rule="noncommercial-base", license="stable-beluga-nc", bases=("llama-2",)),
    Case(rule="noncommercial-base", license="apache-2.0", bases=("llama-2", "gemma")),
    Case(rule="noncommercial-base", license=None, bases=("llama-1",)),
    Case(
        rule="noncommercial-base",
        license="apache-2.0",
        bases=("llama-1",),
        finds=(commercial("apache-2.0", "llama-1"),),
    ),
    Case(  # any ancestor counts
        rule="noncommercial-base",
        license="mit",
        bases=("apache-2.0", "cc-by-nc-4.0", "llama-1"),
        finds=(commercial("mit", "cc-by-nc-4.0"), commercial("mit", "llama-1")),
    ),
    Case(  # the delta may not; the model that it rebuilds may
        rule="noncommercial-base",
        license="cc-by-nc-4.0",
        rebuilt=grant("llama-2", "Tune-70B"),
        bases=("stable-beluga-nc",),
        finds=(commercial("llama-2", "stable-beluga-nc", "Tune-70B"),),
    ),
    Case(  # what its chain says makes it no milder
        rule="noncommercial-base",
        license="mit",
        bases=(grant("llama-1", commercial=True, research_only=False),),
        finds=(commercial("mit", "llama-1"),),
    ),
    Case(
        rule="noncommercial-base",
        license=grant("mit", commercial=False),
        bases=("cc-by-nc-4.0",),
        finds=(commercial("mit", "cc-by-nc-4.0"),),
    ),
    Case(  # of a licence that nobody knows, its own word is taken
        rule="noncommercial-base",
        license="mit",
        bases=(unrecorded("own", commercial=False),),
        finds=(commercial("mit", "own"),),
    ),
    Case(
        rule="noncommercial-base",
        license="mit",
        bases=(unrecorded("own", commercial=True),),
    ),
    Case(
        rule="noncommercial-base",
        license=grant("mit", ""),
        delta=False,
        bases=("qwen-research",),
        finds=(commercial("mit", "qwen-research"),),
    ),
    # Must it be under its base's licence?
    Case(rule="same-license", license="cc-by-sa-4.0", bases=("cc-by-sa-4.0",)),
    Case(rule="same-license", license="stable-beluga-nc", bases=("stable-beluga-nc",)),
    Case(rule="same-license", license="cc-by-nc-4.0", bases=("llama-1", "gemma")),
    Case(
        rule="same-license",
        license="cc-by-4.0",
        bases=("cc-by-sa-4.0",),
        finds=(same("cc-by-sa-4.0", "cc-by-4.0"),),
    ),
    Case(
        rule="same-license",
        license="cc-by-nc-sa-4.0",
        rebuilt="cc-by-nc-4.0",
        bases=("cc-by-nc-sa-4.0",),
        finds=(same("cc-by-nc-sa-4.0", "cc-by-nc-4.0"),),
    ),
    Case(
        rule="same-license",
        license="cc-by-nc-4.0",
        bases=("stable-beluga-nc", "llama-2"),
        finds=(same("stable-beluga-nc", "cc-by-nc-4.0"),),
    ),
    # May its weights be published?
    Case(rule="weights-upload", bases=("llama-1",)),
    Case(rule="weights-upload", bases=("llama-1",), delta=False, public=False),
    Case(rule="weights-upload", bases=("llama-2",), delta=False),
    Case(
        rule="weights-upload",
        bases=("llama-1",),
        delta=False,
        finds=((f"Tune {LLAMA_WEIGHTS}", PUBLISH_DELTA),),
    ),
    Case(
        rule="weights-upload",
        license="llama-1",
        bases=(),
        delta=False,
        finds=((f"Tune {LLAMA_WEIGHTS}", PUBLISH_DELTA),),
    ),
    # Are the texts there, as they were?
    Case(rule="text-missing", license="llama-2", bases=("llama-2", "gemma", "mit")),
    Case(rule="text-missing", license=grant("cc-by-nc-4.0", without="license")),
    Case(
        rule="text-missing",
        license=grant("mit", without="license"),
        finds=(no_text("mit", "https://opensource.org/license/mit"),),
    ),
    Case(  # it is listed, and not there
        rule="text-missing",
        bases=("bsd-3-clause",),
        without=("licenses/bsd-3-clause/LICENSE",),
        finds=(no_text("bsd-3-clause", "https://opensource.org/license/bsd-3-clause"),),
    ),
    Case(  # a notice is no licence
        rule="text-missing",
        bases=(
            replace(
                grant("mit"),
                texts=(
                    Text(path="licenses/mit/NOTICE", kind=Kind.NOTICE, sha256="0" * 64),
                ),
            ),
        ),
        finds=(no_text("mit", "https://opensource.org/license/mit"),),
    ),
    Case(rule="text-changed"),
    Case(
        rule="text-changed",
        changed=("licenses/b/LICENSE", "licenses/a/LICENSE"),
        finds=(
            (
                "licenses/a/LICENSE is not the text that licenses/chain.json lists",
                "restore the file",
            ),
            (
                "licenses/b/LICENSE is not the text that licenses/chain.json lists",
                "restore the file",
            ),
        ),
    ),
    # Are the lines?
    Case(rule="notice-missing", bases=("llama-1", "llama-2", "gemma", "llama-3.1")),
    Case(
        rule="notice-missing",
        bases=("llama-1",),
        notices=f"Some\n\n  {LLAMA_1_LINE.replace(' ', chr(10))} And more.",
    ),
    Case(rule="notice-missing", bases=("mit",), notices=""),
    Case(
        rule="notice-missing",
        bases=("llama-1",),
        notices=LLAMA_1_LINE[:-1],
        finds=(no_line("llama-1", LLAMA_1_LINE),),
    ),
    Case(
        rule="notice-missing",
        license=None,
        bases=("llama-2", "gemma"),
        notices="",
        finds=(
            no_line(
                "llama-2",
                "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) "
                "Meta Platforms, Inc. All Rights Reserved.",
            ),
            no_line(
                "gemma",
                "Gemma is provided under and subject to the Gemma Terms of Use found at "
                "ai.google.dev/gemma/terms",
            ),
        ),
    ),
    # Are the use policies?
    Case(rule="use-policy-missing", license="llama-2", bases=("llama-2",)),
    Case(rule="use-policy-missing", bases=("llama-1", "mit")),
    Case(
        rule="use-policy-missing",
        bases=(grant("llama-3", without="use-policy"),),
        finds=(no_policy("llama-3"),),
    ),
    Case(
        rule="use-policy-missing",
        bases=("llama-3.1",),
        without=("licenses/llama-3.1/USE_POLICY.md",),
        finds=(no_policy("llama-3.1"),),
    ),
    # Does it say that the work was changed?
    Case(rule="changes-missing", bases=("apache-2.0",)),
    Case(rule="changes-missing", notices="", body="We fine-tuned it."),
    Case(rule="changes-missing", notices="It was CHANGED.", no_card=True),
    Case(rule="changes-missing", notices="", body="", bases=("mit", "llama-1")),
    Case(
        rule="changes-missing",
        notices="An unchanged copy.",
        body="Nothing.",
        bases=("apache-2.0", "cc-by-4.0"),
        finds=(
            (
                "apache-2.0 asks to state that the work was changed, and nothing does",
                SAY_CHANGED,
            ),
            (
                "cc-by-4.0 asks to state that the work was changed, and nothing does",
                SAY_CHANGED,
            ),
        ),
    ),
    # Is it called as it must be?
    *(
        Case(rule="name-prefix", bases=(base,), name=name)
        for base, name in (
            ("llama-2", "FreeWilly2"),
            ("llama-3", "Llama-3-Tune"),
            ("llama-3", "org/Llama 3 Tune"),
            ("llama-3", "llama_3-8B-tune"),
            ("llama-3", "Llama3"),
            ("llama-3.1", "Llama-Tune"),
            ("llama-4", "Llama-3.1-Tune"),
        )
    ),
    Case(rule="name-prefix", teachers=("llama-3", "llama-2", "gpt-4")),
    Case(rule="name-prefix", teachers=("llama3.1",), name="Llama-Tune"),
    Case(
        rule="name-prefix",
        bases=("llama-3",),
        finds=(prefix("llama-3", "Llama 3", "Tune", "Llama-3-Tune"),),
    ),
    Case(
        rule="name-prefix",
        bases=("llama-3",),
        name="Llama-Tune",
        finds=(prefix("llama-3", "Llama 3", "Llama-Tune", "Llama-3-Llama-Tune"),),
    ),
    Case(
        rule="name-prefix",
        bases=("llama-3.1", "llama-3.2"),
        name="Meta-Llama-Tune",
        finds=(
            prefix("llama-3.1", "Llama", "Meta-Llama-Tune", "Llama-Meta-Llama-Tune"),
            prefix("llama-3.2", "Llama", "Meta-Llama-Tune", "Llama-Meta-Llama-Tune"),
        ),
    ),
    Case(  # the organisation is not the name
        rule="name-prefix",
        bases=("llama-3.3",),
        name="llama-org/tune",
        finds=(prefix("llama-3.3", "Llama", "llama-org/tune", "Llama-tune"),),
    ),
    Case(  # even a model that was only trained on its outputs
        rule="name-prefix",
        teachers=("llama3.1",),
        finds=(prefix("llama-3.1", "Llama", "Tune", "Llama-Tune"),),
    ),
    # Does its card say what it must?
    Case(rule="built-with", bases=("llama-3.1",), name="Llama-Tune"),
    Case(rule="built-with", bases=("llama-3",), name=LLAMA_3),
    Case(rule="built-with", bases=("llama-2",), name=LLAMA_2, body=""),
    Case(rule="built-with", bases=("llama-3",), no_card=True, card_expected=False),
    Case(
        rule="built-with",
        bases=("llama-3",),
        body="Built with Llama",
        finds=(no_display("llama-3", "Built with Meta Llama 3"),),
    ),
    Case(
        rule="built-with",
        bases=("llama-4",),
        teachers=("qwen",),
        body="",
        finds=(
            no_display("llama-4", "Built with Llama"),
            no_display("qwen", "Built with Qwen"),
        ),
    ),
    Case(
        rule="built-with",
        bases=("llama-3.1",),
        no_card=True,
        finds=(no_display("llama-3.1", "Built with Llama"),),
    ),
    # `license: other` says which.
    Case(rule="other-incomplete", license="stable-beluga-nc", bases=("llama-2",)),
    Case(rule="other-incomplete", license="llama-1", bases=("llama-1",)),
    Case(rule="other-incomplete", card={"license_link": "gone"}),
    Case(rule="other-incomplete", license="llama-1", no_card=True, without=(LICENSE,)),
    Case(
        rule="other-incomplete",
        license="llama-1",
        card={"license_link": "https://licences.example/llama"},
    ),
    Case(
        rule="other-incomplete",
        license="llama-1",
        card={"license_link": "LICENSE.txt"},
        files=("LICENSE.txt",),
        without=(LICENSE,),
    ),
    Case(
        rule="other-incomplete",
        license="llama-1",
        card={"license_name": "", "license_link": ""},
        finds=(
            (
                "README.md says license: other, without a license_name",
                "add license_name; `releasekit card` writes it",
            ),
            (
                "README.md says license: other, without a license_link",
                "add license_link; `releasekit card` writes it",
            ),
        ),
    ),
    Case(
        rule="other-incomplete",
        license="llama-1",
        card={"license_name": ["llama-1"], "license_link": 1},
        finds=(
            (
                "README.md says license: other, without a license_name",
                "add license_name; `releasekit card` writes it",
            ),
            (
                "README.md says license: other, without a license_link",
                "add license_link; `releasekit card` writes it",
            ),
        ),
    ),
    Case(
        rule="other-incomplete",
        license="llama-1",
        card={"license_link": "LICENSE.md"},
        finds=(
            (
                'README.md links to the licence in "LICENSE.md", which is not there',
                "add the file; give the text with --license-file",
            ),
        ),
    ),
    # The card names the licence that it is under.
    Case(rule="card-license"),
    Case(rule="card-license", no_card=True),
    Case(rule="card-license", license=None, card={"license": "mit"}),
    Case(rule="card-license", license="stable-beluga-nc"),
    Case(rule="card-license", license="cc-by-nc-4.0", rebuilt="llama-1"),
    Case(rule="card-license", license="cc-by-nc-4.0", delta=False, rebuilt="llama-1"),
    Case(
        rule="card-license",
        card={"license": "mit"},
        finds=(card_says("license", '"mit"', "cc-by-nc-4.0", "cc-by-nc-4.0"),),
    ),
    Case(
        rule="card-license",
        license="llama-2",
        card={"license": ""},
        finds=(card_says("license", "nothing", "llama-2", "llama2"),),
    ),
    Case(
        rule="card-license",
        card={"license": ["cc-by-nc-4.0", "mit"]},
        finds=(card_says("license", "what is no text", "cc-by-nc-4.0", "cc-by-nc-4.0"),),
    ),
    Case(
        rule="card-license",
        license="stable-beluga-nc",
        card={"license": "mit", "license_name": "mine"},
        finds=(
            card_says("license", '"mit"', "stable-beluga-nc", OTHER),
            card_says("license_name", '"mine"', "stable-beluga-nc", "stable-beluga-nc"),
        ),
    ),
    # The chain repeats the terms as they are.
    Case(rule="milder-terms", license="llama-1", bases=("gemma", "llama-1", "mrl")),
    Case(rule="milder-terms", license=grant("mit", commercial=False, acceptance=True)),
    Case(rule="milder-terms", bases=(unrecorded("own", commercial=True),)),
    Case(
        rule="milder-terms",
        bases=(grant("llama-1", commercial=True, research_only=False, acceptance=False),),
        finds=(
            milder("commercial", "true", "llama-1", "false"),
            milder("research_only", "false", "llama-1", "true"),
            milder("acceptance", "false", "llama-1", "true"),
        ),
    ),
    Case(
        rule="milder-terms",
        license=grant("cc-by-nc-4.0", commercial=True),
        finds=(milder("commercial", "true", "cc-by-nc-4.0", "false"),),
    ),
    # Does the base's own card say so as well?
    Case(rule="base-card"),
    Case(rule="base-card", bases=("llama-2",), base_license="llama2"),
    Case(rule="base-card", bases=("mit", "llama-2"), base_license="LLAMA2"),
    Case(rule="base-card", license=None, bases=(), base_license="mit"),
    Case(
        rule="base-card",
        base_license="llama2",
        finds=(
            (
                'the base\'s own card says license: "llama2", and the release says '
                "apache-2.0",
                "name the base's licence with --base-license, as its publisher does",
            ),
        ),
    ),
    # There is a card.
    Case(rule="card-missing"),
    Case(rule="card-missing", no_card=True, card_expected=False),
    Case(
        rule="card-missing",
        no_card=True,
        finds=(("there is no model card", "write one with `releasekit card`"),),
    ),
    # Creative Commons allows no further restrictions.
    Case(rule="added-use-policy", license="llama-2", bases=("llama-2",)),
    Case(rule="added-use-policy", license="cc-by-nc-4.0", bases=("llama-2",)),
    Case(rule="added-use-policy", bases=("llama-2",), files=("USE_POLICY.md",)),
    Case(
        rule="added-use-policy",
        files=("Use-Policy.txt",),
        finds=(
            (
                "cc-by-nc-4.0 allows no further restrictions, and a use policy goes with "
                "it: Use-Policy.txt",
                "leave the policy out, or choose a licence that has one",
            ),
        ),
    ),
    Case(
        rule="added-use-policy",
        license=grant("cc-by-nc-4.0", texts=grant("llama-2").texts),
        finds=(
            (
                "cc-by-nc-4.0 allows no further restrictions, and a use policy goes with "
                "it: licenses/llama-2/USE_POLICY.md",
                "leave the policy out, or choose a licence that has one",
            ),
        ),
    ),
    # What it was trained on.
    Case(rule="teacher-terms"),
    Case(rule="teacher-terms", teachers=("apache-2.0", "llama-3.1")),
    Case(rule="teacher-terms", teachers=("LLaMA2",), bases=("llama-2",)),
    Case(
        rule="teacher-terms",
        teachers=("gpt-4", "llama2"),
        bases=("llama-3",),
        finds=(
            (
                'it was trained on outputs of "gpt-4", whose terms may forbid that',
                "check the terms of that service or model, and say so in the card",
            ),
            outputs("llama-2"),
        ),
    ),
    # Restrictions are passed on.
    Case(rule="restrictions-dropped", license="llama-2", bases=("llama-2",)),
    Case(rule="restrictions-dropped", license="gemma", bases=("openrail",)),
    Case(rule="restrictions-dropped", license="mrl", bases=("llama-2",)),
    Case(rule="restrictions-dropped", license="mit", bases=("apache-2.0",)),
    Case(
        rule="restrictions-dropped",
        bases=("llama-1",),
        body="Its base is under the LLaMA License Agreement.",
    ),
    Case(
        rule="restrictions-dropped",
        bases=("llama-1",),
        no_card=True,
        card_expected=False,
    ),
    Case(
        rule="restrictions-dropped",
        license="apache-2.0",
        bases=("llama-2",),
        finds=(dropped("llama-2", "apache-2.0"),),
    ),
    Case(
        rule="restrictions-dropped",
        license="cc-by-nc-4.0",
        bases=("llama-1", "creativeml-openrail-m"),
        finds=(
            dropped("llama-1", "cc-by-nc-4.0"),
            dropped("creativeml-openrail-m", "cc-by-nc-4.0"),
        ),
    ),
    # Who takes it is asked to agree.
    Case(rule="not-gated", bases=("llama-1",)),
    Case(rule="not-gated", license="mit", card={"extra_gated_prompt": ""}),
    Case(
        rule="not-gated",
        bases=("llama-1",),
        card={"extra_gated_prompt": ""},
        public=False,
    ),
    Case(rule="not-gated", bases=("llama-1",), no_card=True),
    Case(
        rule="not-gated",
        bases=("llama-1",),
        card={"extra_gated_prompt": ""},
        finds=(
            (
                "llama-1 is for research only, and README.md asks nobody to agree",
                "write the card with `releasekit card`, which adds extra_gated_prompt",
            ),
        ),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_finds_what_breaks_it_and_nothing_else(case: Case) -> None:
    found = [
        (finding.why, finding.todo)
        for finding in check(case.evidence, case.catalogue)
        if finding.rule.id == case.rule
    ]
    assert found == [*case.finds]


def test_every_rule_has_a_case_that_breaks_it_and_one_that_keeps_it() -> None:
    rules = {rule.id for rule in RULES}
    assert {case.rule for case in CASES if case.finds} == rules
    assert {case.rule for case in CASES if not case.finds} == rules
    assert len(rules) == len(RULES)


def test_which_rules_are_errors() -> None:
    warnings = [rule.id for rule in RULES if rule.severity is Severity.WARNING]
    assert warnings == [
        "base-card",
        "card-missing",
        "added-use-policy",
        "teacher-terms",
        "restrictions-dropped",
        "not-gated",
    ]


@pytest.mark.parametrize(
    ("case", "findings"),
    [
        (
            Case(rule="FreeWilly1", bases=(grant("llama-1", "huggyllama/llama-65b"),)),
            ["restrictions-dropped"],
        ),
        (
            Case(
                rule="FreeWilly2",
                name="FreeWilly2",
                license="stable-beluga-nc",
                bases=("llama-2",),
                delta=False,
            ),
            [],
        ),
        (
            Case(
                rule="FreeWilly1 as weights",
                bases=("llama-1",),
                delta=False,
                card={"extra_gated_prompt": ""},
            ),
            ["weights-upload", "restrictions-dropped", "not-gated"],
        ),
        (Case(rule="a tune of Llama 2", license="llama-2", bases=("llama-2",)), []),
        (
            Case(
                rule="a tune of Llama 3",
                name=LLAMA_3,
                license="llama-3",
                bases=("llama-3",),
            ),
            [],
        ),
        (
            Case(
                rule="a tune of Llama 3.1",
                name="Llama-Tune",
                license="llama-3.1",
                bases=("llama-3.1",),
            ),
            [],
        ),
        (Case(rule="a tune of Gemma", license="gemma", bases=("gemma",)), []),
        (
            Case(
                rule="an OpenRAIL model",
                license="bigscience-openrail-m",
                bases=("bigscience-openrail-m",),
            ),
            [],
        ),
        (Case(rule="Apache", license="apache-2.0", bases=("apache-2.0",)), []),
        (
            Case(
                rule="MIT, of nothing",
                license="mit",
                bases=(),
                delta=False,
                card={"base_model": ""},
            ),
            [],
        ),
        (
            Case(rule="nothing at all", no_chain=True, no_card=True, notices=""),
            ["license-missing", "base-license-missing", "card-missing"],
        ),
    ],
    ids=lambda value: value.rule if isinstance(value, Case) else "",
)
def test_all_that_is_found_of_a_release(case: Case, findings: list[str]) -> None:
    assert [found.rule.id for found in check(case.evidence, CATALOGUE)] == findings


def test_errors_come_first_and_each_once() -> None:
    case = Case(
        rule="",
        license="mit",
        bases=("llama-1", "llama-1"),
        no_card=True,
        delta=False,
        public=True,
    )
    found = check(case.evidence, CATALOGUE)
    assert [finding.rule.id for finding in found] == [
        "noncommercial-base",
        "weights-upload",
        "card-missing",
        "restrictions-dropped",
    ]
    assert [finding.is_error for finding in found] == [True, True, False, False]


def test_a_finding_is_a_line() -> None:
    case = Case(rule="", license="mit", bases=("llama-1",))
    finding, *_ = check(case.evidence, CATALOGUE)
    assert str(finding) == (
        "noncommercial-base: mit allows commercial use of Tune, and its base's licence, "
        "llama-1, forbids it; choose a non-commercial licence, such as cc-by-nc-4.0"
    )


def test_hostile_names_do_not_reach_the_terminal() -> None:
    case = Case(
        rule="",
        name="\x1b[2J",
        license=unrecorded("lama", commercial=True),
        bases=("llama-3",),
        teachers=("\x1b[2J",),
        card={"license": "\x1b[2J\n", "license_link": "\x1b[2J"},
    )
    found = check(case.evidence, CATALOGUE)
    quoted = [f for f in found if f.rule.id in ("name-prefix", "card-license")]
    assert len(quoted) == 2
    assert all(str(finding).isprintable() for finding in quoted)
