"""What a configuration says of tool calls, for `conclave safety authorise`: it judges files, and starts nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from conclave.gateway.policy.cli import loaded

if TYPE_CHECKING:
    from conclave.gateway.policy.tools import ToolGate


def gate_in(file: Path, tenant: str | None) -> "ToolGate":
    """The rules of the policy in a file, or what it says for one tenant; exits with what is wrong with the file."""
    from conclave.gateway.policy.document import TenantOverrides  # noqa: PLC0415  commands load what they need
    from conclave.gateway.policy.published import said  # noqa: PLC0415
    from conclave.gateway.policy.tools import compiled  # noqa: PLC0415

    policy = loaded(file).policy
    if tenant is not None and tenant not in policy.tenants:
        known = ", ".join(sorted(policy.tenants)) or "none"
        raise click.UsageError(f"the policy has nothing of its own for the tenant {tenant!r}; it has for: {known}")
    own = policy.tenants[tenant] if tenant is not None else TenantOverrides()
    stages = policy.stages.model_copy(update=said(own.stages))
    return compiled(policy.tools if own.tools is None else own.tools, stages.guard)
