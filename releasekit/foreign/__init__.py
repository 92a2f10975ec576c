"""Deltas that other tools made: recognise them, apply them, turn them into releases."""
