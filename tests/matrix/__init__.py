"""The versions of frameworks and SDKs that obslib supports, each tried in an environment of its own."""
