"""How a release presents itself: its card, and all that the card shows.

portrait    what a folder holds, as a card tells of it
evaluation  result files, and the figures in them
writing     the card itself, written into the folder, or checked there
"""
