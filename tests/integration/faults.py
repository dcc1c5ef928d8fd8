"""The demo's own way to make things go wrong."""

from tests.integration.running import RunningStack


class Faults:
    """The demo's own fault endpoint."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack
        self._person = {"Authorization": f"Bearer {stack.state.faults_token.read_text().strip()}"}

    def set(self, process: str, **fault: float) -> None:
        url = f"{self._stack.process_url(process)}/faults"
        body = {"duration_seconds": 3600, **fault}
        self._stack.http.put(url, json=body, headers=self._person).raise_for_status()

    def clear(self, process: str) -> None:
        url = f"{self._stack.process_url(process)}/faults"
        self._stack.http.delete(url, headers=self._person).raise_for_status()
