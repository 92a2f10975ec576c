"""What is written down of a run of the command line: a log of events, and a report."""
