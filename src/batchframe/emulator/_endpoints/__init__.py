"""The endpoints, a module each: the checks of a body, and its answer."""
