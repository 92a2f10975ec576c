"""Model cards as the Hub reads them: metadata in YAML, then Markdown.

The rules of the form are huggingface_hub's own classes: what they write, the Hub reads.
YAML lets a key stand twice, of which readers keep the one or the other; that is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from releasekit.errors import FormatError, HubError
from releasekit.names import shown

#: Characters of YAML, which is slow to read.
_MAX_METADATA: Final = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedScore:
    """A number for a card's `model-index`.

    Attributes:
        task_type, task_name: as the Hub calls the kind of task, and for people.
        dataset: id of the data set on the Hub, or another name of it.
        dataset_name: for people.
        dataset_config, dataset_split: which part of it; None if not known.
        metric: as the harness calls it.
        metric_name: for people.
        metric_args: such as the number of shots.
        value: the number, in percent where it is a share.
        source_name, source_url: where it is from; None if that is in no place.
    """

    task_type: str
    task_name: str
    dataset: str
    dataset_name: str
    metric: str
    metric_name: str
    value: float
    dataset_config: str | None = None
    dataset_split: str | None = None
    metric_args: Mapping[str, Any] | None = None
    source_name: str | None = None
    source_url: str | None = None


#: Others' metadata that ModelCardData takes for its own arguments, or gives back changed.
_NOT_PASSED: Final[tuple[str, ...]] = (
    *("model-index", "model_name", "eval_results", "ignore_metadata_errors", "self"),
)


def split(document: bytes, subject: str) -> tuple[dict[str, Any], str]:
    """A card's metadata, which may be none, and its body.

    Raises:
        FormatError: if it is not UTF-8, or its metadata are no YAML mapping.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{subject}: not UTF-8 at byte {error.start}") from None
    found = REGEX_YAML_BLOCK.search(text)
    if found is None:
        return {}, text
    if len(found.group(2)) > _MAX_METADATA:
        raise FormatError(
            f"{subject}: metadata: expected at most {_MAX_METADATA} characters, found "
            f"{len(found.group(2))}"
        )
    data = load_yaml(found.group(2), subject)
    if data is None:
        data = {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise FormatError(f"{subject}: metadata: expected a YAML mapping of names")
    return data, text[found.end() :]


def join(
    data: Mapping[str, Any],
    scores: Iterable[IndexedScore],
    model_name: str,
    body: str,
    subject: str,
) -> bytes:
    """A card of metadata and a body, as huggingface_hub writes it.

    Args:
        data: the metadata, but for `model-index`.
        scores: for the `model-index`; none to leave it out.
        model_name: whose scores they are.
        body: Markdown.
        subject: the card, for messages.

    Raises:
        FormatError: if huggingface_hub refuses what is in it, or reads it otherwise.
    """
    from huggingface_hub import EvalResult, ModelCardData
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # as theirs

    results = [
        EvalResult(
            task_type=score.task_type,
            task_name=score.task_name,
            dataset_type=score.dataset,
            dataset_name=score.dataset_name,
            dataset_config=score.dataset_config,
            dataset_split=score.dataset_split,
            metric_type=score.metric,
            metric_name=score.metric_name,
            metric_args=dict(score.metric_args) if score.metric_args else None,
            metric_value=score.value,
            source_name=score.source_name if score.source_url else None,
            source_url=score.source_url,
        )
        for score in scores
    ]
    try:
        given = {key: value for key, value in data.items() if value is not None}
        kept: dict[str, Any] = {key: given.pop(key) for key in _NOT_PASSED if key in given}
        if kept.get("model-index") and (wrong := check_index(kept)):
            raise ValueError(f"Invalid `model_index` in metadata cannot be parsed: {wrong}")
        made: dict[str, Any] = ModelCardData(
            **given,
            eval_results=results or None,
            model_name=model_name if results else None,
        ).to_dict()
        made |= kept
        written = yaml_dump(made, sort_keys=False).strip()
        text = "\n".join(["---", written, "---", "", body.strip("\r\n"), ""])
        same = split(text.encode(), subject)[0] == made
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise FormatError(f"{subject}: metadata: {_line(error)}") from None
    except RecursionError:
        raise FormatError(f"{subject}: metadata: a value that holds itself") from None
    if not same:
        raise FormatError(f"{subject}: metadata: do not read back as what was written")
    return text.encode()


def check_index(data: Mapping[str, Any]) -> str | None:
    """What is wrong with a card's `model-index`, by huggingface_hub; None if nothing is."""
    from huggingface_hub.repocard_data import model_index_to_eval_results

    try:
        model_index_to_eval_results(data["model-index"])
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        return f"{type(error).__name__}: {_line(error)}"
    return None


def validate_online(document: bytes, subject: str) -> str | None:
    """What the Hub itself says is wrong with a card; None if nothing is.

    Raises:
        HubError: if it cannot be asked.
    """
    from huggingface_hub import ModelCard, constants
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{subject}: the Hub cannot be asked: HF_HUB_OFFLINE is set")
    try:
        text = document.decode("utf-8-sig")
        card = ModelCard(text, ignore_metadata_errors=True)
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        return f"huggingface_hub cannot read it: {_line(error)}"
    try:
        card.validate()
    except ValueError as error:
        return _line(error)
    except (HTTPError, OSError) as error:
        raise HubError(
            f"{subject}: {constants.ENDPOINT} could not check the card: {_line(error)}; "
            "try again later, or leave --online out"
        ) from None
    return None


def load_yaml(text: str, subject: str) -> Any:
    """The value of a YAML document.

    Raises:
        FormatError: if it is malformed, or a key stands twice in it.
    """
    try:
        return yaml.load(text, Loader=_Strict)
    except yaml.YAMLError as error:
        raise FormatError(f"{subject}: not valid YAML: {_line(error)}") from None
    except RecursionError:
        raise FormatError(f"{subject}: not valid YAML: nested too deeply") from None
    # A date such as 2023-99-99; a tag that is not of its value, such as `!!bool x`.
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FormatError(f"{subject}: not valid YAML: {_line(error)}") from None


def dump_yaml(value: Any) -> bytes:
    """A YAML document, its keys in the order that they have."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.encode()


class _Strict(yaml.SafeLoader):
    """Refuses mappings in which a key stands twice."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {shown(key.value)} appears twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _line(error: BaseException) -> str:
    line = " ".join(str(error).split())[:500]
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in line
    )
