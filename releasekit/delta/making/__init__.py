"""Make releases: in one process, in parts by several, or several on a common base.

    make         a release, in this process
    maker        what it codes, and its manifest
    request      what was asked for, opened
    order        looked over; and completed
    plan         operation and source of each tensor
    source       the target's files
    encode       one streaming pass over tensors
    content      what they came to
    payloads     coded tensors, as they wait
    shards       the release's files of them
    journal      what an interrupted make had finished
    small_files  what goes around them
    made         what it came to
    accept       other copies of the base

In parts, by other processes:

    spread       how that is asked for
    job          has parts done, and completes the release
    pieces       which parts there are
    told         what each of them is told
    parts        those that read the inputs
    assembling   those that write payload files, and read them back
    standing     how far it is, by its records

Several on one base:

    seats        what each may use
    common       the base, read once for all
    wanted       what one has yet to read of it
    once         its files' digests
"""
