"""`conclave retrieval`: the benchmark of the room of documents, and the router's gate in front of that room, under one
name; the two rooms know nothing of each other.
"""

from typing import Final

import click

from conclave.retrieval.benchmark_cli import retrieval as room
from conclave.router.gate_cli import gate

retrieval: Final = click.Group(
    "retrieval",
    {**room.commands, "gate": gate},
    help="Measure how well documents are found; say whether looking something up would pay.",
)
