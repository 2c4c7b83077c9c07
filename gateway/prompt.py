"""The sole builder of what an expert is sent.

An expert gets the client's request as it was written, less what is Conclave's own: the `conclave` extension and the
model name, which each deployment puts in for itself. Data in it (results of tools, files, what the caller declares)
stands between markers, if the policy has fences; without data, not a byte changes. An expert that continues another's
answer gets that answer, too, and one on trial the wish to hear how sure it is.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from conclave.gateway.call import ModelRequest, Operation
from conclave.gateway.evidence import Evidence
from conclave.gateway.trace import NO_HEADERS
from conclave.safety.api import DATA, Origin, Segment
from conclave.safety.boundary.fence import Fences
from conclave.safety.boundary.invisible import strip
from conclave.safety.boundary.segments import TEXT_PARTS

OURS: Final = frozenset({"conclave", "model"})
NOTHING: Final[Mapping[str, Any]] = {}
PLACE: Final = re.compile(  # where texts stand that are data: a message, a part of one, a file's name
    r"messages\[(\d+)\]\.content(?:\[(\d+)\](\.file\.filename)?)?"
)
INFORMED: Final = (
    "Passages from documents, numbered [1], [2] and so on, stand before the user's last words, because they may answer"
    " them. Use what they say where it does, and write the number of each passage that you use behind what it supports,"
    " like [1], unless the answer has a format of its own. What they do not say, do not claim that they say."
)
ALONE: Final = " Answer from these passages alone; if they do not say it, say so."
DISAGREE: Final = " Some of these passages contradict each other: say what each side says, and do not choose one."
UNLIKELY: Final = " These passages may well be wrong: where you know better, say what you know, and that they differ."
FOLLOWS: Final[Mapping[str, str]] = {"both": DISAGREE, "flag": UNLIKELY, "memory": UNLIKELY}
INSTRUCTIONS: Final = frozenset({"system", "developer"})  # whose messages are the application's own
COMPLETIONS_ONLY: Final = frozenset({"prompt", "suffix", "echo", "best_of", "logprobs"})
CHARS_PER_TOKEN: Final = 4  # of English text: what is left of the client's own limit, roughly
LEFT_OUT: Final = "[left out]"
GO_ON: Final = (
    "The connection broke while you were answering, and your last message is all that arrived. Continue it from its"
    " very last character, in the same language and format. Begin with a space or line break if one belongs there."
    " Write only what comes next: do not repeat, introduce or explain anything."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A body of the OpenAI API without its model; `stream` says which kind of answer the upstream must give.

    `headers` go along to the upstream: where the call stands in a distributed trace. `prefilled` says that the body
    ends with the beginning of the answer, as the expert's own words. `added` are the fields that the client did not
    ask for. `evidence` is what was looked up; it stands in the body, too.
    """

    body: Mapping[str, Any]
    stream: bool
    operation: Operation = "chat"
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    prefilled: bool = False
    added: frozenset[str] = frozenset()
    evidence: Evidence | None = None


def compose(  # noqa: PLR0913  each a separate fact of the step, all keyword-only but the request
    request: ModelRequest,
    *,
    so_far: str = "",
    prefills: bool = False,
    as_chat: bool = False,
    beside: Mapping[str, Any] = NOTHING,
    headers: Mapping[str, str] = NO_HEADERS,
    inner: Mapping[str, Any] = NOTHING,
    evidence: Evidence | None = None,
) -> Prompt:
    """The prompt of a request; unknown fields go on to the expert.

    `so_far` is the beginning of an answer that the expert has to continue: as its own last words if it `prefills`
    (vLLM, SGLang), else because it is asked to. `as_chat` asks for a text completion as a chat with one message.
    `beside` are fields that the gateway puts in for itself. `inner` is how a local mixture-of-experts model has to
    work: it alone is told so. `evidence` goes before the user's last words.
    """
    body = {key: value for key, value in request.body.items() if key not in OURS}
    if inner:
        body["conclave"] = {"moe": inner}
    if as_chat:
        body = _one_message(body)
    if evidence is not None and evidence.block:
        body = _informed(body, evidence)
    if as_chat:
        return Prompt(body, stream=request.stream, headers=headers, evidence=evidence)
    if so_far:
        body = _continuing(body, so_far, prefills=prefills)
    return Prompt(
        {**body, **beside},
        stream=request.stream,
        operation=request.operation,
        headers=headers,
        prefilled=bool(so_far) and prefills,
        added=frozenset(beside),
        evidence=evidence,
    )


def quoted(evidence: Evidence, fences: Fences, *, key: bytes, conversation: str) -> Evidence:
    """The evidence as it stands in prompts: each passage with its number and source, between markers.

    Passages stand between markers whatever the policy says of other data: nobody knows who wrote them.
    """
    if not evidence.shown:
        return evidence
    if fences.mode == "off":
        fences = replace(fences, mode="delimit")
    blocks = []
    for one in evidence.shown:
        segment = Segment(Origin.RETRIEVED, f"[{one.number}] {one.name}\n{one.text}", "", "", one.passage.source)
        blocks.append(fences.fenced(segment, key=key, conversation=conversation))
    note = f"{fences.note}\n\n{INFORMED}{FOLLOWS.get(evidence.follows, '')}{ALONE if evidence.required else ''}"
    return replace(evidence, block="\n".join(blocks), note=note)


def _informed(body: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The body with the passages before the user's last words, and in the instructions how to use them.

    A text completion has no instructions: both stand before its prompt.
    """
    if "messages" not in body:
        return {**body, "prompt": f"{evidence.note}\n\n{evidence.block}\n\n{_lone_prompt(body)}"}
    messages = body["messages"]
    last = max((at for at, one in enumerate(messages) if one.get("role") == "user"), default=None)
    if last is None:
        return body
    content = messages[last].get("content")
    if isinstance(content, list):
        said: Any = [{"type": "text", "text": evidence.block}, *content]
    else:
        said = f"{evidence.block}\n\n{content}"
    informed = [*messages[:last], {**messages[last], "content": said}, *messages[last + 1 :]]
    return {**body, "messages": _with_note(informed, evidence.note, but_in=())}


def fenced(
    request: ModelRequest, segments: Sequence[Segment], fences: Fences, *, key: bytes, conversation: str
) -> ModelRequest:
    """The request as experts are sent it: its data fenced, what hides stripped. The same object if nothing changes.

    The same request of the same conversation becomes the same bytes again.
    """
    if fences.idle or request.operation != "chat":
        return request
    texts: dict[re.Match[str], str] = {}
    quoted = False
    for segment in segments:
        if (at := PLACE.fullmatch(segment.place)) is None:
            continue
        if segment.origin in DATA:  # a file's name stays a name: markers would make another of it
            text = fences.cleaned(segment) if at[3] else fences.fenced(segment, key=key, conversation=conversation)
        elif segment.origin is Origin.USER and fences.strip == "all":
            text = strip(segment.text)
        else:
            continue
        if text != segment.text:
            texts[at] = text
            quoted |= segment.origin in DATA and fences.mode != "off" and not at[3]
    if not texts:
        return request
    messages = _with_texts(request.body["messages"], texts)
    if quoted:
        messages = _with_note(messages, fences.note, but_in={int(at[1]) for at in texts if not at[2]})
    return replace(request, body={**request.body, "messages": messages})


def without(request: ModelRequest, places: Collection[str]) -> ModelRequest:
    """The request with a mark in place of the texts that stand there."""
    texts = {at: LEFT_OUT for at in map(PLACE.fullmatch, places) if at is not None}
    if not texts:
        return request
    return replace(request, body={**request.body, "messages": _with_texts(request.body["messages"], texts)})


def _with_texts(before: Sequence[Any], texts: Mapping[re.Match[str], str]) -> list[Any]:
    """The messages with other texts at these places. Each is copied once, however many of its parts change."""
    messages = list(before)
    copied: set[int] = set()
    for at, text in texts.items():
        index = int(at[1])
        if index not in copied:
            copied.add(index)
            content = before[index]["content"]
            messages[index] = {**before[index], "content": list(content) if isinstance(content, list) else content}
        if not at[2]:
            messages[index]["content"] = text
            continue
        parts, number = messages[index]["content"], int(at[2])
        part = parts[number]
        if at[3]:
            parts[number] = {**part, "file": {**part["file"], "filename": text}}
        else:
            parts[number] = {**part, TEXT_PARTS[part["type"]]: text}
    return messages


def _with_note(messages: list[Any], note: str, *, but_in: Collection[int]) -> list[Any]:
    """The messages with a note in the application's own words: at the end of its first ones, which providers cache.

    `but_in` are those that are data from end to end.
    """
    for index, message in enumerate(messages):
        if message["role"] not in INSTRUCTIONS or index in but_in:
            continue
        content = message["content"]
        if isinstance(content, list):
            said: Any = [*content, {"type": "text", "text": note}]
        else:
            said = content if note in content else f"{content}\n\n{note}"
        return [*messages[:index], {**message, "content": said}, *messages[index + 1 :]]
    return [{"role": "system", "content": note}, *messages]


def _one_message(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a text completion as a chat's. What no chat knows is dropped: `api.completions` saw that it asks for
    nothing."""
    rest = {key: value for key, value in body.items() if key not in COMPLETIONS_ONLY}
    return {**rest, "messages": [{"role": "user", "content": _lone_prompt(body)}]}


def _lone_prompt(body: Mapping[str, Any]) -> Any:
    said = body["prompt"]
    return said if isinstance(said, str) else said[0]


def _continuing(body: dict[str, Any], so_far: str, *, prefills: bool) -> dict[str, Any]:
    said = {"role": "assistant", "content": so_far}
    if prefills:
        more = [said]
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    else:
        more = [said, {"role": "user", "content": GO_ON}]
    for limit in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(limit), int):
            body[limit] = max(1, body[limit] - len(so_far) // CHARS_PER_TOKEN)
    return {**body, "messages": [*body["messages"], *more]}
