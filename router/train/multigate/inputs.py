"""What the network reads of a text: the static vector, the look of the text, and its lexical features folded small.

The shipped classifier has a weight for each of some 140,000 lexical features. A network that multiplies its inputs
cannot: here each feature is added, with a sign, to one of a few hundred numbers (Weinberger et al. 2009, arXiv
0902.2206). The linear heads that the network is compared with read the same.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from conclave.router.encoder import StaticEncoder, excerpt
from conclave.router.features import SURFACE, codes, evidence, surface

if TYPE_CHECKING:
    from numpy.typing import NDArray

SKETCH: Final = 256  # numbers that the lexical features are folded into
VECTOR_SCALE: Final = 16.0  # a vector of length 1 and 256 numbers: each then varies by about 1
SKETCH_SCALE: Final = 16.0  # the same for the sketch, whose length is below 1


def inputs(encoder: StaticEncoder, texts: Sequence[str]) -> "NDArray[np.float32]":
    """[texts, 256 + measures + SKETCH] fp32."""
    ends = encoder.dimensions, encoder.dimensions + len(SURFACE)
    found = np.zeros((len(texts), ends[1] + SKETCH), dtype=np.float32)
    for row, text in enumerate(map(excerpt, texts)):
        ids = encoder.tokens.ids(text)
        found[row, : ends[0]] = encoder.pool(ids) * VECTOR_SCALE
        found[row, ends[0] : ends[1]] = surface(text, ids)
        found[row, ends[1] :] = sketch(codes(np.array(ids, dtype=np.int64), encoder.vocabulary))
    return found


def sketch(found: "NDArray[np.int64]") -> "NDArray[np.float64]":
    """Lexical features added up by hashed place and sign, [SKETCH]."""
    mixed = found.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)  # 24 well-mixed bits
    signs = 1.0 - 2.0 * (mixed & np.uint64(1)).astype(np.float64)
    places = ((mixed >> np.uint64(1)) % np.uint64(SKETCH)).astype(np.int64)
    folded = np.bincount(places, signs, minlength=SKETCH).astype(np.float64)
    return folded * np.float64(evidence(len(found)) * SKETCH_SCALE)
