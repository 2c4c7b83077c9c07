"""Caps on what one request may make experts do: tokens, answers, effort, and rounds of tools. Compiled from `limits`.

What only makes an answer shorter is lowered, and the caller is told so (`conclave.lowered`); what would change it, or
shows that a program runs in circles, is refused. Decided from the request alone; a cap never raises anything.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import InvalidRequest
from conclave.safety.toolcalls.history import calls_of, since_user, spelt

Effort: TypeAlias = Literal["low", "medium", "high"]
LEVELS: Final = ("none", "minimal", "low", "medium", "high")  # of effort, rising; any other is more than `high`
TOKENS: Final = ("max_tokens", "max_completion_tokens")
NESTED: Final = {  # where providers look for the tokens of thinking, and for its effort
    ("thinking", "budget_tokens"): "tokens",
    ("reasoning", "max_tokens"): "tokens",
    ("reasoning", "effort"): "effort",
    ("output_config", "effort"): "effort",
    ("chat_template_kwargs", "thinking_budget"): "tokens",
}
THINKING: Final = "thinking_budget"  # the same as a field of its own
IN_CIRCLES: Final = "tool_loop"  # the code of both refusals for loops


@dataclass(frozen=True, slots=True)
class RequestCaps:
    """None: no cap. `newer` are the experts that take only the newer name of the token limit."""

    answer_tokens: int | None = None
    answers: int | None = None
    effort: Effort | None = None
    tool_turns: int | None = None
    same_tool_calls: int | None = None
    newer: frozenset[str] = frozenset()

    def lowered(self, request: ModelRequest) -> ModelRequest:
        """The request within the caps; raises InvalidRequest. The same object if there is nothing to do."""
        self._check_answers(request.body)
        self._check_loop(request.body.get("messages"))
        if self.answer_tokens is None and self.effort is None:
            return request
        changed = dict(self._changes(request.body))
        if not changed:
            return request
        body = dict(request.body)
        for place, value in changed.items():
            outer, _, inner = place.partition(".")
            body[outer] = {**body[outer], inner: value} if inner else value
        return replace(request, body=body, lowered=tuple(changed))

    def with_limit(self, request: ModelRequest, expert: str, *, as_chat: bool) -> ModelRequest:
        """The request as this expert gets it: a chat that names no limit has the cap for one."""
        if self.answer_tokens is None or not (as_chat or request.operation == "chat"):
            return request
        if any(request.body.get(name) is not None for name in TOKENS):
            return request
        name = "max_completion_tokens" if expert in self.newer else "max_tokens"
        return replace(request, body={**request.body, name: self.answer_tokens})

    def _changes(self, body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name in TOKENS:
            if self._is_too_long(body.get(name)):
                yield name, self.answer_tokens
        if self._is_too_hard(body.get("reasoning_effort")):
            yield "reasoning_effort", self.effort
        if self._is_too_long(body.get(THINKING)):
            yield THINKING, self._for_thinking
        for (outer, inner), kind in NESTED.items():
            holder = body.get(outer)
            value = holder.get(inner) if isinstance(holder, dict) else None
            if kind == "tokens" and self._is_too_long(value):
                yield f"{outer}.{inner}", self._for_thinking
            elif kind == "effort" and self._is_too_hard(value):
                yield f"{outer}.{inner}", self.effort

    @property
    def _for_thinking(self) -> int | None:
        """Of the tokens of an answer; the rest is for what it says."""
        return None if self.answer_tokens is None else max(1, self.answer_tokens // 2)

    def _is_too_long(self, value: object) -> bool:
        return self.answer_tokens is not None and isinstance(value, int | float) and value > self.answer_tokens

    def _is_too_hard(self, value: object) -> bool:
        if self.effort is None or value is None:
            return False
        return not (isinstance(value, str) and value in LEVELS[: LEVELS.index(self.effort) + 1])

    def _check_answers(self, body: Mapping[str, Any]) -> None:
        for name in ("n", "best_of") if self.answers is not None else ():
            asked = body.get(name)
            if isinstance(asked, int | float) and self.answers is not None and asked > self.answers:
                words = f"a call may have {self.answers} answers at most"
                raise InvalidRequest(words, param=name, code="too_many_answers")

    def _check_loop(self, messages: object) -> None:
        if (self.tool_turns is None and self.same_tool_calls is None) or not isinstance(messages, list):
            return
        spell = spelt if self.same_tool_calls is not None else _unread
        turns = [
            [(name, spell(arguments)) for name, arguments in calls]
            for message in since_user(messages)
            if (calls := calls_of(message))
        ]
        if self.tool_turns is not None and len(turns) > self.tool_turns:
            words = f"{len(turns)} turns with tool calls since the user spoke, and {self.tool_turns} are the limit"
            raise InvalidRequest(f"{words}: ask the user, or answer", param="messages", code=IN_CIRCLES)
        most = Counter(call for calls in turns for call in calls).most_common(1)
        if self.same_tool_calls is not None and most and most[0][1] > self.same_tool_calls:
            words = f"the same tool was called with the same arguments {most[0][1]} times since the user spoke"
            words = f"{words}, and {self.same_tool_calls} are the limit: its result will not change"
            raise InvalidRequest(words, param="messages", code=IN_CIRCLES)


NO_CAPS: Final = RequestCaps()


def _unread(_: object) -> bytes:
    return b""
