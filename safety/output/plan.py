"""The checks of answers of one policy version, compiled: which are looked for where, and which make text wait."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

from conclave.safety.api import Action
from conclave.safety.output.api import Briefed, Led, OutputRule, Spoken
from conclave.safety.output.triggers import Groups, Triggers


@dataclass(frozen=True, slots=True)
class Plan:
    """`triggers` are each rule's, `groups` the same in one pass over a line; `spoken` and `spoken_groups` are of prose.

    `any_of` are all of them together but the empty one, `holding` those that make text wait while one may begin.

    `prose` are the rules that see prose, `lines` those that see the lines of fenced blocks, `blocks` whole blocks.
    """

    rules: tuple[OutputRule, ...]
    triggers: tuple[Triggers, ...]
    groups: Groups
    spoken: tuple[Triggers, ...]
    spoken_groups: Groups
    any_of: Triggers
    holding: Triggers
    holding_code: Triggers
    prose: tuple[int, ...]
    lines: tuple[int, ...]
    blocks: tuple[int, ...]
    holds: bool
    holds_blocks: bool

    @classmethod
    def of(cls, rules: Sequence[OutputRule], *, whole_blocks: bool = False) -> Self:
        """With `whole_blocks` a fenced block waits as a whole for every check that blocks.

        Raises ValueError for a trigger that cannot be looked for.
        """
        lines = [order for order, rule in enumerate(rules) if rule.check.unit == "line"]
        blocks = [order for order, rule in enumerate(rules) if rule.check.unit == "block"]
        triggers = tuple(Triggers.of(rule.check.triggers) for rule in rules)
        led = tuple(
            Triggers.leading(cast(Led, rule.check).leads) if hasattr(rule.check, "leads") else own
            for rule, own in zip(rules, triggers, strict=True)
        )
        return cls(
            rules=tuple(rules),
            triggers=triggers,
            groups=Groups.of(triggers),
            spoken=led,
            spoken_groups=Groups.of(led),
            any_of=Triggers.joined((*triggers, *led)),
            holding=_holding([rule for rule in rules if not hasattr(rule.check, "leads")]),
            holding_code=_holding([rules[order] for order in lines]),
            prose=tuple(order for order, rule in enumerate(rules) if not hasattr(rule.check, "languages")),
            lines=tuple(lines),
            blocks=tuple(blocks),
            holds=any(rule.holds for rule in rules),
            holds_blocks=any(rules[order].holds for order in blocks)
            or (whole_blocks and any(rule.holds and rule.action is Action.BLOCK for rule in rules)),
        )

    def lines_in(self, language: str) -> list[int]:
        """The rules that see the lines of a block in a language."""
        return [
            order
            for order in self.lines
            if not hasattr(check := self.rules[order].check, "languages") or language in cast(Spoken, check).languages
        ]

    def briefed(self, private: Sequence[str]) -> "Plan":
        """The plan for one call: `private` are the application's own texts in it."""
        if not any(hasattr(rule.check, "briefed") for rule in self.rules):
            return self
        rules = tuple(
            replace(rule, check=cast(Briefed, rule.check).briefed(private)) if hasattr(rule.check, "briefed") else rule
            for rule in self.rules
        )
        return replace(self, rules=rules)


def _holding(rules: Sequence[OutputRule]) -> Triggers:
    return Triggers.of(trigger for rule in rules if rule.holds for trigger in rule.check.triggers)
