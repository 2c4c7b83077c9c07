"""The checks of answers by their names in the policy. A check is made when a version is published that uses it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from conclave.safety.output.api import OutputCheck


def _exfiltration(canaries: Sequence[str]) -> OutputCheck:
    from conclave.safety.output.exfiltration import ExfiltrationCheck  # noqa: PLC0415  its patterns take a while

    return ExfiltrationCheck(canaries=canaries)


def _packages(_: Sequence[str]) -> OutputCheck:
    from conclave.safety.output.packages.check import PackageCheck  # noqa: PLC0415  its lists are read from a file

    return PackageCheck()


def _dependencies(_: Sequence[str]) -> OutputCheck:
    from conclave.safety.output.packages.check import DependencyCheck  # noqa: PLC0415  its lists are read from a file

    return DependencyCheck()


def _links(_: Sequence[str]) -> OutputCheck:
    from conclave.safety.output.links import LinkCheck  # noqa: PLC0415  its lists are read from files

    return LinkCheck()


def _shell(_: Sequence[str]) -> OutputCheck:
    from conclave.safety.output.shell import ShellCheck  # noqa: PLC0415  its patterns take a while

    return ShellCheck()


def _code(_: Sequence[str]) -> OutputCheck:
    from conclave.safety.output.code.check import CodeCheck  # noqa: PLC0415  its rules are read when code is seen

    return CodeCheck()


MAKERS: Final[Mapping[str, Callable[[Sequence[str]], OutputCheck]]] = {
    "exfiltration": _exfiltration,
    "packages": _packages,
    "dependencies": _dependencies,
    "links": _links,
    "shell": _shell,
    "code": _code,
}
NAMES: Final = tuple(MAKERS)


def make(name: str, canaries: Sequence[str] = ()) -> OutputCheck:
    """The check of that name; `canaries` are the policy's. Raises KeyError."""
    return MAKERS[name](canaries)
