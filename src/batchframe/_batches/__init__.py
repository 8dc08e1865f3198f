"""Input files → batches → result files: the only package that spends money."""
