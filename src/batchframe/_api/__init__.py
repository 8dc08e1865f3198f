"""What users call: arguments in, a frame or a run out."""
