"""The endpoints, one module each: the bodies of their requests, and the readers of their answers."""
