"""The load generators: found on PATH, else put into the same cache as the demo's components."""

from dataclasses import dataclass
from typing import Final

from stack.components.catalogue import Component, GoModule, Requirement
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress

#: Closed loop: as much as eight connections can carry.
WRK: Final = Requirement(
    name="wrk",
    title="wrk",
    executables=("wrk",),
    version_arguments=("-v",),
    version_pattern=r"(?:wrk |debian/|version )(\d+\.\d+\.\d+)",
    oldest=(4, 0),
    without_it="nothing can be measured",
    debian_package="wrk",
)
#: Open loop: a fixed rate, whatever the answers do.
VEGETA: Final = Requirement(
    name="vegeta",
    title="vegeta",
    executables=("vegeta",),
    version_arguments=("-version",),
    version_pattern=r"Version: v?(\d+\.\d+\.\d+)",
    oldest=(12, 8),
    without_it="latency at a fixed rate cannot be measured",
    # The program is the module's own root: the last element of its path stands as the package.
    go_module=GoModule(module="github.com/tsenart/vegeta", version="v12.12.0", packages=("v12",), minutes=1),
)


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What makes the load."""

    wrk: Component
    vegeta: Component


def provide(progress: Progress) -> Tools:
    """
    Find the load generators, or install them.

    Raises:
        ComponentMissingError: One cannot be had here; the sentence says what to install.
    """
    installer = Installer(cache_directory(), progress)
    return Tools(wrk=installer.provide(WRK), vegeta=installer.provide(VEGETA))
