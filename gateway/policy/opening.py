"""Opens the experts of a version. What did not change is carried over from the version before it, with its health.

An expert that is no longer wanted is closed when nobody holds it any more: the pool of the version in force, or a call
that began under an older one. Opening reads files and blocks, closing happens on the event loop.
"""

import asyncio
import hashlib
import stat
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from conclave.gateway.experts.api import Expert
from conclave.gateway.experts.configured import configured
from conclave.gateway.experts.deployment import Table
from conclave.gateway.experts.openai_http import HttpSessions
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import ExpertSettings, PolicyDocument

if TYPE_CHECKING:
    from conclave.router.encoder import StaticEncoder

KEY_FILE_BYTES: Final = 65_536  # of a key file that are compared; a key is a line

log = structlog.get_logger()

Keys: TypeAlias = tuple[bytes | None, ...]  # a digest of what each key file holds; None: nothing, or it is not there
NOTHING: Final[Mapping[str, Keys]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Opened:
    """A version's experts, and what they were opened with."""

    pool: Pool
    settings: Mapping[str, ExpertSettings]
    keys: Mapping[str, Keys]

    def serves(self, name: str, settings: ExpertSettings) -> bool:
        """Whether the expert is here already, the same in all that its settings say."""
        return self.settings.get(name) == settings


class Opener:
    """Made on the event loop on which the experts serve; `open` may be called from any thread."""

    def __init__(
        self, environ: Mapping[str, str], sessions: HttpSessions, encoder: "StaticEncoder | None" = None
    ) -> None:
        self._environ = environ
        self._sessions = sessions
        self._encoder = encoder
        self._loop = asyncio.get_running_loop()
        self._unused: list[weakref.finalize[[Sequence[Expert]], Table]] = []
        self._closing: set[asyncio.Task[None]] = set()

    def open(
        self, document: PolicyDocument, before: Opened | None = None, *, rotated: Mapping[str, Keys] = NOTHING
    ) -> Opened:
        """The document's experts. Raises OSError or ValueError for a key that cannot be read or sent.

        An expert whose settings did not change keeps its key, whatever its key files hold just now, unless they hold
        what `rotated` says: a file that is being written is no reason to lose a key that works.
        """
        keys = keys_of(document)  # before the keys are read: a change in between is seen at the next look
        kept: dict[str, Table] = {}
        for name, expert in document.experts.items():
            if before is None or not before.serves(name, expert):
                continue
            if keys[name] == before.keys[name] or keys[name] != rotated.get(name):
                kept[name], keys[name] = before.pool.tables[name], before.keys[name]
        rest = {name: expert for name, expert in document.experts.items() if name not in kept}
        wanted = document.model_copy(update={"experts": rest})
        pool = configured(wanted, self._environ, self._sessions, encoder=self._encoder)
        self._unused = [one for one in self._unused if one.alive]
        for table in pool.tables.values():
            experts = [seat.deployment.expert for seat in table.seats]
            unused = weakref.finalize(table, self._let_go, experts)
            unused.atexit = False  # `aclose` has seen to it
            self._unused.append(unused)
        return Opened(pool.beside(kept), dict(document.experts), keys)

    def _let_go(self, experts: Sequence[Expert]) -> None:
        """Called where the last holder let go: on any thread."""
        with suppress(RuntimeError):  # the loop has ended, and `aclose` before it
            self._loop.call_soon_threadsafe(self._close, experts)

    def _close(self, experts: Sequence[Expert]) -> None:
        task = self._loop.create_task(_closed(experts))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Close all that is still open, held or not."""
        detached = [unused.detach() for unused in self._unused]
        still_open = [expert for found in detached if found is not None for expert in found[2][0]]
        await asyncio.gather(_closed(still_open), *self._closing)


async def _closed(experts: Iterable[Expert]) -> None:
    for expert in experts:
        try:
            await expert.aclose()
        except Exception as error:  # noqa: BLE001  this task's edge: the others are closed all the same
            log.warning("expert.close_failed", expert=expert.name, error=type(error).__name__)


def keys_of(document: PolicyDocument) -> dict[str, Keys]:
    """What the key files of each expert hold now, as digests."""
    return {
        name: tuple(_held(place.api_key_file) for place in expert.resolved_deployments() if place.api_key_file)
        for name, expert in document.experts.items()
    }


def is_lost(held: Keys, now: Keys) -> bool:
    """Whether a key file that held a key is empty or gone."""
    return any(before is not None and after is None for before, after in zip(held, now, strict=True))


def _held(path: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            held = file.read(KEY_FILE_BYTES).strip()
    except OSError:
        return None
    return hashlib.sha256(held).digest() if held else None
