"""Which ports are chosen."""

import socket

import pytest

from stack import ports
from stack.errors import StackError


def test_the_defaults_are_kept_where_they_are_free() -> None:
    """Fixed ports are what people remember and documents can name."""
    chosen, notes = ports.choose(free=lambda _: True)

    assert chosen == dict(ports.PREFERRED)
    assert notes == []


def test_a_default_that_is_taken_is_moved_and_said_so() -> None:
    """A stranger on one port costs that port, not the start."""
    chosen, notes = ports.choose(free=lambda port: port != 9090)

    assert chosen["prometheus"] != 9090
    assert {name: port for name, port in chosen.items() if name != "prometheus"} == {
        name: port for name, port in ports.PREFERRED.items() if name != "prometheus"
    }
    assert notes == [f"Port 9090 (prometheus) is taken by another program; using {chosen['prometheus']}."]


def test_base_zero_takes_free_ports_without_a_word() -> None:
    """For tests and second stacks: nobody expected a certain port."""
    chosen, notes = ports.choose(0, free=lambda _: True)

    assert len(set(chosen.values())) == len(ports.PREFERRED)
    assert not set(chosen.values()) & set(ports.PREFERRED.values())
    assert notes == []


def test_a_base_that_was_asked_for_gives_a_row() -> None:
    """The first is the shop's."""
    chosen, notes = ports.choose(21_000, free=lambda _: True)

    assert list(chosen.values()) == list(range(21_000, 21_000 + len(ports.PREFERRED)))
    assert chosen["http"] == 21_000
    assert notes == []


def test_a_port_that_was_asked_for_and_is_taken_is_an_error() -> None:
    """What was asked for explicitly is not quietly replaced."""
    with pytest.raises(StackError, match=r"--port-base 21000 asks for ports that are taken: 21001 \(prometheus\)"):
        ports.choose(21_000, free=lambda port: port != 21_001)


@pytest.mark.parametrize("base", [80, 65_530, -1])
def test_a_base_outside_the_range_is_an_error(base: int) -> None:
    """There must be room for all of them."""
    with pytest.raises(StackError, match="cannot work"):
        ports.choose(base, free=lambda _: True)


def test_a_port_someone_listens_on_is_not_free() -> None:
    """Asked of the kernel, by trying."""
    with socket.create_server((ports.HOST, 0)) as stranger:
        port = stranger.getsockname()[1]
        assert not ports.is_free(port)
    assert ports.is_free(port)
