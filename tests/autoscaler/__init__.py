"""The autoscaler."""
