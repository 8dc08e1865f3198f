"""The service over HTTP: routes, replies, uploads, and faults of the connection."""
