"""Pictures of a model: a page that needs nothing but itself, and charts as PNG.

plan   what is drawn, before anything is: columns, bars, heat maps
svg    for the page, whose style sheet has the colours
png    the same for elsewhere, light and dark
page   the page
"""
