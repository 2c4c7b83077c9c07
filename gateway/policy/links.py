"""The policy's `links`: hosts that answers may name freely, for the checks `links` and `shell`.

A value, checked for shape only; `safety/output/links.py` says what each list means for an address.
"""

import re
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, Field

from conclave.gateway.policy.part import Part

if TYPE_CHECKING:
    from conclave.safety.output.api import OutputCheck

CHECKS: Final = ("links", "shell")
HOST: Final = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\]"
)
MOST: Final = 253


def _host(value: str) -> str:
    """A host in the form in which addresses are compared."""
    said = value.strip().lower().rstrip(".")
    if len(said) > MOST or HOST.fullmatch(said) is None:
        raise ValueError(
            "must be a host such as example.com, without http:// and path; it stands for all hosts below it, too"
        )
    return said


HostName = Annotated[str, AfterValidator(_host)]
HostNames = Annotated[tuple[HostName, ...], Field(max_length=1_000)]


class LinkSettings(Part):
    """Whose addresses answers may name. A host stands for all hosts below it."""

    allow: HostNames = Field(
        default=(),
        description="Domains that are trusted: code, packages and pictures from there are no finding; plain http is.",
    )
    own_hosts: HostNames = Field(
        default=(),
        description="Hosts of your own: nothing about them is a finding, but names that look like them are.",
    )

    def check(self, name: str) -> "OutputCheck":
        """The check of that name, `links` or `shell`."""
        from conclave.safety.output.links import LinkCheck  # noqa: PLC0415  where the checks are used
        from conclave.safety.output.shell import ShellCheck  # noqa: PLC0415

        kind = LinkCheck if name == CHECKS[0] else ShellCheck
        return kind(allow=self.allow, own_hosts=self.own_hosts)
