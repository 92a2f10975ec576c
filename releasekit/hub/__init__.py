"""The Hugging Face Hub, through huggingface_hub, which is imported here alone.

address     where a model is there, and in the cache
answers     what refusals and silences mean, and how often to ask again
listing     which files a revision has
transfer    one file, by range, going on where it stopped
crew        several at once
cache       huggingface_hub's cache, and putting files into it
folders     the same for a folder of the user's
snapshots   models there, as folders here
arrivals    weights that are read before, and while, they come
publishing  a repository to write to
cards       model cards: their metadata, in the Hub's form
"""
