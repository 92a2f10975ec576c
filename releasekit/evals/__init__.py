"""Evaluations of a model: read from others' files, merged, averaged and compared.

    scores       one figure, and where it comes from
    tasks        what tasks are called, whichever version of a harness named them
    harness      result files of lm-evaluation-harness
    tidying      what in these is no JSON, or means nothing
    tables       figures typed in by hand, in TOML or CSV
    leaderboard  rows of the Open LLM Leaderboard
    rows         CSV, and whose rows to take
    reading      which of these readers a file is for
    figures      what a table shows of a task
    suites       sets of tasks that are averaged together
    averages     a suite's figures, and their average
    collection   all figures of one model, without contradictions
    compare      a model against its base
    plan         what a chart shows of that
    document     `evaluations.json`, in which a release keeps them

Pure: bytes come in and values go out. No unit is guessed, no figure is made up for one
that is missing, and each keeps the name and the SHA-256 of the file that it is from.
"""
