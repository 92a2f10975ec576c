"""A whole release, from one file: made, carded, signed, verified, published.

file        `release.toml`: what there is to say
sweep       one that asks for several releases
draft       one to begin with
work        what a release's file says, and by what its steps are known
steps       what is done, and whether it has been
record      what was done, for the next run
volume      bytes that it reads, writes, downloads, and takes on the disk
watching    what becomes of the steps, and who is told of it
pace        how long it will still take
published   whether a version is on the Hub still
beforehand  what can be known before anything is made
course      a release on its way: what is to be done, and what has been
run         one release, one step after the other
several     many at once
together    those on one base, made side by side
wording     commands' options, as the file's fields
"""
