"""Work in parts, done by other processes: on this machine, or on many.

    tasks     a part of some work, and what became of it
    records   which parts are done, kept beside the output, so that none is done twice
    split     whose parts are whose, where nobody hands them out
    cluster   Ray, which hands them out, and again if whoever had one is lost

A part is safe to do twice, even at the same time: what it makes follows from what it is
told alone, is made under a name of its own, and takes its place by one rename. So whoever
may have been lost need not be asked; paths are passed, never weights.
"""
