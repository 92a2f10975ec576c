"""Models in object storage: `s3://`, `gs://`, and whatever else fsspec reaches.

    address    which places are in object storage, and how they are written
    store      a folder there: what is in it, and the few things that can be done with it
    blocks     its files read by range, ahead of who reads them in order
    staging    an input there, as readers of checkpoints and releases want it
    output     an output there, which appears once it is complete

Inputs are read by range, from where they are; only the small files beside the weights are
copied to the cache. Outputs are made file by file in a temporary folder, from which each
goes to the store once it is whole, so that no disk need hold them all.
"""
