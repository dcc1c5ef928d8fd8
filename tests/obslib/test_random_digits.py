"""Ids that nobody else has: neither a process that was forked, nor one that seeded its random numbers alike."""

import random
import re
import subprocess
import sys

from obslib._random_digits import RandomDigits


def test_every_text_is_new_and_of_its_length() -> None:
    """Over several batches."""
    draw = RandomDigits(48).draw
    texts = [draw() for _ in range(1000)]
    assert len(set(texts)) == 1000
    assert all(re.fullmatch("[0-9a-f]{48}", text) for text in texts)


def test_no_seed_repeats_an_id() -> None:
    """Services seed `random` for reasons of their own, each of their workers alike."""
    drawn = []
    for _ in range(2):
        random.seed(7)
        drawn.append(RandomDigits(32).draw())
    assert drawn[0] != drawn[1]


FORK = """
import os
from obslib._random_digits import RandomDigits
digits = RandomDigits(32)
digits.draw()
out, into = os.pipe()
child = os.fork()
texts = " ".join(digits.draw() for _ in range(200))
if not child:
    os.write(into, texts.encode())
    os._exit(0)
os.close(into)
with os.fdopen(out) as pipe:
    others = pipe.read()
os.waitpid(child, 0)
print(len(others.split()), len({*others.split(), *texts.split()}))
"""


def test_a_forked_process_draws_its_own() -> None:
    """What the parent had drawn ahead stays the parent's."""
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["200", "400"]
