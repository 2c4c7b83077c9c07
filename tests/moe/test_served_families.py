"""Every family that can be adapted can be served: the engine says what the model itself generates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from conclave.moe.checkpoint import Checkpoint
from conclave.moe.tiny import make_tokenizer
from tests.moe.serving import TEXTS, chat, engine_on, said


async def test_each_family_is_served(build: Callable[..., Any], family: str) -> None:
    tokenizer = make_tokenizer(iter(TEXTS * 20))
    model = build(family, vocab_size=len(tokenizer))
    asked = [{"role": "user", "content": "Hello!"}]
    given = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = given["input_ids"]
    out = model.generate(input_ids=ids, attention_mask=given["attention_mask"], max_new_tokens=8, do_sample=False)
    engine = engine_on(Checkpoint(model, tokenizer, "0" * 64, Path()))
    try:
        text, end = await said(engine, chat(max_tokens=8))
        _, capped = await said(engine, chat(max_tokens=8, experts_max=1))
    finally:
        await engine.close()
    assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).startswith(text)
    assert end.usage.flops_saved == 0
    assert capped.usage.experts_per_token == 1
