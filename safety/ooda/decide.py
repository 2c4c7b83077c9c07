"""Decide: from incidents to actions out of a short list. Each ends by itself; so many at once, and never against all.

A key is held to `watch` or `restricted` before it is blocked, and blocked only for what was refused again and again.
Callers without a key share their subject, so they are held stricter and never blocked. Victims of poisoned data are
never blocked either: their tenant is looked at more closely. A pattern is proposed to an admin, never put in force.
"""

from collections.abc import Collection, Iterable
from typing import Final

from conclave.safety.detect.standing import Band
from conclave.safety.ooda.api import Action, Attack, Deed, Incident, Limits

KEY: Final = "key:"
HEAVY: Final = 2  # times as many refusals as probing takes, before a key is blocked,
MOSTLY: Final = 0.5  # and this share of its calls
BAND: Final = {
    Attack.PROBING: Band.RESTRICTED,
    Attack.ENCODED: Band.WATCH,
    Attack.DATA: Band.WATCH,
    Attack.SCRAPING: Band.WATCH,
    Attack.ENERGY: Band.WATCH,
}
PROPOSES: Final = frozenset({Attack.ENCODED, Attack.DATA})  # what a pattern could catch


def decide(
    incidents: Iterable[Incident],
    active: Collection[Action],
    limits: Limits,
    *,
    now_s: float,
    spared: Collection[tuple[Attack, str]] = (),
) -> list[tuple[Action, Incident]]:
    """What to do now, beside what is `active`; `spared` are attacks of subjects, of which the action had to be undone.

    Of these alone: who had one action undone must not be free to try everything else.
    """
    room = limits.most_actions - len(active)
    held = {(one.deed, one.subject): one for one in active}
    chosen: list[tuple[Action, Incident]] = []
    for incident in incidents:
        for action in _answers(incident, limits, now_s):
            known = held.get((action.deed, action.subject))
            if (
                room <= 0
                or (action.attack, action.subject) in spared
                or (known is not None and known.band >= action.band)
            ):
                continue
            held[action.deed, action.subject] = action
            chosen.append((action, incident))
            room -= known is None
    return chosen


def _answers(incident: Incident, limits: Limits, now_s: float) -> list[Action]:
    attack, subject = incident.attack, incident.subject
    by_key = subject.startswith(KEY)
    whole_tenant = not by_key and attack in PROPOSES
    deed = Deed.RAISE_SCAN if whole_tenant else Deed.TIGHTEN
    answers = [Action(deed, subject, attack, now_s + limits.band_s, BAND[attack], now_s)]
    if attack is Attack.PROBING and by_key and _is_heavy(incident, limits):
        answers.append(Action(Deed.BLOCK_KEY, subject, attack, now_s + limits.block_s, Band.RESTRICTED, now_s))
    if attack in PROPOSES:
        answers.append(Action(Deed.PROPOSE_RULE, subject, attack, now_s + limits.band_s, since_s=now_s))
    return answers


def _is_heavy(incident: Incident, limits: Limits) -> bool:
    """Refused twice as often as probing takes, and most of the time: one who serves many people is not."""
    blocked, calls = incident.evidence.get("blocked", 0), incident.evidence.get("calls", 0)
    return blocked >= HEAVY * limits.blocked and blocked >= MOSTLY * calls
