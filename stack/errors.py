"""What the stack raises. Each message is a sentence for the person at the terminal, with the way out in it."""


class StackError(Exception):
    """The command cannot be carried out; the message says why and what to do."""

    @property
    def sentence(self) -> str:
        """The message without the log lines it may end with."""
        return str(self).partition("\n")[0]


class ComponentMissingError(StackError):
    """A component is neither installed nor to be had here. The stack may go on without it."""


class ProcessFailedError(StackError):
    """A process died or did not become ready; the message ends with its last log lines."""


class NotRunningError(StackError):
    """No stack runs in this state directory."""
