"""Tests of the policy, the generator and what it writes."""
