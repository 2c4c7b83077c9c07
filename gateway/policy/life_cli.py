"""`conclave router`: the router's own commands, and those that try a policy and look back at what it decided."""

from typing import Final

import click

from conclave.gateway.policy.explain_cli import explain
from conclave.gateway.policy.outcomes_cli import outcomes
from conclave.gateway.policy.replay_cli import replay
from conclave.gateway.policy.solve_cli import solve
from conclave.gateway.policy.trial_cli import shadow, split
from conclave.router.cascade_cli import calibrate_cascade
from conclave.router.cli import router as room
from conclave.router.gate_cli import gate

COMMANDS: Final = (explain, replay, shadow, split, outcomes, solve, calibrate_cascade, gate)
router: Final = click.Group(
    "router",
    {**room.commands, **{command.name or "": command for command in COMMANDS}},
    help="Train, measure and use the router; try a policy before it counts.",
)
