"""
What obslib costs, and what its peers cost, beside a bare application: all of them in one run on one machine.

`python -m benchmarks` measures everything, `python -m benchmarks --quick` the main rows in two minutes. Compare ratios
of one run, never figures of two.
"""
