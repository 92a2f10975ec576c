"""What tasks are called, whichever version of the harness named them.

lm-evaluation-harness renamed tasks with its version 0.4. Here a figure goes by the name
that the harness uses now, so that old and new results of one task meet:

    version 0.3                     now
    hendrycksTest-<subject>  acc    mmlu_<subject>   acc
    truthfulqa_mc            mc1    truthfulqa_mc1   acc
    truthfulqa_mc            mc2    truthfulqa_mc2   acc

Sources: `lm_eval/tasks/hendrycks_test.py` and `truthfulqa.py` of 0.3.0, and the folders
`mmlu` and `truthfulqa` of 0.4. gsm8k's `acc` of 0.3 and `exact_match` of 0.4 keep apart:
both look for the answer after `####`, but the answers end at other characters.
"""

from __future__ import annotations

from typing import Final

_OLD_MMLU: Final = "hendrycksTest-"
_RENAMED: Final = {
    ("truthfulqa_mc", "mc1"): ("truthfulqa_mc1", "acc"),
    ("truthfulqa_mc", "mc2"): ("truthfulqa_mc2", "acc"),
    # As cards and tables like to write it.
    ("truthfulqa_mc1", "mc1"): ("truthfulqa_mc1", "acc"),
    ("truthfulqa_mc2", "mc2"): ("truthfulqa_mc2", "acc"),
}

#: The subjects of MMLU (Hendrycks et al., 2021, https://arxiv.org/abs/2009.03300).
_SUBJECTS: Final = """
    abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology
    college_chemistry college_computer_science college_mathematics college_medicine
    college_physics computer_security conceptual_physics econometrics
    electrical_engineering elementary_mathematics formal_logic global_facts
    high_school_biology high_school_chemistry high_school_computer_science
    high_school_european_history high_school_geography
    high_school_government_and_politics high_school_macroeconomics
    high_school_mathematics high_school_microeconomics high_school_physics
    high_school_psychology high_school_statistics high_school_us_history
    high_school_world_history human_aging human_sexuality international_law jurisprudence
    logical_fallacies machine_learning management marketing medical_genetics miscellaneous
    moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
    professional_law professional_medicine professional_psychology public_relations
    security_studies sociology us_foreign_policy virology world_religions
"""
#: The tasks of MMLU, one a subject, by the names that the harness uses now.
MMLU: Final = tuple(f"mmlu_{subject}" for subject in _SUBJECTS.split())


def canonical(task: str, metric: str) -> tuple[str, str]:
    """The names that a task and a metric have now."""
    if task.startswith(_OLD_MMLU):
        return f"mmlu_{task.removeprefix(_OLD_MMLU)}", metric
    return _RENAMED.get((task, metric), (task, metric))
