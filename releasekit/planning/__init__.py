"""What a release of any size takes, before it is made or rebuilt: told from headers.

`model` is the arithmetic, `rates` how fast a machine is, `work` what has to be done; both
`making` and `rebuilding` read that from headers. `measure` finds the rates of this machine.
"""
