"""The stack's own parts; no component is needed."""
