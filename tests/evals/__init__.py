"""Result files of lm-evaluation-harness, written by the harness itself.

`vX.Y.Z/RUN/example-org__MODEL/` is what release X.Y.Z wrote when it was told
`--output_path RUN`: `results_<when>.json` from 0.4.3 on, and before that `results.json`, a
name of our choice. They were made by `make_results.py`, which can make them again, with
`stand_ins.py` in place of the network: random models of GPT-2's shape and made-up
documents. So the figures mean nothing, and all else is the harness's own.

    release  published  with (and torch 2.13.0)
    0.3.0    2022-12    transformers 4.28.1, datasets 2.11.0, numpy 1.26.4
    0.4.0    2023-12    transformers 4.36.2, datasets 2.15.0, numpy 1.26.4
    0.4.3    2024-07    transformers 4.41.2, datasets 2.20.0, numpy 1.26.4
    0.4.9    2025-06    transformers 4.52.4, datasets 3.6.0, numpy 2
    0.4.13   2026-08    transformers 5.23.0, datasets 5.2.0, numpy 2

    run          tasks, shots                   note
    arc          arc_challenge, 25              ┐
    hellaswag    hellaswag, 10                  │ the four of the Open LLM Leaderboard
    mmlu         mmlu (hendrycksTest-*), 5      │
    truthfulqa   truthfulqa_mc2 (_mc), 0        ┘
    openllm      a group of these and more      0.4.9 only: one file, shots differ
    gpt4all      its seven tasks, 0
    agieval      the group agieval_nous, 0      from 0.4.3 on
    gsm8k        gsm8k, 5                       two filters; from 0.4.3 on
    wikitext     wikitext, 0                    less is better, and errors are "N/A"
    limited      arc_easy and boolq, 0          two documents each, without samples
    templated    arc_challenge and mc2, 3       chat template, system instruction, git_hash
    broken       arc_easy and mc2, 0            a model of NaN, hence figures that are NaN

The models are tiny-chat, its base tiny-base (0.3.0 and 0.4.13), and tiny-broken. Release
0.3.0 was published without the script that wrote its files: `stand_ins.py` does what that
did. The bytes are the harness's, but for `config_source` in 0.4.13, a path in the virtual
environment, whose own folder reads `.venv` here; no other file named it.
"""

from pathlib import Path


def result_file(version: str, run: str, model: str = "tiny-chat") -> Path:
    """The result of one run, such as `result_file("0.4.13", "arc", "tiny-base")`."""
    folder = Path(__file__).parent / f"v{version}" / run / f"example-org__{model}"
    (path,) = folder.glob("results*.json")
    return path
