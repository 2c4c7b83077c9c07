"""(8) An answer on its way out, chunk by chunk: every text in it goes through a channel; what may not go on waits.

Decides what of an upstream's chunk may be shown now. Every string of a choice that is text is guarded, whatever the
field is called; a chunk in which nothing was held or changed goes on as it came. The arguments of a tool call are
judged as the strings in their JSON, once they are whole. The probabilities of tokens go with their text, and are left
out where nobody can say which text that is. Never asks anybody, and never knows what a check looks for.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from conclave.gateway.arguments import Arguments
from conclave.gateway.call import Chunk
from conclave.gateway.errors import Blocked
from conclave.gateway.probabilities import COLUMNS, Entry, Tokens, entries_of, put_in
from conclave.safety.api import Action, Finding, Severity
from conclave.safety.output.api import Authorise, Restorer, Ruling, ToolCall
from conclave.safety.output.judging import Judging
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import Channel
from conclave.safety.runner import CHECK_FAILED
from conclave.safety.verdict import NOTHING, Verdict

Confirm: TypeAlias = Callable[[ToolCall, Ruling, str, str], Blocked]  # the call, why, where, as the client gets it
Path: TypeAlias = tuple[str | int, ...]  # from the choice on: keys, and the numbers of list items

IN_CHOICE: Final = ("delta", "message", "text")  # where a choice's texts stand
NO_TEXT: Final = frozenset(  # names, kinds and opaque data: no person and no program reads them as an answer's text
    {"role", "id", "type", "object", "name", "index", "format", "signature", "data", "encrypted_content"}
)
CALLS: Final = {"function": "arguments", "custom": "input"}  # of a tool call, where its arguments stand
OLD_CALL: Final = "function_call"
CONTENT: Final[Path] = (0, "delta", "content")
CONFIRM: Final = "confirmation_required"
UNCOUNTED: Final = frozenset({"index", "type"})  # a choice that holds nothing else says nothing


class NoGuard:
    """Lets everything pass as it came: no check, and nothing to put back."""

    verdict: Verdict = NOTHING
    in_turn_bytes = sys.maxsize

    def feed(self, chunk: Chunk) -> Sequence[Chunk]:
        return (chunk,)

    def finish(self) -> Sequence[Chunk]:
        return ()

    def drop(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...

    @property
    def so_far(self) -> str | None:
        return None


UNGUARDED: Final = NoGuard()


@dataclass(frozen=True, slots=True)
class Guarding:
    """What a policy version has guarded for one tenant: `plan` are its checks.

    `raised` are those for the answer to a request that hid its wish; None: the same.
    """

    plan: Plan
    raised: Plan | None = None

    def guard(  # noqa: PLR0913  what all of an answer's texts share, keyword-only but the first
        self,
        private: Sequence[str],
        *,
        incident: str,
        stream: bool,
        authorise: Authorise | None = None,
        confirm: Confirm | None = None,
        restorer: Callable[[], Restorer] | None = None,
        raised: bool = False,
    ) -> "Guard | NoGuard":
        """The guard of one answer; `private` are the application's own texts, `restorer` makes one for each text.

        `authorise` judges each whole tool call; `confirm` makes the error for one that waits for a confirmation.
        `raised`: the request hid its wish.
        """
        if not self.plan.rules and authorise is None and restorer is None:
            return UNGUARDED
        plan = (self.raised if raised and self.raised is not None else self.plan).briefed(private)
        return Guard(plan, incident=incident, stream=stream, authorise=authorise, confirm=confirm, restorer=restorer)


class Text:
    """One text of an answer: through its channel, and then through the restorer."""

    __slots__ = ("_channel", "_restorer", "let_go", "path", "tokens")

    def __init__(self, path: Path, channel: Channel, restorer: Restorer | None) -> None:
        self.path = path
        self._channel = channel
        self._restorer = restorer
        self.let_go: list[str] = []  # before values were put back; empty where none are
        self.tokens: Tokens | None = None  # once probabilities came with it

    def feed(self, piece: str) -> str:
        return self._restored(self._channel.feed(piece))

    def keep(self, name: str, entries: Sequence[Entry], piece: str) -> None:
        """The probabilities of the piece that is fed next; `name` is that of their list."""
        if self.tokens is None:
            self.tokens = Tokens(name)
            self._channel.tell_removed()
        self.tokens.add(entries, piece, self._channel.end)

    def told(self, *, whole: bool) -> list[Entry]:
        """The probabilities that may go now."""
        if self.tokens is None or self._channel.removed is None:
            return []
        return self.tokens.told(self._channel.out, self._channel.removed, whole=whole)

    def finish(self) -> str:
        rest = self._restored(self._channel.finish())
        return rest + self._restorer.finish() if self._restorer is not None else rest

    def drop(self) -> None:
        self._channel.drop()
        if self.tokens is not None:
            self.tokens.drop()

    def close(self) -> None:
        self._channel.finish()

    @property
    def blocked(self) -> Finding | None:
        return self._channel.blocked.told() if self._channel.blocked is not None else None

    def _restored(self, text: str) -> str:
        if self._restorer is None or not text:
            return text
        self.let_go.append(text)
        return self._restorer.feed(text)


class Guard:
    """One answer's guard. Raises Blocked as soon as a finding says so; `verdict` is what was found so far.

    A chunk up to `in_turn_bytes` is judged within a few milliseconds, a larger one is for a thread.
    """

    in_turn_bytes = 8 * 1024

    def __init__(  # noqa: PLR0913  what all of an answer's texts share, keyword-only but the plan
        self,
        plan: Plan,
        *,
        incident: str,
        stream: bool,
        authorise: Authorise | None = None,
        confirm: Confirm | None = None,
        restorer: Callable[[], Restorer] | None = None,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._plan = plan
        self._incident = incident
        self._stream = stream
        self._authorise = authorise
        self._restorer = restorer
        self._judging = Judging(plan.rules, now_s=now_s)
        self._waits = plan.holds or authorise is not None or restorer is not None
        self._tells = plan.holds and restorer is None  # the tokens of a text with other values in it are not its own
        self._entries: dict[Path, tuple[str, list[Entry]]] = {}  # of the choice that is looked at, by their text
        self._told: dict[str, list[Entry]] = {}  # those of it that may go, by the name of their list
        self._texts: dict[Path, Text | Arguments] = {}
        self._confirm = confirm
        self._said: list[Finding] = []  # of `authorise`
        self._obeyed: list[Finding] = []  # those of them that policy acts on
        self._action = Action.ALLOW  # of the calls,
        self._would = Action.ALLOW  # and if nothing were only observed
        self._like: dict[str, Any] = {}  # the last event
        self._busy = False

    @property
    def verdict(self) -> Verdict:
        found = self._judging.verdict
        return Verdict(
            max(found.action, self._action),
            found.findings + tuple(self._said),
            found.acted + tuple(self._obeyed),
            found.ran,
            would=max(found.would, self._would),
        )

    def feed(self, chunk: Chunk) -> Sequence[Chunk]:
        """What may go on now, in order: the chunk itself if nothing in it was held or changed."""
        event = chunk.event
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices:
            return (chunk,)
        self._like = event
        rests: list[dict[str, Any]] = []
        self._busy = True
        guarded = [self._choice(choice, rests) for choice in choices]
        self._busy = False
        flush = [self._event([rest]) for rest in rests]
        if all(new is old for new, old in zip(guarded, choices, strict=True)):
            return (*flush, chunk)
        if not event.get("usage") and not any(map(_says, guarded)):
            return flush
        return (*flush, Chunk(msgspec.json.encode({**event, "choices": guarded})))

    def finish(self) -> Sequence[Chunk]:
        """The answer is whole: what was held of it."""
        indices = dict.fromkeys(path[0] for path in self._texts)
        return [self._event([rest]) for index in indices if (rest := self._rest(index)) is not None]

    @property
    def so_far(self) -> str | None:
        """The content that was let go, without the values that were put back; None if none are."""
        content = self._texts.get(CONTENT)
        if self._restorer is None:
            return None
        return "".join(content.let_go) if isinstance(content, Text) else ""

    def reset(self) -> None:
        """Another expert begins from nothing."""
        self._texts, self._said, self._obeyed = {}, [], []
        self._action = self._would = Action.ALLOW
        self._judging.clear()

    def drop(self) -> None:
        """Another expert goes on from what was let go: forget what waits."""
        texts = {path: text for path, text in self._texts.items() if isinstance(text, Text)}
        self._texts = {**texts}
        for text in texts.values():
            text.drop()

    def close(self) -> None:
        """The answer ends here, however it does: judge what came of it. Nothing more is shown, nothing is raised."""
        if self._busy:  # a thread still reads a large answer for a client that has left, or it was blocked
            return
        for text in self._texts.values():
            text.close()
        self._texts = {}

    def _choice(self, choice: dict[str, Any], rests: list[dict[str, Any]]) -> dict[str, Any]:
        """The choice as it may go on; the same object if nothing changed. What was held of it comes before its end."""
        index = choice["index"] if isinstance(choice.get("index"), int) else 0
        whole = not self._stream or bool(choice.get("finish_reason"))
        changed = choice
        odds = choice.get("logprobs")
        placed = entries_of(choice, NO_TEXT) if self._tells and odds else None
        self._entries = {(index, *path): of for path, of in placed.items()} if placed is not None else {}
        self._told = {}
        for name in IN_CHOICE:
            if value := choice.get(name):
                said = self._guarded(value, (index, name), whole=whole)
                if said is not value:
                    changed = {**changed, name: said}
        for path, (name, entries) in self._entries.items():  # without a piece of text
            self._text_at(path).keep(name, entries, "")
        told, self._told = self._told, {}
        if whole and (rest := self._rest(index)) is not None:
            rests.append(rest)
        if told or placed:
            new = put_in(odds, told)
            return changed if new == odds else {**changed, "logprobs": new}
        if placed is not None:  # there are none
            return changed
        return {**changed, "logprobs": None} if odds and changed is not choice else changed  # they would say the rest

    def _guarded(self, value: Any, path: Path, *, whole: bool) -> Any:
        """A value with every text in it guarded; the same object if nothing changed."""
        if isinstance(value, str):
            return self._text(value, path, whole=whole) if value else value
        if isinstance(value, dict):
            changed: dict[str, Any] | None = None
            for key, inner in value.items():
                if key in NO_TEXT or not isinstance(inner, str | dict | list):
                    continue
                new = self._part(key, inner, value, path, whole=whole)
                if new is not inner:
                    changed = value.copy() if changed is None else changed
                    changed[key] = new
            return value if changed is None else changed
        if isinstance(value, list):
            items = [self._guarded(item, (*path, _number(item, at)), whole=whole) for at, item in enumerate(value)]
            return value if all(new is old for new, old in zip(items, value, strict=True)) else items
        return value

    def _part(self, key: str, inner: Any, of: Mapping[str, Any], path: Path, *, whole: bool) -> Any:
        into = (*path, key)
        if isinstance(inner, dict):
            field = "arguments" if key == OLD_CALL else CALLS.get(key) if "tool_calls" in path else None
            if field is not None:
                return self._call(inner, field, into, call_id=of.get("id"), whole=whole)
        return self._guarded(inner, into, whole=whole)

    def _call(self, called: dict[str, Any], field: str, path: Path, *, call_id: object, whole: bool) -> dict[str, Any]:
        """A tool call, or a piece of it: its name may stand in the first piece alone."""
        place = (*path, field)
        call = self._texts.get(place)
        if not isinstance(call, Arguments):
            call = Arguments(place, place_of(place), self._judging, self._plan, waits=self._waits)
            self._texts[place] = call
        call.note(called.get("name"), call_id)
        piece = called.get(field)
        if piece is None:
            piece = ""
        elif not isinstance(piece, str):  # some servers send the object itself
            piece = msgspec.json.encode(piece).decode()
        said = call.feed(piece)
        if whole:
            said += self._finished(call)
            del self._texts[place]
        return called if said == piece else {**called, field: said}

    def _text(self, piece: str, path: Path, *, whole: bool) -> str:
        text = self._text_at(path)
        if path in self._entries:
            text.keep(*self._entries.pop(path), piece)
        elif text.tokens is not None:
            text.keep(text.tokens.name, (), piece)
        said = text.feed(piece)
        if whole:
            said += text.finish()
            del self._texts[path]
        self._check(text.blocked)
        self._tell(text, self._told, whole=whole)
        return piece if said == piece else said

    def _text_at(self, path: Path) -> Text:
        text = self._texts.get(path)
        if not isinstance(text, Text):
            restorer = self._restorer() if self._restorer is not None else None
            text = self._texts[path] = Text(path, Channel(self._plan, self._judging, place_of(path)), restorer)
        return text

    @staticmethod
    def _tell(text: Text | Arguments, told: dict[str, list[Entry]], *, whole: bool) -> None:
        if isinstance(text, Text) and text.tokens is not None and (entries := text.told(whole=whole)):
            told.setdefault(text.tokens.name, []).extend(entries)

    def _finished(self, text: Text | Arguments) -> str:
        """The rest of a text that is whole; a tool call is authorised here, once."""
        if isinstance(text, Text):
            said = text.finish()
            self._check(text.blocked)
            return said
        said = text.finish(self._restorer)
        self._check(text.blocked)
        if self._authorise is not None:
            call, place = ToolCall(text.name, text.written, text.call_id), place_of(text.path)
            self._heed(self._authorised(self._authorise, call, place), call, place, said)
        return said

    def _authorised(self, authorise: Authorise, call: ToolCall, place: str) -> Ruling:
        try:
            return authorise(call)
        except Exception:  # noqa: BLE001  a check's own edge: a call that nobody could judge is not made
            failed = (Finding("toolcalls", CHECK_FAILED, Severity.HIGH, 1.0, place, 0, len(call.arguments)),)
            return Ruling(Action.BLOCK, failed, failed)

    def _heed(self, ruling: Ruling, call: ToolCall, place: str, said: str) -> None:
        """Raises Blocked; where a person may say yes, with the call as the client would have got it."""
        self._said += ruling.findings
        self._obeyed += ruling.acted
        self._action = max(self._action, ruling.action)
        self._would = max(self._would, ruling.would)
        if ruling.action is Action.CONFIRM and self._confirm is not None:
            raise self._confirm(call, ruling, place, said)
        if ruling.action >= Action.CONFIRM:
            self._refuse(ruling.acted or ruling.findings)

    def _rest(self, index: str | int) -> dict[str, Any] | None:
        """A choice with what was held of its texts; they are whole."""
        rest: dict[str, Any] = {}
        told: dict[str, list[Entry]] = {}
        for path in [path for path in self._texts if path[0] == index]:
            text = self._texts.pop(path)
            if said := self._finished(text):
                _put(rest, path[1:], said)
            self._tell(text, told, whole=True)
        if told:
            rest = rest or ({"text": ""} if COLUMNS in told else {"delta": {}})
            rest["logprobs"] = put_in(None, told)
        return {"index": index, **rest, "finish_reason": None} if rest else None

    def _event(self, choices: list[dict[str, Any]]) -> Chunk:
        """A chunk of this answer as if the expert had sent it."""
        like = {key: value for key, value in self._like.items() if key not in {"usage", "conclave"}}
        return Chunk(msgspec.json.encode({**like, "choices": choices}))

    def _check(self, finding: Finding | None) -> None:
        if finding is not None:
            self._refuse([finding])

    def _refuse(self, findings: Sequence[Finding]) -> None:
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in findings))
        if self.verdict.action is Action.CONFIRM:
            words = f"a tool call of this answer needs a confirmation ({kinds}); the incident is {self._incident}"
            raise Blocked(words, param=findings[0].place or None, code=CONFIRM)
        words = f"this answer was withheld ({kinds}); the incident is {self._incident}"
        raise Blocked(words, param=findings[0].place or None)


def place_of(path: Path) -> str:
    """How a finding names a text: `choices[0].content`, the same in a stream and in a plain answer."""
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return "choices" + "".join(part for part in parts if part not in {".delta", ".message"})


def _says(choice: Mapping[str, Any]) -> bool:
    """Whether a choice still holds anything that a client would miss."""
    return any(_holds(value) for key, value in choice.items() if key not in UNCOUNTED)


def _holds(value: object) -> bool:
    if isinstance(value, dict):
        return _says(value)
    if isinstance(value, list):
        return any(map(_holds, value))
    return value is not None and value != ""


def _number(item: object, at: int) -> int:
    """Which item of a list it is: a stream numbers them, since it sends only those that grow."""
    number = item.get("index") if isinstance(item, dict) else None
    return number if isinstance(number, int) else at


def _put(holder: dict[str, Any], path: Path, text: str) -> None:
    """Put a text where the path says, as a stream has it."""
    place: Any = holder
    for step, below in zip(path, (*path[1:], None), strict=True):
        if isinstance(step, int):
            found = next((item for item in place if item["index"] == step), None)
            if found is None:
                place.append(found := {"index": step})
            place = found
        elif below is None:
            place[step] = text
        else:
            place = place.setdefault(step, [] if isinstance(below, int) else {})
