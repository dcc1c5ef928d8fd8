"""A small shop that uses obslib the way a team should: its public names only."""
