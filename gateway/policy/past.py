"""Versions of the policy as the table has them, compiled to decide again. They open no expert and classify nothing."""

from typing import TYPE_CHECKING, Final, NoReturn

from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.published import Version

if TYPE_CHECKING:
    from conclave.gateway.policy.store import PolicyStore

MOST: Final = 16  # versions that are remembered: a version with 100 experts is about 1 MB


class PastVersions:
    """By digest, as the rows of the record name them."""

    def __init__(self, store: "PolicyStore") -> None:
        self._store = store
        self._known: dict[str, Version | None] = {}

    def find(self, digest: str) -> Version | None:
        """The version; None if the table does not have it, or not so that this Conclave could read it."""
        if digest not in self._known:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[digest] = self._read(digest)
        return self._known[digest]

    def _read(self, digest: str) -> Version | None:
        stored = self._store.with_digest(digest)
        if stored is None:
            return None
        try:
            return Version(
                stored.read(), Pool({}), classify=_never, model_digest="", number=stored.number, digest=digest
            )
        except ValueError:  # not what was stored, or of a Conclave that knew other settings
            return None


def _never(_: str) -> NoReturn:
    raise AssertionError("a past version decides from what was recorded")
