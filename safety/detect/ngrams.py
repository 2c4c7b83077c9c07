"""What the learned detectors see of a text: tokens, token pairs and triples, summed over sliding windows.

The model is linear and a window's score is a sum over its tokens, so that running sums give all windows of all heads in
one pass: linear in the text, whatever its length. `FEATURES` names the version; a change needs new artifacts.
"""

import re
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from conclave.safety.detect.patterns import Regexp

FEATURES: Final = "tokens+characters+pairs+triples/2"
CHARACTERS: Final = 1 << 13  # codes of the letters below
PAIR_BUCKETS: Final = 1 << 17
TRIPLE_BUCKETS: Final = 1 << 17
FEW_TOKENS: Final = 6  # a window of two words must not be as sure as a sentence
AGAIN: Final = 12  # tokens within which a code counts once: rulers, tables and lists add nothing by repeating
SENTENCE_ENDS: Final = ".?!"
LEAST_SENTENCE: Final = 7  # tokens, its end mark with them
MOST_SENTENCE: Final = 24  # a longer one fills a window
SHORT_TOKENS: Final = 1024
MULTIPLIERS: Final = (1_000_003, 8_191, 131_071)  # of a pair's first token, of its second, of a triple's third
WORD_CHARS: Final = 100  # a longer word is unknown to the tokenizer, whatever its letters
LONG_WORD: Final = re.compile(r"(?<![0-9A-Za-z])[0-9A-Za-z]{102,}")
HAN: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")  # two in three are unknown to the tokenizer


def code_space(vocabulary: int) -> int:
    """How many codes there are."""
    return vocabulary + CHARACTERS + PAIR_BUCKETS + TRIPLE_BUCKETS


def tokens_of(text: str, ids: "Callable[[str], Sequence[int]]", vocabulary: int) -> "Sequence[int]":
    """The tokens of a text; Chinese and Japanese letters are tokens of their own, numbered behind the vocabulary."""
    if len(text) > WORD_CHARS:
        text = _cut(text)
    if text.isascii() or not HAN.search(text):
        return ids(text)
    found: list[int] = []
    at = 0
    for match in HAN.finditer(text):
        if at < match.start():
            found += ids(text[at : match.start()])
        found += [vocabulary + ord(letter) % CHARACTERS for letter in match[0]]
        at = match.end()
    return [*found, *ids(text[at:])]


def _cut(text: str) -> str:
    """The text with the rest of overlong words left out, which the tokenizer would read and then not know."""
    if not _long_words().search(text.encode("latin-1", "replace")):
        return text
    return LONG_WORD.sub(lambda match: match[0][: WORD_CHARS + 1], text)


@cache
def _long_words() -> "Regexp":
    """Whether there is such a word, 3 us a KB; looking for it as Python does takes 15."""
    import re2  # noqa: PLC0415  an import that only a policy with checks pays

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    found: Regexp = re2.compile(f"[0-9A-Za-z]{{{WORD_CHARS + 2}}}".encode(), options)
    return found


def codes(ids: "Sequence[int]", vocabulary: int) -> "NDArray[np.int64]":
    """For each token the codes of itself, of the pair and of the triple that end there, [tokens, 3].

    The first token has no pair and the first two no triple; nor has a code that came a few tokens before: these are
    -1, which the table's last row (zeros) answers.
    """
    return codes_of((ids,), vocabulary, gap=0).T


def codes_of(texts: "Sequence[Sequence[int]]", vocabulary: int, *, gap: int) -> "NDArray[np.int64]":
    """The codes of texts in a row, [3, places]; behind each text `gap` places with none, so that no two texts meet.

    Several texts need a gap of `AGAIN`. Few and large steps: a short text costs what numpy's calls cost.
    """
    import numpy as np  # noqa: PLC0415  numpy is imported where it is first needed

    count = sum(map(len, texts)) + gap * len(texts)
    padded = np.full((3, AGAIN + count), -2, dtype=np.int64)
    found = padded[:, AGAIN:]  # [3, places]
    at = 0
    for ids in texts:
        found[0, at : at + len(ids)] = ids
        at += len(ids) + gap
    times = np.multiply.outer(np.array(MULTIPLIERS), found[0])  # [3, places]
    pair = times[0, :-1] + times[1, 1:]
    found[1, 1:] = pair
    found[2, 2:] = pair[:-1] * 31 + times[2, 2:]
    first = vocabulary + CHARACTERS
    hashed = found[1:]
    hashed >>= np.array([[3], [4]])
    hashed &= PAIR_BUCKETS - 1
    hashed += np.array([[first], [first + PAIR_BUCKETS]])
    at = 0
    for ids in texts:
        found[1, at : at + 1] = found[2, at : at + 2] = -1
        at += len(ids) + gap
        found[:, at - gap : at] = -1
    if count <= SHORT_TOKENS:  # all places back at once, [places back, 3, places]
        row, item = padded.strides
        before = np.ndarray((AGAIN, *found.shape), np.int64, padded, 0, (item, row, item))
        again = (before == found).any(axis=0)
    else:  # the same, one by one, in less memory
        again = np.zeros(found.shape, dtype=np.bool_)
        for back in range(AGAIN):
            again |= padded[:, back : back + count] == found
    found[again] = -1
    return found


def windows(tokens: int, size: int) -> "NDArray[np.int64]":
    """Starts and ends of windows of `size` tokens that overlap by half and cover all, [windows, 2]."""
    import numpy as np  # noqa: PLC0415

    if tokens <= size:
        return np.array([[0, tokens]], dtype=np.int64)
    starts = np.arange(0, tokens - size // 2, size // 2, dtype=np.int64)
    return np.stack((starts, np.minimum(starts + size, tokens)), axis=1)


def edge_sentences(ids: "Sequence[int]", ends: "Collection[int]") -> "list[tuple[int, int]]":
    """Start and end of the first and the last sentence, where they are short and no whole text; `ends` are end marks.

    A sentence of hardly any words belongs to its neighbour.
    """
    count = len(ids)
    found = []
    for at in range(LEAST_SENTENCE - 1, min(MOST_SENTENCE, count - 1)):
        if ids[at] in ends:
            found.append((0, at + 1))
            break
    for at in range(count - LEAST_SENTENCE - 1, max(count - MOST_SENTENCE - 2, -1), -1):
        if ids[at] in ends:
            found.append((at + 1, count))
            break
    return found


def weight(tokens: "NDArray[np.int64]") -> "NDArray[np.float32]":
    """What each token of a window counts: less, the more there are."""
    import numpy as np  # noqa: PLC0415

    return (1.0 / np.sqrt(tokens + FEW_TOKENS)).astype(np.float32)
