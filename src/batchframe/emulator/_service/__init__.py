"""The service: its state, its files on disk, and what can be done with it."""
