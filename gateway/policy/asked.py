"""What a choice of expert follows from, beside the rules: a value that a live call makes and the record keeps.

None of it is text that people wrote, so the same rules can choose again from it, bit for bit, long after the call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from conclave.gateway.call import Operation
from conclave.router.api import Classification, LookUp, Talk

NO_TALK: Final = Talk()


@dataclass(frozen=True, slots=True)
class Asked:
    """`model` is what the client wrote; `needs` are the capabilities that the expert must have.

    `reach` are the experts that the key reaches, by name; None: all. `found` is None where the choice needs no
    category (a named expert, an embedding, routing switched off) or there was no text. `talk` is what is known of the
    conversation. `quality` is what each expert is expected to score on this very question, where the policy has a head.
    `look_up` is what came of asking whether looking it up pays; None where there is nothing to look up in. `flagged`:
    something was found in data of the conversation, and the policy asks without them first.
    """

    model: str
    operation: Operation
    needs: frozenset[str]
    reach: frozenset[str] | None = None
    found: Classification | None = None
    talk: Talk = NO_TALK
    quality: Mapping[str, float] = field(default_factory=dict)
    look_up: LookUp | None = None
    flagged: bool = False

    def reaches(self, expert: str) -> bool:
        """Whether the key does."""
        return self.reach is None or expert in self.reach
