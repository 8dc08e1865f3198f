"""Faults to inject: what can go wrong, where, and how often."""
