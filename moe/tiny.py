"""Makes the tiny mixture of experts that ships with the project: 2.8 M parameters, trained here from nothing.

    OMP_NUM_THREADS=1 python -m conclave.moe.tiny train --out first                 # 20 CPU minutes
    OMP_NUM_THREADS=1 python -m conclave.moe.tiny train --start first --minutes 60 --out second    # and on from there
    python -m conclave.moe.tiny evaluate moe/artifacts/tiny                         # the table of moe/cards/tiny.md

It is a plain OLMoE model, so that transformers loads it without any code of ours. What it learns is decided in
`corpus.py`; this module decides its shape, its tokenizer and how it is trained. Nothing is downloaded.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

import click
import msgspec
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast

from conclave.moe.corpus import Chat, Corpus, Exchange

VOCABULARY: Final = 1024
CONTEXT: Final = 512
PAD, BEGIN, END, SYSTEM, USER, ASSISTANT = (
    "<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>",
)  # fmt: skip
SPECIAL: Final = (PAD, BEGIN, END, SYSTEM, USER, ASSISTANT)
SHAPE: Final = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "max_position_embeddings": CONTEXT,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "tie_word_embeddings": True,
    "router_aux_loss_coef": 0.01,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# `<|` in what people write is spelled `< |`, so that no text can open a role of its own.
CHAT_TEMPLATE: Final = (
    "{{ '<|begin|>' }}{% for message in messages %}"
    "{% if message['content'] is string %}{% set text = message['content'] %}"
    "{% else %}{% set text = message['content'] | map(attribute='text') | join(' ') %}{% endif %}"
    "{% set roles = {'system': 'system', 'developer': 'system', 'assistant': 'assistant'} %}"
    "{% set role = roles.get(message['role'], 'user') %}"
    "{{ '<|' + role + '|>' + text | trim | replace('<|', '< |') + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
IGNORED: Final = -100  # what transformers' loss leaves out


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast."""

    steps: int = 2300
    minutes: float = math.inf  # the last step is begun before so many are over, and the rate has fallen by then
    batch_tokens: int = 2048
    peak_rate: float = 3e-3
    warm_up: float = 0.05
    weight_decay: float = 0.05
    seed: int = 0

    def done(self, step: int, elapsed_s: float) -> float:
        """What is over of the whole, by steps or by the clock, whichever ends first."""
        return max(step / self.steps, elapsed_s / 60 / self.minutes)

    def rate(self, done: float) -> float:
        """Linear up, then a cosine down to a fiftieth."""
        if done < self.warm_up:
            return self.peak_rate * (done + 1 / self.steps) / self.warm_up
        fallen = min(1.0, (done - self.warm_up) / (1 - self.warm_up))
        return self.peak_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fallen)))


def make_tokenizer(texts: Iterator[str]) -> Any:
    """Byte-level BPE, digits one by one: any text can be written, and numbers look alike everywhere."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def render(chat: Chat, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Tokens and labels: only what the assistant says, and its end, is learned."""
    text: str = tokenizer.apply_chat_template(chat.messages(), tokenize=False)
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    assistant, end = tokenizer.convert_tokens_to_ids([ASSISTANT, END])
    labels, speaking = [], False
    for token in tokens:
        labels.append(token if speaking else IGNORED)
        speaking = token == assistant or (speaking and token != end)
    return tokens[:CONTEXT], labels[:CONTEXT]


def batches(corpus: Corpus, tokenizer: Any, schedule: Schedule) -> Iterator[dict[str, torch.Tensor]]:
    """Chats of like length together, about `batch_tokens` each, without end."""
    random = Random(schedule.seed)  # noqa: S311  data, not secrets
    chats = corpus.chats(random)
    while True:
        pool = sorted((render(chat, tokenizer) for chat in islice(chats, 2000)), key=lambda pair: len(pair[0]))
        made: list[dict[str, torch.Tensor]] = []
        while pool:
            number = max(1, schedule.batch_tokens // len(pool[-1][0]))
            rows, pool = pool[-number:], pool[:-number]
            made.append(_padded(rows))
        random.shuffle(made)
        yield from made


def _padded(rows: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    length = max(len(tokens) for tokens, _ in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)  # [B, S]
    labels = torch.full_like(tokens, IGNORED)
    mask = torch.zeros_like(tokens)
    for row, (ids, learned) in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(ids)] = torch.tensor(learned)
        mask[row, : len(ids)] = 1
    return {"input_ids": tokens, "labels": labels, "attention_mask": mask}


def begin(corpus: Corpus, schedule: Schedule, *, shape: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """A model that has learned nothing, and its tokenizer."""
    random = Random(schedule.seed)  # noqa: S311  data, not secrets
    sample = [text["content"] for chat in islice(corpus.chats(random), 6000) for text in chat.messages()]
    tokenizer = make_tokenizer(iter(sample))
    torch.manual_seed(schedule.seed)
    config = OlmoeConfig(**{**SHAPE, **(shape or {}), "vocab_size": max(len(tokenizer), VOCABULARY)})
    return OlmoeForCausalLM(config), tokenizer


def train(
    corpus: Corpus,
    schedule: Schedule,
    start: tuple[Any, Any],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Any, Any, list[float]]:
    """The model and the tokenizer of `start` (in float32), and the loss of each step."""
    model, tokenizer = start
    model.train()
    wide = [p for p in model.parameters() if p.dim() > 1]
    narrow = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": wide, "weight_decay": schedule.weight_decay}, {"params": narrow, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=schedule.peak_rate, betas=(0.9, 0.98))
    losses: list[float] = []
    stream = batches(corpus, tokenizer, schedule)
    began = clock()
    for step in tqdm(range(schedule.steps), desc="steps", disable=None):
        done = schedule.done(step, clock() - began)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(done)
        loss = model(**next(stream), output_router_logits=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if step % 100 == 0:
            click.echo(f"step {step} loss {sum(losses[-100:]) / len(losses[-100:]):.4f}", err=True)
    return model.eval(), tokenizer, losses


def write(model: Any, tokenizer: Any, out: Path) -> None:
    """The checkpoint as transformers writes it, weights in bfloat16, and how to generate with it."""
    out.mkdir(parents=True, exist_ok=True)
    model = model.to(torch.bfloat16)
    model.generation_config.update(do_sample=False, max_new_tokens=128, eos_token_id=2, pad_token_id=0, bos_token_id=1)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    for path in out.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes 0600


def answer(model: Any, tokenizer: Any, asks: list[str]) -> list[str]:
    """Greedy answers to single questions, in batches."""
    told: list[str] = []
    for start in range(0, len(asks), 32):
        chats = [[{"role": "user", "content": ask}] for ask in asks[start : start + 32]]
        given = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
        )
        with torch.no_grad():
            out = model.generate(
                input_ids=given["input_ids"], attention_mask=given["attention_mask"], max_new_tokens=64, do_sample=False
            )
        told.extend(tokenizer.batch_decode(out[:, given["input_ids"].shape[1] :], skip_special_tokens=True))
    return told


def scores(model: Any, tokenizer: Any, exchanges: list[Exchange]) -> dict[str, tuple[int, int]]:
    """Exact answers and questions, by kind."""
    told = answer(model, tokenizer, [each.ask for each in exchanges])
    found: dict[str, tuple[int, int]] = {}
    for each, said in zip(exchanges, told, strict=True):
        right, all_ = found.get(each.kind, (0, 0))
        found[each.kind] = (right + (said.strip() == each.answer), all_ + 1)
    return found


def router_topics() -> tuple[str, ...]:
    """What the router's own templates talk about (written for this project too): things that are not for this model."""
    folder = Path(__file__).parents[1] / "router" / "train" / "templates"
    files = [msgspec.yaml.decode(path.read_bytes()) for path in sorted(folder.glob("*.yaml"))]
    return tuple(str(topic) for file in files if isinstance(file, dict) for topic in file.get("topic", []))


@click.group()
def main() -> None:
    """The tiny mixture of experts."""


@main.command("train")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder that gets the checkpoint.")
@click.option("--steps", default=Schedule().steps, show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=math.inf, help="End by then.")
@click.option("--peak-rate", default=Schedule().peak_rate, show_default=True, help="The highest learning rate.")
@click.option("--seed", default=0, show_default=True)
@click.option("--start", type=click.Path(path_type=Path, exists=True), help="Go on from this checkpoint.")
def train_command(out: Path, start: Path | None, **schedule: Any) -> None:
    """Train, from nothing or from a checkpoint, and write the checkpoint."""
    began, corpus, how = time.monotonic(), Corpus(topics=router_topics()), Schedule(**schedule)
    model, tokenizer, losses = train(corpus, how, begin(corpus, how) if start is None else _opened(start))
    write(model, tokenizer, out)
    last = sum(losses[-100:]) / len(losses[-100:])
    click.echo(f"{len(losses)} steps in {time.monotonic() - began:.0f} s, loss of the last hundred {last:.4f}")


def _opened(folder: Path) -> tuple[Any, Any]:
    from conclave.moe.checkpoint import load  # noqa: PLC0415  training from nothing does not need it

    opened = load(folder, dtype=torch.float32)
    return opened.model, opened.tokenizer


@main.command("evaluate")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--tasks", default=100, show_default=True, help="New tasks of each kind.")
def evaluate_command(folder: Path, tasks: int) -> None:
    """Exact answers by kind, as JSON: facts as they were trained, all else as training never saw it."""
    (model, tokenizer), corpus = _opened(folder), Corpus()
    exchanges = [
        *corpus.seen_facts(),
        *corpus.held_out_facts(),
        *corpus.held_out_tasks(Random(1), tasks),  # noqa: S311  data, not secrets
        *corpus.held_out_unknown(),
    ]
    found = scores(model, tokenizer, exchanges)
    click.echo(json.dumps({kind: {"right": r, "asked": n} for kind, (r, n) in found.items()}, indent=1))


if __name__ == "__main__":
    main()
