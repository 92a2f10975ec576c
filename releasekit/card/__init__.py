"""Model cards: what a maintainer says, what a release is, put into words and metadata.

facts      what only the maintainer knows, from TOML
metadata   the card's YAML, from facts, licences and evaluations
pages      the card's sections, from templates that can be replaced
sections   generated sections and the maintainer's own text, kept apart
checks     whether a card is what the Hub takes, without asking it
"""
