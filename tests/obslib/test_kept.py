"""What is kept for the next time a key comes, and what is not."""

from obslib._kept import Kept


def test_what_is_kept_is_made_once() -> None:
    """For each key."""
    made: list[int] = []

    def make(key: int) -> str:
        made.append(key)
        return str(key)

    kept = Kept[int, str](make)
    assert [kept[1], kept[2], kept[1], kept[2]] == ["1", "2", "1", "2"]
    assert made == [1, 2]


def test_a_caller_who_invents_keys_fills_no_memory() -> None:
    """Neither by their number nor by their length."""
    kept = Kept[int, str]("x".__mul__)
    for length in range(5_000):
        assert len(kept[length]) == length
        assert sum(map(len, kept.values())) < 1024 * 512
    assert len(kept) <= 1024
    for _ in range(3):
        assert kept[5_000] == "x" * 5_000
    assert 5_000 not in kept
