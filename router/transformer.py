"""Text to vector by a transformer that lies in a folder: for a classifier that was trained on it, and for nothing else.

The folder is one as sentence-transformers writes it: `config.json`, `tokenizer.json`, `model.safetensors`. The vector
is the mean of the last layer over a text's tokens, normalised. A classifier remembers the SHA-256 of the three files
(`Wanted`) and is never used with others. Takes torch and transformers, the extra `moe`, which are imported when an
encoder is opened. Nothing is downloaded, and no code that a folder brings is run.
"""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from conclave.router.encoder import excerpt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

TRANSFORMER_FILES: Final = ("config.json", "tokenizer.json", "model.safetensors")
EXTRA: Final = ("torch", "transformers")  # of `moe`
MOST_TOKENS: Final = 256  # of a text; a small encoder takes 60 ms for 128 of them on one core
SPARE_PLACES: Final = 2  # of a model's positions: some count from the padding's number on
UNUSED: Final = "pooler."  # weights of a part that mean pooling does not read: a folder may lack them


class EncoderError(ValueError):
    """A folder that cannot be used as an encoder; the message says why, and what to do."""


class Wanted(msgspec.Struct, frozen=True):
    """The transformer that a classifier needs, as its `classifier.json` has it."""

    folder: str  # where it lay when the classifier was trained
    sha256: dict[str, str]  # file -> SHA-256
    dimensions: int
    max_tokens: int
    pooling: Literal["mean"] = "mean"


class TransformerEncoder:
    """Sentence vectors by a transformer: float32, of length 1 (0 for a text without a token). Thread-safe."""

    __slots__ = ("_model", "_tokenizer", "wanted")

    def __init__(self, model: Any, tokenizer: "Tokenizer", wanted: Wanted) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.wanted = wanted

    @classmethod
    def open(cls, folder: Path) -> "TransformerEncoder":
        """Read a folder, whatever is in it; raises EncoderError."""
        digests = digests_of(folder)
        model = _model_in(folder)
        tokenizer, max_tokens = _tokenizer_in(folder, model)
        wanted = Wanted(str(folder.resolve()), digests, int(model.config.hidden_size), max_tokens)
        opened = cls(model, tokenizer, wanted)
        opened._try_out(folder)
        return opened

    @classmethod
    def wanted_by(cls, wanted: Wanted, *, folder: Path | None = None) -> "TransformerEncoder":
        """The transformer that a classifier needs, in the folder it names or in this one; raises EncoderError."""
        folder = folder or Path(wanted.folder)
        check(wanted, folder=folder)
        opened = cls.open(folder)
        if (opened.dimensions, opened.wanted.max_tokens) != (wanted.dimensions, wanted.max_tokens):
            raise EncoderError(
                f"the encoder in {folder} makes {opened.dimensions} numbers of {opened.wanted.max_tokens} tokens, and "
                f"the classifier was trained on {wanted.dimensions} of {wanted.max_tokens}: train it again"
            )
        return opened

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return self.wanted.dimensions

    def encode(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Vectors of the texts, [texts, dimensions] fp32; one by one: on one core a padded batch takes longer."""
        import numpy as np  # noqa: PLC0415

        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            read = self._tokenizer.encode(excerpt(text))
            if not all(read.special_tokens_mask):
                vectors[row] = self._pooled(read.ids)
        return vectors

    def _pooled(self, ids: Sequence[int]) -> "NDArray[np.float32]":
        import torch  # noqa: PLC0415  `open` has paid for it

        tokens = torch.tensor([ids], dtype=torch.long)  # [1, tokens]
        with torch.inference_mode():
            hidden = self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
            mean = hidden[0].mean(dim=0)  # [dimensions]
            vector: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=0).numpy()
        return vector

    def _try_out(self, folder: Path) -> None:
        """A folder can be read and still hold no encoder: half a model, or weights that are no numbers."""
        try:
            vector = self.encode(["a question", "a long question " * MOST_TOKENS])
        except Exception as error:
            raise EncoderError(f"the model in {folder} cannot encode a text: {_short(error)}") from error
        if not abs(float((vector**2).sum()) - len(vector)) < 1e-3:  # noqa: PLR2004  of length 1 each; NaN is not
            raise EncoderError(f"the model in {folder} makes vectors that are no numbers")


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a transformer's folder; raises EncoderError for one that is not there."""
    if not folder.is_dir():
        raise EncoderError(f"{folder} is no folder; an encoder is one with {', '.join(TRANSFORMER_FILES)}")
    digests = {}
    for name in TRANSFORMER_FILES:
        try:
            with (folder / name).open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            lacking = f"an encoder's folder has {', '.join(TRANSFORMER_FILES)}"
            raise EncoderError(f"{folder / name} cannot be read ({error.strerror}); {lacking}") from error
    return digests


def check(wanted: Wanted, *, folder: Path) -> None:
    """Whether the folder holds the very files, and the libraries are installed; opens no model. Raises EncoderError."""
    for name, digest in digests_of(folder).items():
        if digest != wanted.sha256.get(name):
            raise EncoderError(
                f"{folder / name} has the SHA-256 {digest}, and the classifier was trained on "
                f"{wanted.sha256.get(name)}: give it that encoder, or train it again on this one"
            )
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise EncoderError(_lacking(missing[0]))


def _lacking(name: str) -> str:
    return (
        f"a transformer encoder needs {name}, which is not installed: the extra `moe` has it "
        "(`make install EXTRAS=moe` in the repository)"
    )


def _model_in(folder: Path) -> Any:
    try:
        import torch  # noqa: PLC0415  the extra `moe`; with transformers 6 s
        from transformers import AutoModel  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRA:
            raise
        raise EncoderError(_lacking(name)) from error
    logging.set_verbosity_error()  # it tells of weights that are left over, to people who train
    logging.disable_progress_bar()
    try:
        model, found = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:
        raise EncoderError(f"the model in {folder} cannot be read: {_short(error)}") from error
    lacking = sorted(name for name in found["missing_keys"] if UNUSED not in name)
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise EncoderError(f"{folder / TRANSFORMER_FILES[2]} lacks weights of its model: {lacking[0]}{more}")
    if not isinstance(getattr(model.config, "hidden_size", None), int):
        raise EncoderError(f"the model in {folder} says no hidden_size: it is no encoder of texts")
    return model.eval()


def _tokenizer_in(folder: Path, model: Any) -> tuple["Tokenizer", int]:
    """The tokenizer and how many tokens of a text are read: what it says itself, if the model and we can."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    try:
        tokenizer = Tokenizer.from_str((folder / TRANSFORMER_FILES[1]).read_text(encoding="utf-8"))
    except Exception as error:
        raise EncoderError(f"the tokenizer in {folder} cannot be read: {_short(error)}") from error
    limits = [MOST_TOKENS, (tokenizer.truncation or {}).get("max_length")]
    if isinstance(places := getattr(model.config, "max_position_embeddings", None), int):
        limits.append(places - SPARE_PLACES)
    most = min(limit for limit in limits if limit)
    if most <= SPARE_PLACES or tokenizer.get_vocab_size() > model.get_input_embeddings().num_embeddings:
        raise EncoderError(f"the tokenizer in {folder} is not that of its model")
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return tokenizer, most


def _short(error: Exception) -> str:
    """A library's words on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
