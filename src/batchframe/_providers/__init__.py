"""Batch services: what each allows, and the client that speaks to it."""
