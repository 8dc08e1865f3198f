"""Batches: validation, execution, result files, and the objects that clients see."""
