"""One file for each endpoint: what a prompt becomes in its bodies, and how its answers are read."""
