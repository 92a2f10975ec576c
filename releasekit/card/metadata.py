"""A card's metadata: what the Hub shows, searches by, and asks of those who download.

Licence fields follow from the chain of licences; a licence that the Hub has no name for is
`other`, with a name and a link to its text. The Hub knows no relation "delta": a delta is a
`finetune` with a tag that says so. The text with which access is asked for is written where
a licence restricts use to research; the Hub asks only once gating is switched on there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from releasekit.card.facts import Facts
from releasekit.evals.compare import Comparison
from releasekit.evals.figures import Figure
from releasekit.evals.scores import Unit
from releasekit.evals.suites import SUITES, Task
from releasekit.hub.cards import IndexedScore
from releasekit.licenses.chain import LICENSE, Chain, Kind
from releasekit.licenses.records import OTHER

TAG: Final = "releasekit"
DELTA_TAG: Final = "delta"
_TASK_NAMES: Final = {
    "multiple-choice": "Multiple Choice",
    "text-generation": "Text Generation",
}
_DIGITS: Final = 6
_LICENSE_KEYS: Final = ("license_name", "license_link")
_BUTTON: Final = "Agree, and ask for access"
_GATE_KEYS: Final = tuple(
    f"extra_gated_{key}" for key in ("heading", "prompt", "fields", "button_content")
)


def metadata(
    facts: Facts,
    chain: Chain | None,
    *,
    delta: bool,
    name: str,
    library: str | None,
    papers: Collection[str] | None = None,
) -> dict[str, Any]:
    """The metadata that follow from what is known, but for `model-index`.

    Args:
        facts: what the maintainer says.
        chain: the licences; None if there are none.
        delta: whether it is of a delta, or of full weights.
        name: what the release is called.
        library: what loads the model, unless the maintainer says; None if not known.
        papers: paths of the files at hand, among which LICENSE may be; None if it is.
    """
    tags = [*facts.tags, TAG, *([DELTA_TAG] if delta else [])]
    data: dict[str, Any] = {
        "language": list(facts.languages),
        **_license(chain, papers, delta=delta),
        "library_name": facts.library_name or (TAG if delta else library),
        "pipeline_tag": facts.pipeline_tag,
        "base_model": facts.base_id,
        "base_model_relation": (facts.base_relation or "finetune") * bool(facts.base_id),
        "datasets": list(facts.datasets),
        "tags": list(dict.fromkeys(tags)),
        "new_version": facts.new_version,
        **_gate(chain, name),
    }
    return {key: value for key, value in data.items() if value}


def _license(
    chain: Chain | None, papers: Collection[str] | None, *, delta: bool
) -> dict[str, str]:
    grant = None if chain is None else (chain.release if delta else chain.model)
    if grant is None:
        return {}
    fields = {"license": grant.hub}
    if grant.hub == OTHER and grant.hub_name is not None:
        texts = [text.path for text in grant.texts if text.kind is Kind.LICENSE]
        link = LICENSE if papers is None or LICENSE in papers or not texts else texts[0]
        fields |= {"license_name": grant.hub_name, "license_link": quote(link)}
    return fields


def _gate(chain: Chain | None, name: str) -> dict[str, Any]:
    """What the Hub asks of whoever wants the files; nothing where use is free."""
    asked = [g for g in (chain.distinct if chain else ()) if g.research_only]
    if not asked:
        return {}
    names = " and ".join(grant.name for grant in asked)
    terms = "; ".join(f"{grant.name} ({grant.url})" for grant in asked)
    short = " ".join(grant.summary for grant in asked)
    return {
        "extra_gated_heading": f"Access to {name}",
        "extra_gated_prompt": (
            f"{name} may be used for research only, under the terms of {terms}. In short, "
            f"though the texts are what counts: {short}"
        ),
        "extra_gated_fields": {
            f"I accept the terms of {names}": "checkbox",
            "I use the model for non-commercial research only": "checkbox",
        },
        "extra_gated_button_content": _BUTTON,
    }


def indexed(comparison: Comparison | None) -> list[IndexedScore]:
    """A model's figures for `model-index`: those of tasks whose data sets are known.

    The n-shot stands with the metric, not with the data set: huggingface_hub puts all
    metrics of one data set together, and keeps the arguments of the first.
    """
    found: dict[tuple[object, ...], IndexedScore] = {}
    for task, figure in _figures(comparison):
        score = _indexed(task, figure)
        key = (score.dataset, score.dataset_config, score.metric, figure.shots)
        found.setdefault(key, score)
    return list(found.values())


def _figures(comparison: Comparison | None) -> Iterator[tuple[Task, Figure]]:
    """A model's figures with the tasks that they are of.

    Those of the suites shown come first; then those that stand by themselves, each by the
    metric that counts in a suite that is not shown.
    """
    if comparison is None:
        return
    given = []
    for suite in comparison.suites:
        tasks = {task.name: task for task in suite.suite.tasks}
        given += [(tasks[figure.task], figure) for figure in suite.model.figures]
    others = [row.model for row in comparison.others if row.model is not None]
    for task in (task for suite in SUITES.values() for task in suite.tasks):
        for metric, filters in task.measures:
            wanted = (task.name, metric, filters, task.shots)
            chosen = [f for f in others if (f.task, f.metric, f.filter, f.shots) == wanted]
            if len(chosen) == 1:
                given.append((task, chosen[0]))
                break
    for task, figure in given:
        if figure.unit is Unit.PERCENT:
            yield task, figure


def _indexed(task: Task, figure: Figure) -> IndexedScore:
    shots = "" if figure.shots is None else f" ({figure.shots}-shot)"
    origin = figure.scores[0].origin
    metric = task.known_as or figure.metric
    return IndexedScore(
        task_type=task.task_type,
        task_name=_TASK_NAMES.get(task.task_type, task.task_type),
        dataset=task.dataset,
        dataset_name=task.title,
        dataset_config=task.config,
        dataset_split=task.split,
        metric=metric,
        metric_name=f"{metric}, percent{shots}",
        metric_args=None if figure.shots is None else {"num_few_shot": figure.shots},
        value=round(figure.value, _DIGITS),
        source_name=origin.cited() if origin.url else None,
        source_url=origin.url,
    )


def registered(comparison: Comparison | None) -> dict[str, list[dict[str, Any]]]:
    """Figures for `.eval_results/`, by file: those of benchmarks that the Hub registers.

    Source of the form: https://huggingface.co/docs/hub/eval-results.
    """
    files: dict[str, list[dict[str, Any]]] = {}
    for task, figure in _figures(comparison):
        if task.benchmark is None:
            continue
        origin = figure.scores[0].origin
        notes = [f"{figure.label}, in percent"]
        if figure.shots is not None:
            notes.append(f"{figure.shots}-shot")
        if origin.harness:
            notes.append(f"lm-evaluation-harness {origin.harness}")
        entry: dict[str, Any] = {
            "dataset": {"id": task.benchmark.dataset, "task_id": task.benchmark.task},
            "value": round(figure.value, _DIGITS),
        }
        if origin.date:
            entry["date"] = origin.date
        if origin.url:
            entry["source"] = {"url": origin.url, "name": origin.file}
        entry["notes"] = ", ".join(notes)
        entries = files.setdefault(f".eval_results/{task.name}.yaml", [])
        if entry not in entries:
            entries.append(entry)
    return files


def blend(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a card that is written anew.

    What is generated replaces what was there; keys that are not stay, and so do tags, data
    sets and languages that a maintainer added.
    """
    merged = dict(old)
    if "license" in new and old.get("extra_gated_button_content") == _BUTTON:
        for key in _GATE_KEYS:
            merged.pop(key, None)  # of the licence before
    for key, value in new.items():
        if key in ("tags", "datasets", "language"):
            merged[key] = _unique([*_listed(old.get(key)), *value])
        else:
            merged[key] = value
    for key in _LICENSE_KEYS:
        if "license" in new and key not in new:
            merged.pop(key, None)  # of the licence before
    return merged


def _unique(items: Iterable[object]) -> list[object]:
    """Each once; what others wrote there may be anything, and have no hash."""
    found: list[object] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _listed(value: object) -> Sequence[object]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)
