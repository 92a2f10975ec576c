"""Rebuilding on a GPU: residuals are decoded on the processor, and added there."""
