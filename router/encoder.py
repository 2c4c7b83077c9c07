"""Text to vector: the built-in static encoder, shared by router, detectors, cache and retrieval.

A text is split into words, each word into WordPiece tokens, and the vectors of the tokens are summed and normalised:
no transformer runs. Words are remembered (a bounded memo in front of the tokenizer), because splitting a word costs
a hundred times its look-up. The encoder never refuses a text: what has no known token gets the zero vector, and of a
long text only its head and its tail are read.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unicodedata import normalize, ucd_3_2_0

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

ARTIFACTS: Final = Path(__file__).parent / "artifacts"
ENCODER_FILES: Final = ("encoder.safetensors", "tokenizer.json")
HEAD_CHARS: Final = 3072  # where a prompt says what it wants: its beginning,
TAIL_CHARS: Final = 1024  # or, after a pasted document, its end
MEMO_ENTRIES: Final = 32768  # about 6 MB when full
MEMO_CHARS: Final = 32  # longer words are seldom seen twice,
SHORT_CHARS: Final = 4  # and so are longer ones with a digit: order numbers, times, ids
RESCALE: Final = 2.0**112  # a single float has 112 more exponents below 1 than a half

WORD_CHARS: Final = 100  # a longer word is unknown

_MARKS: Final = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")  # ASCII's, each a token
_DIGIT: Final = re.compile("[0-9]")
# Ideographs, which the library parts, and a capital sigma, which it does not know at a word's end
_OTHERWISE: Final = re.compile("[\u03a3\u302e\u302f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_WORDS: Final = re.compile(r"[^!-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")  # runs without ASCII punctuation, or one mark


def excerpt(text: str) -> str:
    """The part of a text that is read: head and tail of a long one, lone surrogates replaced by `?`."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]} {text[-TAIL_CHARS:]}"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class Tokens:
    """Splits texts into token ids as BERT's uncased WordPiece does; the memo changes the speed and nothing else."""

    __slots__ = ("_memo", "_tokenizer")

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer  # noqa: PLC0415  an import that a process without a router need not pay

        self._tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
        self._memo = _Runs(self._tokenizer)

    def ids(self, text: str) -> list[int]:
        """The token ids of an excerpt."""
        found: list[int] = []
        for known in map(self._memo.__getitem__, text.split()):
            found += known
        return found

    @property
    def remembered(self) -> int:
        """How many words the memo holds now."""
        return len(self._memo)

    def strings(self, ids: Iterable[int]) -> list[str]:
        """What the ids stand for, for a person."""
        return [self._tokenizer.id_to_token(token) or "" for token in ids]


class _Runs(dict[str, list[int]]):
    """Ids by run of characters without a space: those that were met, and by `__missing__` any other's."""

    __slots__ = ("_encode", "_reach", "_starts", "_tail_reach", "_tails", "_unknown")

    def __init__(self, tokenizer: "Tokenizer") -> None:
        super().__init__()
        self._encode = tokenizer.encode
        self._starts: dict[str, int] = tokenizer.get_vocab()
        self._unknown = [self._starts["[UNK]"]]
        self._tails = {piece[2:]: token for piece, token in self._starts.items() if piece.startswith("##")}
        self._reach = _reach(self._starts)
        self._tail_reach = _reach(self._tails)

    def __missing__(self, run: str) -> list[int]:
        """Ids of a run; its words are remembered too, since `word,` brings `word`."""
        size = len(run)
        if run.isascii() and (run.isalnum() or run in _MARKS):
            ids = self._pieces(run.lower())
        elif run[-1] in _MARKS and (word := run[:-1]).isalnum():
            ids = self[word] + self[run[-1]]
        elif len(parts := _WORDS.findall(run)) > 1:
            ids = []
            for known in map(self.__getitem__, parts):
                ids += known
        elif size <= MEMO_CHARS and not run.isascii() and (bare := _plain(run)):
            ids = self._pieces(bare)
        else:
            ids = self._encode(run, add_special_tokens=False).ids
        if size <= SHORT_CHARS or (size <= MEMO_CHARS and (run.isalpha() or not _DIGIT.search(run))):
            if len(self) >= MEMO_ENTRIES:
                self.clear()
            self[run] = ids
        return ids

    def _pieces(self, word: str) -> list[int]:
        """WordPiece by longest match first, as the library does it, for a plain word; its call costs 12 us, this 1."""
        whole = self._starts.get(word)
        if whole is not None:
            return [whole]
        size = len(word)
        if size > WORD_CHARS:
            return self._unknown
        pieces: list[int] = []
        start, known, reach = 0, self._starts, self._reach
        while start < size:
            for end in range(min(size, start + reach.get(word[start : start + 2], 1)), start, -1):
                if (piece := known.get(word[start:end])) is not None:
                    break
            else:
                return self._unknown
            pieces.append(piece)
            start, known, reach = end, self._tails, self._tail_reach
        return pieces


def _reach(pieces: Iterable[str]) -> dict[str, int]:
    """How long the longest piece is that begins with these two letters."""
    found: dict[str, int] = {}
    for piece in pieces:
        if len(piece) > found.get(piece[:2], 1):
            found[piece[:2]] = len(piece)
    return found


def _plain(word: str) -> str:
    """A word beyond ASCII as the library writes it before it looks it up: small, without marks; empty if unsure.

    The library's Unicode is older than Python's, so marks are those that Unicode 3.2 knew.
    """
    if _OTHERWISE.search(word):
        return ""
    bare = normalize("NFD", word)
    if not bare.isalpha():
        bare = "".join(letter for letter in bare if ucd_3_2_0.category(letter) != "Mn")
    return bare.lower() if bare.isalpha() else ""


class StaticEncoder:
    """Sentence vectors from a table of token vectors; float32, 256 dimensions, length 1 (or 0 for nothing known)."""

    __slots__ = ("_bits", "tokens")

    def __init__(self, tokens: Tokens, vectors: "NDArray[np.float16]") -> None:
        self.tokens = tokens
        self._bits = vectors.view("int16")  # [tokens, 256], see `pool`

    @classmethod
    def load(cls, folder: Path | None = None) -> "StaticEncoder":
        """Read the shipped table, or the one in `folder`; raises FileNotFoundError."""
        table, tokenizer = ENCODER_FILES
        folder = folder or ARTIFACTS
        return cls(Tokens(folder / tokenizer), mapped(folder / table, "vectors"))

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self._bits.shape[1])

    @property
    def vocabulary(self) -> int:
        """How many tokens have a vector."""
        return int(self._bits.shape[0])

    def encode(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Vectors of the texts, [texts, 256] fp32; row by row, so that a batch gives the bits of single texts."""
        import numpy as np  # noqa: PLC0415

        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self.pool(self.tokens.ids(excerpt(text)))
        return vectors

    def pool(self, ids: "Sequence[int] | NDArray[np.int64]") -> "NDArray[np.float32]":
        """The vector of one text's token ids, [256] fp32."""
        import numpy as np  # noqa: PLC0415

        if not len(ids):
            return np.zeros(self.dimensions, dtype=np.float32)
        total = np.add.reduce(self._shifted(ids), axis=0) * np.float32(RESCALE)  # [256]
        length = np.sqrt(total.dot(total))
        vector: NDArray[np.float32] = total / length if length > 0 else total
        return vector

    def token_vectors(self, ids: "Sequence[int] | NDArray[np.int64]") -> "NDArray[np.float32]":
        """The tokens' own vectors, [tokens, 256] fp32; their sum, normalised, is the text's."""
        vectors: NDArray[np.float32] = self._shifted(ids) * RESCALE
        return vectors

    def _shifted(self, ids: "Sequence[int] | NDArray[np.int64]") -> "NDArray[np.float32]":
        """The tokens' vectors times 2^-112.

        numpy turns half into single floats one by one (100 us for 440 bytes of text). Shifting the bits of a half to
        their places in a single gives the value times 2^-112: exact, and 3 times faster; the table has no infinities.
        """
        import numpy as np  # noqa: PLC0415

        bits = self._bits.take(ids, axis=0).astype(np.int32)  # [tokens, 256], sign extended
        bits <<= 13
        bits &= np.int32(-0x7000_2000)  # sign, 5 bits of exponent, 10 of fraction
        return bits.view(np.float32)


def mapped(file: Path, tensor: str, kind: str = "F16") -> "NDArray[Any]":
    """A tensor of a safetensors file where it lies: replicas share its pages, and only those used are read.

    `kind` is F16 or I16. Raises ValueError if there is none of that name and type.
    """
    import numpy as np  # noqa: PLC0415

    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        about = msgspec.json.decode(opened.read(size)).get(tensor, {})
    if about.get("dtype") != kind:
        raise ValueError(f"{file} has no tensor {tensor!r} of type {kind}")
    start, _ = about["data_offsets"]
    numbers = np.dtype({"F16": np.float16, "I16": np.int16}[kind])
    return np.asarray(np.memmap(file, numbers, mode="r", offset=8 + size + start, shape=tuple(about["shape"])))
