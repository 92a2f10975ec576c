"""The Hugging Face Hub, through huggingface_hub, which is imported here alone.

snapshots   models there, as folders here
cards       model cards: their metadata, in the Hub's form
"""
