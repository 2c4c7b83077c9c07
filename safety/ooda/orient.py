"""Orient: which attack the counters look like. Pure, and deliberately simple: a person must be able to check it.

A name here is a guess from counts, and a caller who knows the numbers can stay below them. It never says what to do.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from conclave.safety.ooda.api import Attack, Counts, Incident, Limits

REFUSED_SHARE: Final = 0.2  # of a key's calls, beside their number: a busy application has some refused, too
ALIKE: Final = 0.9  # of the texts are different: who asks a question twice copies nothing
CUT_OFF: Final = 0.5  # of the answers were as long as they could be
TENANT: Final = "tenant:"


def orient(seen: Iterable[tuple[str, str, Counts]], limits: Limits) -> list[Incident]:
    """The incidents in what was observed: (subject, tenant, counts). Those of keys first, then waves over tenants."""
    found: list[Incident] = []
    waves: dict[tuple[Attack, str], list[Counts]] = defaultdict(list)
    for subject, tenant, counts in seen:
        found += _of_one(subject, counts, limits)
        if counts.in_data:
            waves[Attack.DATA, tenant].append(counts)
        if counts.encoded:
            waves[Attack.ENCODED, tenant].append(counts)
    return found + [one for (attack, tenant), parts in waves.items() for one in _wave(attack, tenant, parts, limits)]


def _of_one(subject: str, counts: Counts, limits: Limits) -> Iterator[Incident]:
    calls = {"calls": counts.calls}
    if counts.blocked >= limits.blocked and counts.blocked >= REFUSED_SHARE * counts.calls:
        yield Incident(Attack.PROBING, subject, calls | {"blocked": counts.blocked}, counts.requests)
    if counts.encoded >= limits.wave:
        yield Incident(Attack.ENCODED, subject, calls | {"encoded": counts.encoded}, counts.requests)
    if counts.calls >= limits.scrape_calls and counts.texts >= ALIKE * counts.calls:
        yield Incident(Attack.SCRAPING, subject, calls | {"texts": counts.texts})
    if counts.tokens >= limits.energy_tokens and counts.cut_off >= CUT_OFF * counts.calls:
        yield Incident(Attack.ENERGY, subject, calls | {"tokens": counts.tokens, "cut_off": counts.cut_off})


def _wave(attack: Attack, tenant: str, parts: list[Counts], limits: Limits) -> Iterator[Incident]:
    """Many findings over several keys of a tenant: it is not one caller, or one caller has many keys."""
    found = sum(one.in_data if attack is Attack.DATA else one.encoded for one in parts)
    if found >= limits.wave and len(parts) >= limits.wave_keys:
        requests = tuple(request for one in parts for request in one.requests)[-8:]
        yield Incident(attack, f"{TENANT}{tenant}", {"findings": found, "keys": len(parts)}, requests)
