"""The policy's `standing` and `ooda`: what follows from how far a caller is trusted, and how the loop may work.

Values, checked for shape only. How trust is counted is in `safety/detect/standing.py`, the loop in `safety/ooda`.
"""

from typing import Literal, TypeAlias

from pydantic import Field

from conclave.gateway.policy.defences import CheckName
from conclave.gateway.policy.part import Flag, Part, Row
from conclave.safety.ooda.api import Limits as LoopLimits
from conclave.safety.ooda.loop import Orders

Mode: TypeAlias = Literal["off", "observe", "on"]
Blocking: TypeAlias = tuple[CheckName | Literal["attacks", "any"], ...]


class WatchSettings(Part):
    """What is stricter in the band `watch`. The checks keep their order; nothing becomes milder."""

    block: Blocking = Field(
        default=("override", "persona"),
        description="Checks whose findings refuse the call here; `attacks`: all that act, but `secrets`, `pii`, "
        "`topics` and `shift`; `any`: these, too.",
    )
    threshold_factor: float = Field(
        default=1.0, gt=0, le=1, description="Of the learned checks' thresholds: 0.9 makes them find more."
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Of a key in this band, if that is less than `limits` say."
    )
    tools: Flag = Field(default=True, description="Whether a request may offer tools.")
    experts: Row | None = Field(default=None, description="The only experts that are asked; null: as everywhere.")


class RestrictedSettings(WatchSettings):
    """What is stricter in the band `restricted`."""

    block: Blocking = Field(default=("attacks",), description="As of `watch`.")
    requests_per_minute: int | None = Field(default=20, ge=1, le=1_000_000, description="As of `watch`.")
    tools: Flag = Field(default=False, description="As of `watch`.")


class StandingSettings(Part):
    """How far callers are trusted, and what follows."""

    mode: Mode = Field(
        default="observe", description="`off`; `observe`: counted and recorded; `on`: the bands below count."
    )
    of: Literal["both", "key", "conversation"] = Field(
        default="both", description="Whose standing counts; `conversation` where a key serves many people."
    )
    watch: WatchSettings = Field(
        default_factory=WatchSettings, description="What is stricter at a trust from 0.4 to 0.7."
    )
    restricted: RestrictedSettings = Field(
        default_factory=RestrictedSettings, description="What is stricter at a trust below 0.4."
    )


class OodaSettings(Part):
    """How the loop over the record works that answers attacks with actions that end by themselves."""

    mode: Mode = Field(
        default="observe",
        description="`off`; `observe`: only written down; `on`: imposed, with an entry in the record.",
    )
    every_s: float = Field(default=10.0, ge=0.5, le=3600, description="Seconds between two rounds.")
    window_s: float = Field(default=600.0, ge=1, le=86_400, description="How far back it looks.")
    blocked: int = Field(
        default=5, ge=2, le=10_000, description="Refused calls of a key that are probing; twice as many block the key."
    )
    wave: int = Field(default=5, ge=2, le=10_000, description="Attacks in encoded text or in data that are a wave.")
    scrape_calls: int = Field(default=1_000, ge=10, le=2_000, description="Calls, no two alike, that are scraping.")
    energy_tokens: int = Field(
        default=1_000_000, ge=1_000, le=10**12, description="Tokens of a key's answers, most of them cut off."
    )
    band_s: float = Field(default=900.0, ge=1, le=86_400, description="How long a key or tenant is held stricter.")
    block_s: float = Field(default=600.0, ge=1, le=86_400, description="How long a key is blocked.")
    most_actions: int = Field(default=20, ge=1, le=1_000, description="Actions at once.")
    rise: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Of the share of refused calls in good standing; beyond it an action is undone.",
    )

    def orders(self) -> Orders:
        """As the loop takes them."""
        limits = LoopLimits(
            window_s=self.window_s,
            blocked=self.blocked,
            wave=self.wave,
            scrape_calls=self.scrape_calls,
            energy_tokens=self.energy_tokens,
            band_s=self.band_s,
            block_s=self.block_s,
            most_actions=self.most_actions,
            rise=self.rise,
        )
        return Orders(self.mode, self.every_s, limits)
