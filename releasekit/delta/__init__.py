"""Deltas: make one, open one, rebuild the target from one."""
