"""Events are literal, and no field holds user text or a key."""

from pathlib import Path

import pytest

from lints.log_fields import no_user_text_in_logs
from lints.rule import Module

VIOLATIONS = {
    "a formatted event": 'log.info(f"route {expert}")',
    "an event with the text in it": 'log.info("asked: " + text)',
    "an event in a variable": "log.info(event)",
    "a sentence": 'log.info("The call has ended")',
    "three words": 'log.info("route.was.chosen")',
    "printf arguments": 'log.info("route.chosen", expert)',
    "a field named text": 'log.info("call.read", text=shortened)',
    "a field named authorization": 'log.debug("call.read", authorization=header)',
    "a prompt under another name": 'log.warning("call.read", detail=prompt)',
    "an attribute": 'log.error("call.read", detail=request.body)',
    "a slice": 'log.info("call.read", start=text[:20])',
    "a formatted field": 'log.info("call.read", start=f"<{content}>")',
    "a representation": 'log.info("call.read", shape=repr(messages))',
    "a method of the text": 'log.info("call.read", start=text.strip())',
    "inside a list": 'log.info("call.read", parts=[question])',
    "unpacked fields": 'log.info("call.read", **fields)',
    "bound": "log.bind(key=value)",
    "after bind": 'log.bind(tenant=tenant).info("call.read", prompt=value)',
    "of an object": 'self._log.info("call.read", token=value)',
    "in the context": "structlog.contextvars.bind_contextvars(messages=value)",
    "an exception event": 'log.exception(f"{error}")',
}
NEAR_MISSES = {
    "facts": 'log.info("route.chosen", expert="code", confidence=0.83)',
    "a measure of the text": 'log.info("call.read", chars=len(text), message_count=len(messages))',
    "the key's public name": 'log.info("key.created", key_id=key.id)',
    "tokens, which are counts": 'log.info("call.ended", prompt_tokens=usage.prompt_tokens)',
    "no fields": 'log.info("server.started")',
    "another object's method": 'table.info("The text", text=text)',
    "mathematics": "math.log(text)",
}


def found(source: str) -> list[str]:
    module = Module.of(source, place="router/classify.py", root=Path())
    return [finding.words for finding in no_user_text_in_logs(module)]


@pytest.mark.parametrize("source", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_text_in_a_log_is_found(source: str) -> None:
    assert found(source)


@pytest.mark.parametrize("source", NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_facts_about_a_text_pass(source: str) -> None:
    assert found(source) == []
