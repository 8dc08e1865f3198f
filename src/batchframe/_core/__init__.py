"""The base of every other package: errors, events, time, JSON values, and the objects at the service."""
