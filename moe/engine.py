"""Runs chats on the local model: several at once, streamed, each with its own dice, routing policy and end.

Each call has a thread in transformers' own `generate`, and the threads take turns, one token each (`turns.py`). That
is not transformers' continuous batching, which was tried (5.23.0): it packs all calls into one row, so that a routing
policy cannot tell them apart; it samples all of them with one generator, so that a seed fixes nothing; and scores
that are no numbers end its loop for everybody. The price is that calls share the model's time, not its passes.

It decides when a call runs and when it ends. It never looks at what is said.
"""

import asyncio
import gc
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from conclave.moe.adapt import Adapted
from conclave.moe.checkpoint import Checkpoint, CheckpointRefused
from conclave.moe.errors import (
    ContextExceeded,
    DeadlineExceeded,
    ExpertError,
    InternalError,
    InvalidRequest,
    OutOfMemory,
    where,
)
from conclave.moe.handoff import Handoff
from conclave.moe.offer import Chosen, Offer, PerCall
from conclave.moe.requests import Ask
from conclave.moe.routing import Limits
from conclave.moe.sampling import Sampler, Sampling
from conclave.moe.sequence import Cost, Growing, Words
from conclave.moe.trace import LayerUse
from conclave.moe.turns import Room, RoomSize, Turnstile

HEAD_CHARS: Final = 8  # for each token of the context: so much of a long text is encoded first (English has 4)
NO_MEMORY: Final = ("can't allocate memory", "not enough memory", "out of memory")  # how torch says it on a CPU

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What one call may take, and how many may run."""

    room: RoomSize = field(default_factory=RoomSize)
    answer_tokens: int = 512  # where the request does not say
    deadline_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine is doing, for metrics."""

    running: int
    waiting: int
    kv_tokens: int
    layers: tuple[LayerUse, ...]


class Engine:
    """One loaded model and the calls on it. `open` from one event loop; `close` when that ends."""

    def __init__(  # noqa: PLR0913  what is served, how (`rows`: gate rows of null experts), and two injected sources
        self,
        checkpoint: Checkpoint,
        adapted: Adapted,
        offer: Offer,
        limits: EngineLimits,
        *,
        rows: Mapping[str, torch.Tensor] | None = None,
        clock: Callable[[], float] = time.monotonic,
        seeds: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> None:
        self._model = checkpoint.model
        self._tokenizer = checkpoint.tokenizer
        self._adapted, self._offer, self._limits = adapted, offer, limits
        self._clock, self._seeds = clock, seeds
        self._defaults = _defaults(checkpoint)
        self._words = Words.of(checkpoint, self._defaults.ends)
        self._cost = Cost.of(adapted)
        self._context = int(self._model.config.max_position_embeddings)
        self._room = Room(limits.room)
        self._turnstile = Turnstile()
        self._per_call = PerCall(offer)
        adapted.install(self._per_call, rows=rows)
        self._threads = ThreadPoolExecutor(limits.room.sequences, thread_name_prefix="moe")
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="moe-encode")
        self._running: dict[Handoff, Future[None]] = {}

    async def open(self, ask: Ask) -> Handoff:
        """Begin to answer, once there is room. Raises ExpertError if it cannot."""
        began = self._clock()
        chosen = self._offer.choose(ask.policy, ask.experts_max, ask.experts)
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._encoding, self._encode, ask.messages)
        most = self._longest(len(prompt), ask)
        tokens = len(prompt) + most
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                await self._room.enter(tokens)
        except TimeoutError:
            raise self._too_late() from None
        handoff = Handoff(began + self._limits.deadline_s)
        growing = Growing(
            handoff,
            words=self._words,
            cost=self._cost,
            prompt_tokens=len(prompt),
            most=most,
            stops=ask.stop,
            clock=self._clock,
        )
        job = self._threads.submit(self._run, growing, prompt, chosen, self._sampling(ask))
        self._running[handoff] = job

        def left() -> None:
            self._running.pop(handoff, None)
            self._room.leave(tokens)

        job.add_done_callback(lambda _: loop.call_soon_threadsafe(left))
        return handoff

    def load(self) -> Load:
        """Waits for the model's turn: call it from a thread."""
        with self._turnstile:
            layers = self._adapted.meter.layers()
        return Load(self._room.running, self._room.waiting, self._room.kv_tokens, layers)

    async def close(self) -> None:
        """Stop what runs, send away who waits, and give the model its own routing back."""
        self._room.close()
        jobs = [asyncio.wrap_future(job) for job in self._running.values()]
        for handoff in list(self._running):
            handoff.leave()
        if jobs:
            await asyncio.wait(jobs)
        self._threads.shutdown()
        self._encoding.shutdown()
        self._adapted.uninstall()

    def _encode(self, messages: Sequence[dict[str, str]]) -> list[int]:
        plain = [{**said, "content": self._words.plain(said["content"])} for said in messages]
        try:
            text = self._tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
        except TemplateError as wrong:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {wrong}", param="messages"
            ) from None
        size = HEAD_CHARS * self._most
        while size < len(text):  # 3 MB take 20 s to encode, and none of it would fit
            if (head := len(self._ids(text[:size]))) > self._most:
                raise self._too_long(f"more than {head}")
            size *= 4
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    @property
    def _most(self) -> int:
        """Tokens that a prompt and its answer may have."""
        return min(self._context, self._limits.room.kv_tokens)

    def _too_long(self, tokens: str) -> ContextExceeded:
        return ContextExceeded(
            f"these messages are {tokens} tokens, and this server takes {self._most} with the answer; shorten them",
            param="messages",
        )

    def _longest(self, prompt: int, ask: Ask) -> int:
        """Tokens that the answer may have: what was asked for, as far as there is room."""
        if prompt >= self._most:
            raise self._too_long(str(prompt))
        return min(ask.max_tokens or self._limits.answer_tokens, self._most - prompt)

    def _sampling(self, ask: Ask) -> Sampling:
        own = self._defaults
        return Sampling(
            temperature=own.temperature if ask.temperature is None else ask.temperature,
            top_p=own.top_p if ask.top_p is None else ask.top_p,
            seed=self._seeds() if ask.seed is None else ask.seed,
            top_logprobs=ask.top_logprobs,
        )

    def _run(self, growing: Growing, prompt: list[int], chosen: Chosen, how: Sampling) -> None:
        """In a thread: the whole of one call. Whatever fails, fails this call alone."""
        failure: ExpertError | None = None
        try:
            self._generate(growing, prompt, chosen, how)
        except ExpertError as error:
            failure = type(error)(error.message, param=error.param)  # a new one: the old holds the cache by its frames
        except (MemoryError, RuntimeError) as error:
            failure = self._no_memory(error)
        except Exception as error:  # noqa: BLE001  the edge of a thread; the other calls go on
            failure = self._bug(error)
        if isinstance(failure, OutOfMemory):
            _give_memory_back()
        if failure is not None:
            growing.handoff.fail(failure)

    def _generate(self, growing: Growing, prompt: list[int], chosen: Chosen, how: Sampling) -> None:
        ids = torch.tensor([prompt], device=self._model.device)  # [1, S]
        sampler = Sampler(how, device=self._model.device)
        with ExitStack() as turn:
            turn.enter_context(self._turn(chosen))

            def step(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG001  generate's signature
                token, used = int(input_ids[0, -1]), self._adapted.meter.rows()
                likely = sampler.likely(token)
                turn.close()  # writing may have to wait for the reader, and the others need the model
                done = growing.add(token, likely, used)
                if not done:
                    turn.enter_context(self._turn(chosen))
                return torch.tensor([done], device=input_ids.device)

            if growing.wanted():
                self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=self._defaults.config(growing.most),
                    logits_processor=LogitsProcessorList([sampler]),
                    stopping_criteria=StoppingCriteriaList([step]),
                )

    @contextmanager
    def _turn(self, chosen: Chosen) -> Iterator[None]:
        """The model is this call's, with its policy and limits."""
        most = torch.tensor([chosen.experts_max], device=self._model.device)
        allowed = None if chosen.allowed is None else torch.tensor([chosen.allowed], device=self._model.device)
        with self._turnstile, self._adapted.limited(Limits(experts_max=most, allowed=allowed)):
            self._per_call.current = chosen.policy
            yield

    def _no_memory(self, error: Exception) -> ExpertError:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(said in str(error) for said in NO_MEMORY):
            log.warning("moe.out_of_memory")
            return OutOfMemory("there is no memory for this call; ask again later, or for less")
        return self._bug(error)

    def _bug(self, error: Exception) -> ExpertError:
        log.error("moe.call_failed", error=type(error).__name__, where=where(error))
        return InternalError("the local expert failed; its log says where")

    def _too_late(self) -> ExpertError:
        return DeadlineExceeded(f"the call did not end within {self._limits.deadline_s:g} s")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the checkpoint's generation_config says."""

    temperature: float
    top_p: float
    ends: tuple[int, ...]
    pad: int

    def config(self, most: int) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=most, do_sample=False, eos_token_id=list(self.ends) or None, pad_token_id=self.pad
        )


def check_chats(checkpoint: Checkpoint) -> None:
    """Raises CheckpointRefused for what cannot answer chats: none of its calls could."""
    folder, tokenizer = checkpoint.folder, checkpoint.tokenizer
    if not tokenizer.chat_template:
        raise CheckpointRefused(f"{folder} has no chat template, so it cannot answer chats; use a chat model")
    if not tokenizer.is_fast:
        raise CheckpointRefused(f"{folder} has no tokenizer.json, which streaming needs")
    try:
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=False
        )
    except Exception as wrong:  # noqa: BLE001  a template is a program, that may raise anything
        raise CheckpointRefused(f"the chat template of {folder} fails: {type(wrong).__name__}: {wrong}") from None


def _defaults(checkpoint: Checkpoint) -> Defaults:
    """Also empties the model's own configuration, which `generate` would mix into every call."""
    check_chats(checkpoint)
    own, tokenizer = checkpoint.model.generation_config, checkpoint.tokenizer
    ends = tokenizer.eos_token_id if own.eos_token_id is None else own.eos_token_id
    listed = tuple(ends) if isinstance(ends, list | tuple) else () if ends is None else (int(ends),)
    pad = own.pad_token_id if own.pad_token_id is not None else (listed[0] if listed else 0)
    checkpoint.model.generation_config = GenerationConfig()
    if not own.do_sample:
        return Defaults(0.0, 1.0, listed, pad)
    return Defaults(float(own.temperature or 1.0), float(own.top_p or 1.0), listed, pad)


def _give_memory_back() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
