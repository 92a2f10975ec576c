"""What the numbers in tensors are like, and how two tensors differ.

    words      a word as a number, and as an ordered integer
    kernels    the compiled loops over words
    values     one tensor: extremes, mean, deviation, zeros
    changes    two tensors: distances in ULPs, size of the update
    narrowing  which smaller dtype holds every value
    diff       two checkpoints, and what became of each tensor
    places     where in a model a tensor belongs, by its name
    groups     many tensors together, by layer, module and kind
    portrait   all that a report shows; summary says it in words

All work in chunks, whose results add up to those of the tensor, in the order of the chunks:
the same tensor has the same figures whatever threads worked on it.
"""
