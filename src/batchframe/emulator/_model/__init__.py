"""The rule-based model: what it writes, what it knows, how its tokens count."""
