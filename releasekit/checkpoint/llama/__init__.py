"""What is LLaMA's alone: Meta's parameters, and the order of rows that are rotated."""
