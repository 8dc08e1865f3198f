"""What every package builds on: errors, events, time, and the forms of requests, results and remote objects."""
