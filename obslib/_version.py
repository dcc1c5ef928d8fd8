"""The version: equal to the newest one in CHANGELOG.md, which a test checks."""

__version__ = "0.1.0"
