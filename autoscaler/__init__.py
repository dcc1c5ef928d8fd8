"""Keeps each service's replicas at the number that its recording rules ask for, within its policy, and says why."""
