"""Replays a demand on a simulated clock through the real decisions and the rules' semantics, beside an HPA's."""
