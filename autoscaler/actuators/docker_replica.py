"""One more container like another of Docker Compose's: what to send to `POST /containers/create`."""

from typing import Any, Final

PROJECT: Final = "com.docker.compose.project"
SERVICE: Final = "com.docker.compose.service"
NUMBER: Final = "com.docker.compose.container-number"
ONE_OFF: Final = "com.docker.compose.oneoff"
_REPLACES: Final = "com.docker.compose.replace"
# Where a container has no network of its own, or the one that knows no names.
_WITHOUT_NAMES: Final = ("host", "none", "default", "bridge")
_SHORT_ID_CHARACTERS: Final = 12


def alike(original: dict[str, Any], *, name: str, number: int) -> dict[str, Any]:  # Any: JSON
    """
    Describe a container like the original, without what only one can have.

    Args:
        original: the engine's description of it.
        name: of the new one.
        number: its number in its service.

    """
    config = dict(original["Config"])
    short_id = original["Id"][:_SHORT_ID_CHARACTERS]
    if config.get("Hostname") == short_id:
        # Made of the id; one that somebody chose stays.
        del config["Hostname"]
    config.pop("MacAddress", None)
    # By its id: the name may stand for a newer one by now, and replicas are of one version.
    config["Image"] = original["Image"]
    labels = {key: value for key, value in (config.get("Labels") or {}).items() if key != _REPLACES}
    config["Labels"] = {**labels, NUMBER: str(number)}
    host = {key: value for key, value in original["HostConfig"].items() if key != "ContainerIDFile"}
    old_name = original["Name"].lstrip("/")
    endpoints = {
        network: _endpoint(settings, {old_name: name}, short_id)
        for network, settings in (original["NetworkSettings"].get("Networks") or {}).items()
        if network not in _WITHOUT_NAMES
    }
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def _endpoint(settings: dict[str, Any], renamed: dict[str, str], short_id: str) -> dict[str, Any]:  # Any: JSON
    aliases = [renamed.get(alias, alias) for alias in settings.get("Aliases") or [] if alias != short_id]
    kept = {"Aliases": aliases, "Links": settings.get("Links"), "DriverOpts": settings.get("DriverOpts")}
    return {key: value for key, value in kept.items() if value}
