"""What the OODA loop's parts share: what was observed, what it may mean, and what is done about it for how long.

Observe, orient, decide, act (Countermind, arXiv 2510.11837, "self-regulating core"): counters become an attack's name,
the name becomes one of a few actions, and each action ends by itself. Values only; no clock, no policy document.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from conclave.safety.detect.standing import Band


class Attack(StrEnum):
    """What a row of calls may be."""

    PROBING = "probing"  # one caller is refused again and again: it looks for what passes
    ENCODED = "encoded"  # attacks in what was encoded: in base64, shifted letters, invisible characters
    DATA = "data"  # orders in what tools and files say: somebody else writes them, the callers are its victims
    SCRAPING = "scraping"  # very many calls, no two alike: a model, or a collection, is being copied
    ENERGY = "energy"  # answers as long as they can be, over and over: time and money are the target


class Deed(StrEnum):
    """What the loop may do; nothing else."""

    TIGHTEN = "tighten"  # hold a key to a stricter band
    RAISE_SCAN = "raise_scan"  # hold a whole tenant to the band `watch`
    BLOCK_KEY = "block_key"  # refuse a key's calls
    PROPOSE_RULE = "propose_rule"  # tell an admin which calls to look at; changes nothing


@dataclass(frozen=True, slots=True)
class Observation:
    """One call, as the record tells it.

    `subject` is `key:ID`, or `tenant:NAME` for callers without a key. `good`: its standing was open before this call.
    `text` names what was asked, `tokens` is what was written. The attacks are findings that policy acted on.
    """

    at_s: float
    subject: str
    tenant: str
    request_id: str
    text: str = ""
    blocked: bool = False
    confined: bool = False  # refused, but not for a new attack: for its band, for a card number, for what was refused
    good: bool = True
    attacks: int = 0
    encoded: int = 0
    in_data: int = 0
    tokens: int = 0
    cut_off: bool = False  # it wrote as much as it was allowed to


@dataclass(frozen=True, slots=True)
class Counts:
    """The calls of one subject within the window."""

    calls: int = 0
    blocked: int = 0
    encoded: int = 0
    in_data: int = 0
    texts: int = 0
    tokens: int = 0
    cut_off: int = 0
    requests: tuple[str, ...] = ()  # the newest of those with an attack


@dataclass(frozen=True, slots=True)
class Incident:
    """An attack, who it comes from (or, for waves, whom it meets), and the numbers that say so."""

    attack: Attack
    subject: str
    evidence: Mapping[str, int]
    requests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """What is done about an incident, until when (`until_s`; a proposal has no end of its own)."""

    deed: Deed
    subject: str
    attack: Attack
    until_s: float
    band: Band = Band.OPEN
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as an attack, and how far the loop may go. docs/safety.md says how the numbers were chosen."""

    window_s: float = 600.0
    blocked: int = 5  # refused calls of one key that are probing; twice as many block it
    wave: int = 5  # findings, of encoded attacks or of orders in data
    wave_keys: int = 2  # that they must come from before a whole tenant is held stricter
    scrape_calls: int = 1_000
    energy_tokens: int = 1_000_000
    band_s: float = 900.0
    block_s: float = 600.0
    most_actions: int = 20  # at once
    rise: float = 0.02  # of the share of refused calls of keys in good standing, before what was done is undone
    rise_calls: int = 20  # of keys in good standing, before that share says anything


DEFAULTS: Final = Limits()
NO_EVIDENCE: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Step:
    """What the loop did, or in observe mode would have done: for the record."""

    did: str  # imposed, would_impose, expired, rolled_back, lifted
    action: Action
    evidence: Mapping[str, int] = field(default_factory=dict)
    requests: tuple[str, ...] = ()
