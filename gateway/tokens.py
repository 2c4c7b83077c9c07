"""How many tokens a text is, where its expert has not said so: for estimates in the record, never for limits.

Counted with OpenAI's cl100k_base where litellm is loaded, which brings that vocabulary with it, else from the length.
No network, no import: what is not loaded is not waited for.
"""

import sys
from typing import Final

CHARS_PER_TOKEN: Final = 4  # of English text
COUNTED_CHARS: Final = 32_768  # of one text; the rest goes in proportion, so that a long prompt holds nobody up


def count(text: str) -> int:
    """Tokens of a text; 0 only for an empty one."""
    encoding = getattr(sys.modules.get("litellm"), "encoding", None)
    if encoding is None or not text:
        return -(-len(text) // CHARS_PER_TOKEN)
    start = text[:COUNTED_CHARS]
    counted = len(encoding.encode_ordinary(start))
    return counted if len(start) == len(text) else round(counted * len(text) / len(start))
