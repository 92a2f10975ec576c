"""Runs one release of lm-evaluation-harness on a random model and made-up documents.

`make_results.py` starts this inside the release's own virtual environment, from an empty
folder, so that no path of the machine gets into a result:

    python stand_ins.py models                      writes MODELS into the working folder
    python stand_ins.py run VERSION ARGUMENT...     the harness's command line, offline

The harness itself stays as published. Its tasks ask `datasets.load_dataset` for their
documents; here that function answers with made-up ones, which have the columns that the
tasks' templates read. Hence figures mean nothing, while names, types, hashes and layout
are the harness's own.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import random
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

# The harness's dependencies are not the project's: they have no types here.
MODELS = ("example-org/tiny-base", "example-org/tiny-chat", "example-org/tiny-broken")
CONTEXT = 256
# Release 0.3.0 asks its tokenizer for GPT-2's own numbers of these two.
HELLO, NEWLINE = 31373, 198
END = "<|endoftext|>"
TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>\n{{ message['content'] }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

Document = dict[str, object]
Splits = dict[str, list[Document]]


def words(source: random.Random, count: int) -> str:
    """A line of short words, as plain as any other."""
    syllables = ("ba", "do", "fi", "ku", "le", "mo", "ni", "ra", "su", "te")
    return " ".join("".join(source.choices(syllables, k=2)) for _ in range(count))


def choices(source: random.Random, count: int) -> list[str]:
    return [words(source, source.randint(1, 3)) for _ in range(count)]


def arc(source: random.Random, index: int) -> Document:
    return {
        "id": f"made-up-{index}",
        "question": words(source, 5) + "?",
        "choices": {"text": choices(source, 4), "label": list("ABCD")},
        "answerKey": source.choice("ABCD"),
    }


def hellaswag(source: random.Random, index: int) -> Document:
    return {
        "ind": index,
        "activity_label": words(source, 1),
        "ctx_a": words(source, 5) + ".",
        "ctx_b": words(source, 2),
        "endings": choices(source, 4),
        "label": source.choice("0123"),
    }


def mmlu(source: random.Random, index: int) -> Document:
    return {
        "question": f"{index}. {words(source, 4)}?",
        "choices": choices(source, 4),
        "answer": source.randrange(4),
    }


def truthfulqa(source: random.Random, index: int) -> Document:
    return {
        "question": f"{words(source, 4)} {index}?",
        "mc1_targets": {"choices": choices(source, 4), "labels": [1, 0, 0, 0]},
        "mc2_targets": {"choices": choices(source, 5), "labels": [1, 1, 0, 0, 0]},
        "best_answer": "Ba do.",
        "correct_answers": choices(source, 2),
        "incorrect_answers": choices(source, 2),
    }


def openbookqa(source: random.Random, index: int) -> Document:
    return {
        "id": f"made-up-{index}",
        "question_stem": words(source, 5),
        "choices": {"text": choices(source, 4), "label": list("ABCD")},
        "answerKey": source.choice("ABCD"),
    }


def winogrande(source: random.Random, index: int) -> Document:
    first, second = choices(source, 2)
    return {
        "sentence": f"{words(source, 3)} _ {words(source, 2)} {index}.",
        "option1": first,
        "option2": second,
        "answer": source.choice("12"),
    }


def piqa(source: random.Random, index: int) -> Document:
    first, second = choices(source, 2)
    return {
        "goal": f"{words(source, 4)} {index}",
        "sol1": first,
        "sol2": second,
        "label": source.randrange(2),
    }


def boolq(source: random.Random, index: int) -> Document:
    return {
        "passage": words(source, 8) + ".",
        "question": words(source, 4),
        "idx": index,
        "label": source.randrange(2),
    }


def agieval(source: random.Random, index: int) -> Document:
    return {
        "query": f"Q: {words(source, 5)} {index}?\nA: Among A through D, the answer is",
        "choices": [
            f"({letter}){text}"
            for letter, text in zip("ABCD", choices(source, 4), strict=True)
        ],
        "gold": [source.randrange(4)],
    }


def gsm8k(source: random.Random, index: int) -> Document:
    number = source.randrange(100)
    answer = f"{words(source, 3)} is {number}.\n#### {number}"
    return {"question": f"{words(source, 4)} {index}?", "answer": answer}


def wikitext(source: random.Random, index: int) -> Document:
    return {"page": f" = {words(source, 2)} {index} = \n\n {words(source, 12)} .\n"}


#: Makers by a part of the data set's path, which differs between releases.
MAKERS: dict[str, Callable[[random.Random, int], Document]] = {
    "ai2_arc": arc,
    "hellaswag": hellaswag,
    "mmlu": mmlu,
    "hendrycks_test": mmlu,
    "truthful_qa": truthfulqa,
    "openbookqa": openbookqa,
    "winogrande": winogrande,
    "piqa": piqa,
    "super_glue": boolq,
    "agieval": agieval,
    "gsm8k": gsm8k,
    "wikitext": wikitext,
}
#: Those whose test split has no answers, so that the harness must not find one.
UNTESTED = ("hellaswag", "truthful_qa", "winogrande", "piqa", "super_glue")


def documents(path: str, name: str | None) -> Splits:
    """Made-up documents of each split, the same in every release.

    The number of tests differs between subjects, so that weighted means differ from plain
    ones; 40 documents to train with are enough for 25 shots.

    Raises:
        LookupError: nothing stands in for this data set.
    """
    known = [part for part in MAKERS if part in path]
    if len(known) != 1:
        raise LookupError(f"{path}: no stand-in for this data set; add one to MAKERS")
    own_name = path.rpartition("/")[2] if known == ["agieval"] else known[0]
    make, source = MAKERS[known[0]], random.Random(f"{own_name} {name}")
    # Release 0.3.0 takes MMLU's examples from here, and one more than it was asked for.
    least = 6 if known == ["hendrycks_test"] else 3
    tests = source.randint(least, 8)
    sizes = {"train": 40, "dev": 5, "validation": tests}
    if known[0] not in UNTESTED:
        sizes["test"] = tests
    return {
        split: [make(source, index) for index in range(size)]
        for split, size in sizes.items()
    }


def load_dataset(path: str, name: str | None = None, **options: object) -> object:
    """Takes the place of `datasets.load_dataset`; options are about where to look."""
    datasets = import_module("datasets")
    splits = {
        split: datasets.Dataset.from_list(rows)
        for split, rows in documents(path, name).items()
    }
    split = options.get("split")
    return splits[str(split)] if split else datasets.DatasetDict(splits)


class Metric:
    """Takes the place of a metric that the `evaluate` library would download."""

    def compute(self, **options: object) -> dict[str, float]:
        raise LookupError(f"no stand-in for a downloaded metric: {sorted(options)}")


def load_metric(*names: object, **options: object) -> Metric:
    """Takes the place of `evaluate.load`, which some releases call when imported."""
    return Metric()


def write_models() -> None:
    """Writes random models of GPT-2's shape: one vector of four numbers a token."""
    torch, transformers = import_module("torch"), import_module("transformers")
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)
        config = transformers.GPT2Config(
            vocab_size=HELLO + 1,
            n_positions=CONTEXT,
            n_embd=4,
            n_layer=1,
            n_head=1,
            initializer_range=1.0,
            bos_token_id=NEWLINE,
            eos_token_id=HELLO - 1,
        )
        model = transformers.GPT2LMHeadModel(config)
        if name.endswith("broken"):
            with torch.no_grad():
                model.transformer.ln_f.weight.fill_(float("nan"))
        model.save_pretrained(name)
        write_tokenizer(Path(name))


def write_tokenizer(folder: Path) -> None:
    """Writes GPT-2's tokenizer without its merges, save for those of `hello`."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = [chr(byte) for byte in printable]
    alphabet += [chr(256 + index) for index in range(len(others))]
    merges = ["h e", "l l", "ll o", "he llo"]
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    for merge in merges:
        vocabulary[merge.replace(" ", "")] = len(vocabulary)
    vocabulary |= {"hello": HELLO, END: HELLO - 1}
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": CONTEXT,
        "bos_token": END,
        "eos_token": END,
        "unk_token": END,
        "chat_template": TEMPLATE,
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def run(version: str, arguments: list[str]) -> None:
    """Calls the harness's command line, whose libraries find nothing but stand-ins."""
    for library, name, stand_in in (
        ("datasets", "load_dataset", load_dataset),
        ("evaluate", "load", load_metric),
    ):
        if library == "datasets" or not version.startswith("0.3."):
            setattr(import_module(library), name, stand_in)
    if version.startswith("0.3."):
        run_early(arguments)
    else:
        sys.argv = ["lm_eval", *arguments]
        import_module("lm_eval.__main__").cli_evaluate()


def run_early(arguments: list[str]) -> None:
    """Does what main.py of release 0.3 did, which the published package lacks."""
    parser = argparse.ArgumentParser()
    for name in ("model", "model_args", "tasks", "device", "output_path"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--num_fewshot", type=int)
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--limit", type=int)
    options = vars(parser.parse_args(arguments))
    output = Path(options.pop("output_path"))
    known = import_module("lm_eval.tasks").ALL_TASKS
    patterns = options["tasks"].split(",")
    options["tasks"] = [
        task for pattern in patterns for task in fnmatch.filter(known, pattern)
    ]
    evaluator = import_module("lm_eval.evaluator")
    results = evaluator.simple_evaluate(**options, no_cache=True, description_dict={})
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    if sys.argv[1] == "models":
        write_models()
    else:
        run(sys.argv[2], sys.argv[3:])
