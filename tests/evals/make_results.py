"""Makes the result files of this folder with a release of lm-evaluation-harness.

    python make_results.py --version 0.4.3 --out v0.4.3

makes a virtual environment with that release, random models and made-up documents (see
stand_ins.py), and calls the harness once for each of RUNS. It needs Python 3.11, a package
index for pip and a few minutes; it reaches nothing else. `--venv` keeps the environment
for the next time.

A result is copied byte for byte, except that newer releases tell where each task's YAML
file lies: the environment's own folder becomes `.venv` there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STAND_INS = Path(__file__).with_name("stand_ins.py")
BASE, CHAT, BROKEN = (f"example-org/tiny-{name}" for name in ("base", "chat", "broken"))
#: What each release was published for, where today's packages no longer suit it.
PINS = {
    "0.3.0": (
        *("transformers==4.28.1", "datasets==2.11.0", "numpy==1.26.4"),
        *("pyarrow==14.0.2", "pandas==2.1.4", "openai<1"),
    ),
    "0.4.0": (
        *("transformers==4.36.2", "datasets==2.15.0", "numpy==1.26.4"),
        *("pyarrow==14.0.2", "pandas==2.1.4", "accelerate==0.25.0", "peft==0.7.1"),
    ),
    "0.4.3": (
        *("transformers==4.41.2", "datasets==2.20.0", "numpy==1.26.4"),
        *("pyarrow==16.1.0", "pandas==2.2.3", "accelerate==0.31.0", "peft==0.11.1"),
    ),
    "0.4.9": ("transformers==4.52.4", "datasets==3.6.0"),
    "0.4.13": ("transformers==5.23.0", "datasets==5.2.0"),
}
TORCH = "torch==2.13.0"
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "LC_ALL": "C.UTF-8",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One call of the harness's command line.

    Attributes:
        tasks: names of tasks and groups, as the release knows them.
        models: the models to evaluate, each in a call of its own.
        options: further options.
        shots: examples in each prompt; None for what each task's own file says.
        repository: whether it runs in a git checkout, whose commit it then records.
    """

    tasks: tuple[str, ...]
    models: tuple[str, ...]
    options: tuple[str, ...]
    shots: int | None = 0
    repository: bool = False


GPT4ALL = (
    *("openbookqa", "arc_easy", "winogrande", "hellaswag"),
    *("arc_challenge", "piqa", "boolq"),
)
#: The default is as long as the models' whole context.
BRIEF = ("--gen_kwargs", "max_gen_toks=16")


def runs_for(version: str) -> dict[str, Run]:
    """The runs that a release can do, by name."""
    release = release_of(version)
    early = release < (0, 4)
    truthfulqa = "truthfulqa_mc" if early else "truthfulqa_mc2"
    pair = (CHAT, BASE) if early or release >= (0, 4, 13) else (CHAT,)
    samples = () if early else ("--log_samples",)

    def run(*tasks: str, shots: int = 0, models: tuple[str, ...] = pair) -> Run:
        return Run(tasks=tasks, shots=shots, models=models, options=samples)

    runs = {
        "gpt4all": run(*GPT4ALL),
        "wikitext": run("wikitext", models=(CHAT,)),
        "broken": run("arc_easy", truthfulqa, models=(BROKEN,)),
        "limited": Run(
            tasks=("arc_easy", "boolq"), models=(CHAT,), options=("--limit", "2")
        ),
    }
    if (0, 4, 3) < release < (0, 4, 13):
        # The leaderboard as one group, without figures of its own.
        runs["openllm"] = Run(
            tasks=("openllm",), models=pair, options=(*samples, *BRIEF), shots=None
        )
    else:
        runs |= {
            "arc": run("arc_challenge", shots=25),
            "hellaswag": run("hellaswag", shots=10),
            "mmlu": run("hendrycksTest-*" if early else "mmlu", shots=5),
            "truthfulqa": run(truthfulqa),
        }
    if release >= (0, 4, 3):
        runs["gsm8k"] = Run(
            tasks=("gsm8k",), models=(CHAT,), options=(*samples, *BRIEF), shots=5
        )
        runs["agieval"] = run("agieval_nous")
        runs["templated"] = Run(
            tasks=("arc_challenge", truthfulqa),
            shots=3,
            models=(CHAT,),
            options=(
                *("--log_samples", "--apply_chat_template", "--fewshot_as_multiturn"),
                *("--system_instruction", "You are a careful examinee."),
            ),
            repository=True,
        )
    return runs


def release_of(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def make_environment(venv: Path, version: str) -> None:
    """Installs the release unless it is there."""
    if (venv / "installed").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    name = "lm-eval[hf]" if release_of(version) >= (0, 4, 10) else "lm-eval"
    packages = [f"{name}=={version}", TORCH, "setuptools<80", *PINS.get(version, ())]
    subprocess.run([venv / "bin" / "pip", "install", "--quiet", *packages], check=True)
    (venv / "installed").touch()


def harness(python: Path, work: Path, *arguments: str) -> None:
    """Runs stand_ins.py in a folder, without the network and without others' settings.

    Raises:
        subprocess.CalledProcessError: it failed; what it said went to standard error.
    """
    subprocess.run(
        [python, "-B", STAND_INS, *arguments],
        cwd=work,
        env=OFFLINE | {"PATH": os.environ["PATH"], "HOME": str(work)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def make_repository(work: Path) -> None:
    """Makes a folder a git checkout of one commit."""
    git = ["git", "-c", "user.name=Examiner", "-c", "user.email=examiner@example.org"]
    commit = ["commit", "--quiet", "--allow-empty", "--message", "Results"]
    subprocess.run([*git, "init", "--quiet"], cwd=work, check=True)
    subprocess.run([*git, *commit], cwd=work, check=True)


def make_results(version: str, venv: Path, out: Path, chosen: list[str]) -> None:
    """Makes the runs and copies the results to `out/RUN/MODEL/`."""
    python = venv / "bin" / "python"
    runs = {name: run for name, run in runs_for(version).items() if name in chosen}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        harness(python, work, "models")
        for name, run in sorted(runs.items(), key=lambda item: item[1].repository):
            if run.repository:
                make_repository(work)
            for model in run.models:
                harness(
                    python, work, "run", version, *command_line(version, name, run, model)
                )
                copy(work / "out" / name, out / name, {str(venv): ".venv"})


def command_line(version: str, name: str, run: Run, model: str) -> list[str]:
    output = f"out/{name}"
    if release_of(version) < (0, 4, 3):  # which makes no folder for the model
        output += f"/{model.replace('/', '__')}/results.json"
    return [
        *("--model", "gpt2" if release_of(version) < (0, 4) else "hf"),
        *("--model_args", f"pretrained={model}"),
        *("--tasks", ",".join(run.tasks)),
        *(() if run.shots is None else ("--num_fewshot", str(run.shots))),
        *("--device", "cpu", "--batch_size", "1", "--output_path", output),
        *run.options,
    ]


def copy(source: Path, target: Path, replaced: Mapping[str, str]) -> None:
    """Copies all results, but no samples, with some strings replaced."""
    for path in source.rglob("*.json"):
        text = path.read_bytes()
        for old, new in replaced.items():
            text = text.replace(old.encode(), new.encode())
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make lm-evaluation-harness results.")
    parser.add_argument("--version", required=True, help="release, such as 0.4.3")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--venv", type=Path, help="environment to make, or to use again")
    parser.add_argument("--only", nargs="+", help="runs to make; all by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        venv = (options.venv or Path(folder, "venv")).absolute()
        make_environment(venv, options.version)
        chosen = options.only or [*runs_for(options.version)]
        make_results(options.version, venv, options.out, chosen)


if __name__ == "__main__":
    main()
