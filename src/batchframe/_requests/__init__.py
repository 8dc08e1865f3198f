"""Rows → request lines. Pure: no clock, no file, no service."""
