"""The page of a finished run: what is on it (people, similar, measured) and how it looks."""
