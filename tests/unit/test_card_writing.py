"""Cards written into folders: what is read, what is written, what stays as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, parse_eval_result_entries

from releasekit import Policy, PrivateKey, UsageError, sign, verify
from releasekit.amending import amend
from releasekit.card import sections
from releasekit.errors import FormatError
from releasekit.hub.cards import load_yaml, split
from releasekit.licensing.terms import Licensing
from releasekit.presentation.writing import CardResult, check_card, write_card
from tests.builders import model_folder
from tests.integration.tools import digests, good

ROOT = Path(__file__).parent.parent
LEADERBOARD = ROOT / "cards" / "leaderboard.csv"
EVALS = ROOT / "evals" / "v0.4.13"
WEIGHTS = {"w": ("F32", [2, 3], bytes(24))}
ROW = '[evaluations]\nmodel_name = "stabilityai/FreeWilly2"\n'
#: Figures of the model and of the base, in the harness' own files.
CHAT, BASE = "example-org__tiny-chat", "example-org__tiny-base"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = model_folder(tmp_path / "My model", WEIGHTS)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def results(suite: str, model: str) -> Path:
    (found,) = (EVALS / suite / model).rglob("results*.json")
    return found


def write(folder: Path, facts: str | None = None, **options: Any) -> CardResult:
    if facts is not None:
        options["facts"] = folder.parent / "facts.toml"
        options["facts"].write_text(facts)
    return write_card(folder, **{"chart": False, **options})


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def section(folder: Path, name: str) -> str:
    body = split((folder / "README.md").read_bytes(), "README.md")[1]
    return next(p.text for p in sections.parse(body, "README.md") if p.name == name)


def refusal(folder: Path, *arguments: Any, **options: Any) -> str:
    """The words that refuse to write a card, by which nothing changes."""
    before = digests(folder)
    with pytest.raises((UsageError, FormatError)) as caught:
        write(folder, *arguments, **options)
    assert digests(folder) == before
    return str(caught.value)


# What is there.


def test_a_bare_model_has_a_card_that_makes_nothing_up(model: Path) -> None:
    done = write(model)
    assert done.path == model / "README.md"
    assert (done.name, done.kind, done.files) == ("My model", "model", ("README.md",))
    assert (done.kept, done.key, done.averages) == ((), None, {})
    assert done.missing == (
        *("card.summary", "card.description", "card.developers", "card.languages"),
        *("card.usage", "prompt.format", "training.data", "training.decontamination"),
        *("training.procedure", "limits.text"),
    )
    assert [finding.rule.id for finding in done.findings] == [
        "card-license-id",
        "license-missing",
    ]
    assert ModelCard.load(done.path).data.to_dict() == {
        "library_name": "transformers",
        "tags": ["releasekit"],
    }


def test_a_missing_base_is_listed_where_there_is_one(model: Path) -> None:
    done = write(model, licensing=Licensing(license="mit", bases=("llama-2",)))
    assert "base.id" in done.missing


@pytest.mark.parametrize("config", ['{"a": 1}', "[]", "{", "\xff"])
def test_what_loads_a_model_is_not_guessed(model: Path, config: str) -> None:
    (model / "config.json").write_bytes(config.encode("latin-1"))
    write(model)
    assert "library_name" not in ModelCard.load(model / "README.md").data.to_dict()


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert refusal(folder).startswith(f"{folder}: ")
    assert refusal(folder / "config.json").endswith(
        "config.json: expected the folder of a release, or of a model"
    )


@pytest.mark.parametrize("name", ["a\nb", "x" * 201])
def test_a_name_is_one_line(model: Path, name: str) -> None:
    assert refusal(model, name=name).endswith(": expected a line of 1 to 200 characters")


def test_facts_must_be_there(model: Path) -> None:
    gone = model.parent / "gone.toml"
    with pytest.raises(UsageError) as caught:
        write_card(model, facts=gone)
    assert str(caught.value) == f"{gone}: no such file; expected facts in TOML"
    assert not (model / "README.md").exists()


# A card that is there already.


def test_the_same_inputs_give_the_same_bytes(model: Path) -> None:
    write(model, ROW, results=[LEADERBOARD])
    before = digests(model)
    write(model, ROW, results=[LEADERBOARD])
    assert digests(model) == before
    write(model)
    assert digests(model) == before


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_own_text_and_metadata_survive(model: Path, mark: bytes, end: bytes) -> None:
    own = (
        b"---\nlicense: mit\ntags: [mine]\nlanguage: de\nwidget:\n- text: Hi\n---\n"
        b"# Mine\n\n- a\n\n\n  b  \n\n| a |\n|---|\n"
    )
    (model / "README.md").write_bytes(mark + own.replace(b"\n", end))
    for _ in range(2):
        write(model, '[card]\nlanguages = ["en"]\n')
        document = (model / "README.md").read_bytes()
        assert not document.startswith(mark or b"\xff")
        data, body = split(document, "x")
        assert data == {
            "language": ["de", "en"],
            "library_name": "transformers",
            "license": "mit",
            "tags": ["mine", "releasekit"],
            "widget": [{"text": "Hi"}],
        }
        first = sections.parse(body, "x")[0]
        assert first.name is None
        assert (
            first.text.strip().splitlines()
            == own.decode().split("---\n", 2)[2].strip().splitlines()
        )


def test_text_before_between_in_and_after_sections_survives(model: Path) -> None:
    write(model)
    text = card(model)
    text = text.replace(
        "<!-- releasekit:begin title", "Before.\n\n<!-- releasekit:begin title"
    )
    text = text.replace(
        "<!-- releasekit:begin limits", "Mine.\n<!-- releasekit:begin limits"
    )
    text = text.replace("## Licence\n", "## Licence\n\nAsk us first.\n")
    (model / "README.md").write_text(f"{text}\nAfter.\n")
    done = write(model, '[limits]\ntext = "Many."\n')
    assert done.kept == ("license",)
    text = card(model)
    places = [
        text.index(part)
        for part in ("Before.", "# My model", "Mine.", "Many.", "Ask us first.", "After.")
    ]
    assert places == sorted(places)
    write(model, '[limits]\ntext = "Many."\n')
    assert card(model) == text
    assert write(model, force=True).kept == ()
    assert "Ask us first." not in card(model)
    assert "Mine." in card(model)


def test_a_deleted_section_comes_back_in_its_place(model: Path) -> None:
    write(model)
    whole = card(model)
    pieces = whole.split("\n\n<!-- releasekit:begin ")
    assert pieces[4].startswith("prompt ")
    del pieces[4]
    (model / "README.md").write_text("\n\n<!-- releasekit:begin ".join(pieces))
    write(model)
    assert card(model) == whole


def test_damaged_marks_are_refused(model: Path) -> None:
    write(model)
    text = card(model).replace("<!-- releasekit:end limits -->\n", "")
    (model / "README.md").write_text(text)
    assert "section license begins inside limits; mend the marks" in refusal(model)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"---\na: [\n---\n", "not valid YAML: "),
        (b"---\na: 1\na: 2\n---\n", 'not valid YAML: key "a" appears twice'),
        (b"---\n- a\n---\n", "metadata: expected a YAML mapping of names"),
        (b"# \xff\n", "not UTF-8 at byte 2"),
        (b"---\nmodel-index: [{name: x}]\n---\n", "metadata: Invalid `model_index`"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused(
    model: Path, document: bytes, words: str
) -> None:
    (model / "README.md").write_bytes(document)
    assert refusal(model).startswith(f"{model / 'README.md'}: {words}")


def test_a_huge_card_is_refused(model: Path) -> None:
    (model / "README.md").write_bytes(b"x" * (1 << 22) + b"y")
    assert refusal(model) == (
        f"{model / 'README.md'}: expected at most 4194304 bytes, found 4194305"
    )


@pytest.mark.parametrize("end", ["limits", "other"])
def test_facts_may_hold_no_marks(model: Path, end: str) -> None:
    facts = f'[limits]\ntext = "a\\n<!-- releasekit:end {end} -->\\nb"\n'
    assert refusal(model, facts) == (
        f"{model / 'README.md'}: a fact or a template holds a mark such as <!-- releasekit:"
        "begin, which are for sections alone; take it out"
    )


@pytest.mark.parametrize("place", ["README.md", "evaluations", "evaluations/model"])
def test_links_and_folders_in_a_place_are_refused(model: Path, place: str) -> None:
    path = model / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(model.parent / "elsewhere")
    expected = "is a link or a folder, not a file" if path.suffix else "expected a folder"
    message = refusal(model, ROW, results=[LEADERBOARD])
    assert message.startswith(f"{path}: {expected}")
    path.unlink()
    if path.suffix:
        path.mkdir()
    else:
        path.write_text("mine")
    assert refusal(model, ROW, results=[LEADERBOARD]) == message


def test_unicode_pipes_and_html_stay_what_they_are(model: Path) -> None:
    facts = (
        '[card]\ntitle = "重み <b>|</b>"\nsummary = "Ä | <i>ö</i> `|` \\\\| 🐳"\n'
        'developers = ["A | B", "<C>"]\n'
    )
    write(model, facts, results=[results("arc", CHAT)])
    text = ModelCard.load(model / "README.md").text
    assert "# 重み <b>|</b>\n\nÄ | <i>ö</i> `|` \\| 🐳\n" in text
    assert "| Developed by | A \\| B, <C> |\n" in text
    assert "| Task | n-shot | Metric | 重み <b>\\|</b> |\n" in text
    assert ModelCard.load(model / "README.md").data.model_name == "重み <b>|</b>"


# Evaluations.


def test_result_files_travel_as_they_are(model: Path) -> None:
    mine, theirs = results("arc", CHAT), results("arc", BASE)
    done = write(model, results=[mine], base_results=[theirs])
    folder = model / "evaluations"
    assert (folder / "model" / mine.name).read_bytes() == mine.read_bytes()
    assert (folder / "base" / theirs.name).read_bytes() == theirs.read_bytes()
    document = json.loads((folder / "evaluations.json").read_bytes())
    known = {origin["file"]: origin["sha256"] for origin in document["origins"]}
    assert known == {path.name: digests(path.parent)[path.name] for path in (mine, theirs)}
    assert set(done.files) == {
        "README.md",
        "evaluations/evaluations.json",
        f"evaluations/model/{mine.name}",
        f"evaluations/base/{theirs.name}",
    }
    text = section(model, "evaluations")
    for role, whose, path in (
        ("model", "Model", mine),
        ("base", "example-org/tiny-base", theirs),
    ):
        (line,) = (line for line in text.splitlines() if f"[{path.name}]" in line)
        place = f"evaluations/{role}/{path.name}"
        assert line.startswith(f"- {whose}: [{path.name}]({place})")
        assert " 0.4.13" in line
        assert f"`{known[path.name][:16]}…`" in line
    assert "| Task | n-shot | Metric | My model | example-org/tiny-base | Difference |" in (
        text
    )
    assert [str(finding) for finding in check_card(model)] == [
        "card-license-id: license: is missing; name it; make-delta --license does"
    ]


def test_a_card_without_results_keeps_those_of_before(model: Path) -> None:
    write(model, results=[results("arc", CHAT)], base_results=[results("arc", BASE)])
    before = digests(model / "evaluations")
    text = section(model, "evaluations")
    write(model, '[limits]\ntext = "Many."\n')
    assert digests(model / "evaluations") == before
    assert section(model, "evaluations") == text
    assert section(model, "limits") == "## Limits\n\nMany.\n"


def test_stale_result_files_go(model: Path) -> None:
    write(model, results=[results("arc", CHAT)], base_results=[results("arc", BASE)])
    new = results("hellaswag", CHAT)
    write(model, results=[new])
    assert list(digests(model / "evaluations")) == [
        "evaluations.json",
        f"model/{new.name}",
    ]


def test_others_evaluations_stay(model: Path) -> None:
    (model / "evaluations").mkdir()
    (model / "evaluations" / "mine.md").write_text("mine")
    write(model, results=[results("arc", CHAT)])
    assert (model / "evaluations" / "mine.md").read_text() == "mine"


def test_result_files_of_one_name_get_their_folders(model: Path) -> None:
    paths = []
    for name, key in (("arc", "acc"), ("piqa", "acc")):
        path = model.parent / name / "results.json"
        path.parent.mkdir()
        path.write_text(
            json.dumps({"results": {f"task_{name}": {key: 0.5}}, "versions": {}})
        )
        paths.append(path)
    write(model, results=paths)
    assert list(digests(model / "evaluations" / "model")) == [
        "arc-results.json",
        "piqa-results.json",
    ]
    text = section(model, "evaluations")
    assert "[piqa-results.json](evaluations/model/piqa-results.json)" in text
    before = digests(model)
    write(model, results=[*paths, paths[0]])
    assert digests(model) == before


def test_a_result_file_that_is_missing_is_named(model: Path) -> None:
    gone = model.parent / "gone.json"
    words = f"{gone}: no such file; expected results of evaluations"
    assert refusal(model, results=[gone]) == words
    assert refusal(model, results=[LEADERBOARD.parent]).startswith(str(LEADERBOARD.parent))
    facts = '[evaluations]\nmodel = ["gone.json"]\n'
    assert refusal(model, facts) == words


def test_results_that_contradict_each_other_are_both_shown(model: Path) -> None:
    paths = []
    for name, value in (("a", 0.5), ("b", 0.6)):
        path = model.parent / f"{name}.json"
        path.write_text(
            json.dumps({"results": {"piqa": {"acc": value}}, "versions": {"piqa": 0}})
        )
        paths.append(path)
    message = refusal(model, results=paths)
    assert message == (
        '"piqa", acc: found two figures that differ, 50 % (a.json, harness 0.3) and 60 % '
        "(b.json, harness 0.3); leave out the file, or the row, that does not count"
    )


def test_a_base_alone_is_no_evaluation(model: Path) -> None:
    assert refusal(model, base_results=[results("arc", BASE)]) == (
        "there are evaluations of the base, and none of the model"
    )


def test_a_malformed_result_file_is_refused(model: Path) -> None:
    path = model.parent / "results.json"
    path.write_text('{"results": {"piqa": {"acc": NaN}}, "versions": {}}')
    assert refusal(model, results=[path]).startswith("results.json: ")


def test_registered_benchmarks_have_results_that_the_hub_reads(model: Path) -> None:
    done = write(model, results=[results("gsm8k", CHAT)])
    assert ".eval_results/gsm8k.yaml" in done.files
    text = (model / ".eval_results" / "gsm8k.yaml").read_text()
    (entry,) = parse_eval_result_entries(load_yaml(text, "gsm8k.yaml"))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 0.0)
    assert entry.notes == ("exact_match, in percent, 5-shot, lm-evaluation-harness 0.4.13")


def test_a_reports_summary_comes_and_goes(model: Path) -> None:
    report = model.parent / "report"
    good("report", model, "--out", report)
    said = (report / "summary.md").read_text()
    assert said.startswith("The model has 1 tensor, 24 B in F32. ")
    good("card", model, "--report", report)
    assert section(model, "weights") == f"## The weights\n\n{said}"
    before = digests(model)
    write(model, report=report)
    assert digests(model) == before
    order = [piece.name for piece in sections.parse(card(model), "README.md") if piece.name]
    assert order.index("weights") == order.index("prompt") - 1
    # What an earlier report said may be of other weights.
    write(model)
    assert "## The weights" not in card(model)
    (report / "summary.md").write_text("[A link](https://a.b)\n")
    assert refusal(model, report=report).startswith(
        f"{report}/summary.md: expected sentences and a table without markup, "
    )
    (report / "summary.md").unlink()
    assert refusal(model, report=report) == (
        f"{report}: has no summary.md; expected a folder that `releasekit report` wrote"
    )


def test_charts_come_and_go(model: Path) -> None:
    charts = {
        f"evaluations{mode}.{kind}" for mode in ("", "-dark") for kind in ("png", "svg")
    }
    write(model, ROW, chart=True, results=[LEADERBOARD])
    assert charts <= digests(model / "evaluations").keys()
    text = section(model, "evaluations")
    assert 'srcset="evaluations/evaluations-dark.png"' in text
    assert 'alt="My model: Open LLM Leaderboard 71.42"' in text
    write(model, chart=False)
    assert charts.isdisjoint(digests(model / "evaluations"))
    assert "<picture>" not in card(model)
    write(model, chart=True)
    assert section(model, "evaluations") == text


# Licences of a full model.


def licence(folder: Path, name: str = "terms.txt", text: str = "Terms.\n") -> str:
    path = folder.parent / name
    path.write_text(text)
    return str(path)


def test_licences_of_a_model_are_kept_without_naming_them(model: Path) -> None:
    base = model_folder(model.parent / "base", WEIGHTS)
    (base / "LICENSE.txt").write_text("LLAMA 2")
    (base / "USE_POLICY.md").write_text("Policy.")
    given = Licensing(
        license="stable-beluga-nc", bases=("llama-2",), files=(licence(model),)
    )
    done = write(model, licensing=given, base=base)
    assert done.findings == ()
    assert {"LICENSE", "NOTICE", "licenses/chain.json"} <= set(done.files)
    assert (model / "LICENSE").read_text() == "Terms.\n"
    before = digests(model)
    write(model, licensing=given, base=base)
    assert digests(model) == before
    write(model)
    assert digests(model) == before
    data = ModelCard.load(model / "README.md").data.to_dict()
    assert data["license"] == "other"
    assert data["license_link"] == "LICENSE"
    assert "licenses/llama-2/USE_POLICY.md" in section(model, "license")


def test_texts_of_a_licence_that_is_no_longer_its_go(model: Path) -> None:
    write(model, licensing=Licensing(license="stable-beluga-nc", files=(licence(model),)))
    write(model, licensing=Licensing(license="apache-2.0"))
    assert list(digests(model / "licenses")) == [
        "apache-2.0/LICENSE.txt",
        "chain.json",
    ]
    assert (model / "LICENSE").read_bytes() == (
        model / "licenses" / "apache-2.0" / "LICENSE.txt"
    ).read_bytes()


def test_a_licence_nobody_knows_is_refused(model: Path) -> None:
    message = refusal(model, licensing=Licensing(license="apache2.0"))
    assert "apache-2.0" in message


def test_a_private_key_is_no_licence(model: Path) -> None:
    key = licence(model, text="-----BEGIN PRIVATE KEY-----\nx\n")
    given = Licensing(license="stable-beluga-nc", files=(key,))
    assert refusal(model, licensing=given).startswith(f"{key}: holds a private key, and ")


def test_facts_name_files_beside_them(model: Path) -> None:
    licence(model)
    (model.parent / "table.csv").write_bytes(LEADERBOARD.read_bytes())
    facts = (
        '[licenses]\nlicense = "stable-beluga-nc"\n'
        'files = ["terms.txt"]\n\n'
        '[evaluations]\nmodel = ["table.csv"]\nmodel_name = "stabilityai/FreeWilly2"\n'
        'base = ["table.csv"]\nbase_name = "huggyllama/llama-65b"\n'
    )
    done = write(model, facts)
    assert done.averages == {"open-llm-leaderboard": (71.42, 64.23)}
    assert (model / "licenses/stable-beluga-nc/terms.txt").read_text() == "Terms.\n"
    named = facts.replace('"terms.txt"', '"stable-beluga-nc=terms.txt"')
    before = digests(model)
    write(model, named)
    assert digests(model) == before


# Folders that are listed, or signed.


KEY = PrivateKey.generate()


def is_signed(folder: Path) -> bool:
    """Whether the folder is whole, and signed with KEY, to a user who has that alone."""
    trusted = folder.parent / "key.pub.pem"
    trusted.write_bytes(KEY.public.pem)
    policy = Policy(public_key=trusted, require_signature=True)
    return verify(folder, policy=policy).ok


def test_a_signed_folder_needs_its_key(model: Path) -> None:
    sign(model, KEY)
    assert refusal(model) == (
        f"{model}: is signed, and would no longer be what was signed: give --sign-key to "
        "sign it again, or --unsign to remove the signature"
    )


def test_a_signed_folder_is_signed_again(model: Path) -> None:
    sign(model, KEY)
    done = write(model, sign_key=KEY)
    assert done.key == KEY.public.fingerprint
    assert f"`{KEY.public.fingerprint}`" in section(model, "verification")
    assert is_signed(model)
    write(model, unsign=True)
    assert not (model / "model.sig").exists()
    assert "This release is not signed" in section(model, "verification")


def test_the_fingerprint_of_a_key_to_come_is_told(model: Path) -> None:
    done = write(model, public_key=KEY.public)
    assert done.key is None
    assert f"`{KEY.public.fingerprint}`" in section(model, "verification")
    sign(model, KEY)
    assert is_signed(model)


def lines(folder: Path) -> dict[str, str]:
    rows = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (row.split("  ", 1) for row in rows)}


def listed(folder: Path) -> Path:
    known = digests(folder)
    rows = [f"{digest}  {name}\n" for name, digest in sorted(known.items())]
    (folder / "SHA256SUMS").write_text("".join(rows))
    return folder


def test_a_list_of_digests_stays_true(model: Path) -> None:
    listed(model)
    for given in ([results("arc", CHAT)], []):
        write(model, results=given)
        known = digests(model)
        del known["SHA256SUMS"]
        assert lines(model) == known
    assert "`sha256sum -c SHA256SUMS` checks them" in section(model, "verification")
    write(model, results=[results("hellaswag", CHAT)])
    known = digests(model)
    del known["SHA256SUMS"]
    assert lines(model) == known


def test_a_malformed_list_is_refused(model: Path) -> None:
    (model / "SHA256SUMS").write_text("nonsense\n")
    assert refusal(model).startswith(f"{model / 'SHA256SUMS'}: ")


def broken(files: Mapping[str, bytes], folder: Path) -> str:
    before = digests(folder)
    with pytest.raises((UsageError, FormatError)) as caught:
        amend(folder, files)
    assert digests(folder) == before
    return str(caught.value)


def test_files_are_put_into_the_folder_alone(model: Path) -> None:
    assert broken({"a": b"", "../b": b""}, model).startswith(f'{model}: path "../b" has')
    assert broken({"a": b"", "/b": b""}, model).startswith(f'{model}: path "/b"')
    (model / "out").symlink_to(model.parent)
    assert broken({"a": b"", "out/b": b""}, model) == (
        f"{model / 'out'}: expected a folder, or nothing; move it away"
    )


def test_a_run_that_is_stopped_leaves_no_false_signature(model: Path) -> None:
    write(model, results=[results("arc", CHAT)], sign_key=KEY)
    (model / ".README.md.new").mkdir()  # in the way of the new file
    with pytest.raises(OSError, match=r"\.README\.md\.new"):
        write(model, '[limits]\ntext = "Many."\n', sign_key=KEY)
    assert not (model / "model.sig").exists()
    (model / ".README.md.new").rmdir()
    write(model, '[limits]\ntext = "Many."\n', sign_key=KEY)
    assert is_signed(model)
    assert "Many." in section(model, "limits")


def test_nothing_is_written_that_is_there_already(model: Path) -> None:
    write(model)
    before = (model / "README.md").stat()
    write(model)
    after = (model / "README.md").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


# Checks.


def test_a_folder_without_a_card_cannot_be_checked(model: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_card(model)
    assert str(caught.value) == (
        f"{model}: has no README.md; write one with `releasekit card {model}`"
    )


def test_checking_writes_nothing(model: Path) -> None:
    (model / "README.md").write_bytes(b"---\nlicense: mit\n---\n[a](config.json) [b](x)\n")
    before = digests(model)
    assert [finding.rule.id for finding in check_card(model)] == [
        "card-links",
        "card-library",
    ]
    assert digests(model) == before
