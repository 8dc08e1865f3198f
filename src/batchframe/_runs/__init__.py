"""One run, from the call to the frame: created, carried on, read and retried."""
