"""Which language a fenced block is in: by the word after its fence, else by a cheap guess.

The guess wants signs that no other language has, in the first lines; where there are none it says nothing, and nothing
is looked for.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        word: language
        for language, words in {
            "python": "python py python2 python3 py3 ipython pyw sage jupyter gyp",
            "javascript": "javascript js jsx node nodejs mjs cjs es6 ecmascript",
            "typescript": "typescript ts mts cts",
            "tsx": "tsx",
            "bash": "bash sh shell zsh ksh dash shellscript",
            "c": "c h ansi-c c99 c11",
            "cpp": "cpp c++ cc cxx hpp hxx h++ arduino ino cuda cu",
            "java": "java",
            "php": "php php7 php8 php-html blade phtml",
            "ruby": "ruby rb rails erb",
            "go": "go golang",
            "csharp": "csharp c# cs dotnet cshtml razor",
            "rust": "rust rs",
            "kotlin": "kotlin kt kts",
        }.items()
        for word in words.split()
    }
)
GUESSED: Final = (  # the first that matches; told apart by what only one of them has
    ("php", r"<\?php|(?m)^\s*\$\w+\s*=[^=].*;\s*$|\$_(?:GET|POST|REQUEST|SERVER|SESSION|COOKIE)\b"),
    ("bash", r"\A#!\s*/(?:usr/)?bin/(?:env\s+)?(?:ba|z|k|da)?sh\b"),
    (
        "python",
        r"\A#!.*\bpython"
        r"|(?m)^\s*(?:def \w+\(.*|class \w+.*|elif .*|except\b.*|with .+ as \w+|if __name__ == .*):\s*(?:#.*)?$"
        r"|(?m)^\s*from [\w.]+ import |(?m)^import \w+(?:\.\w+)*(?: as \w+)?\s*$",
    ),
    ("rust", r"(?m)^\s*(?:pub )?fn \w+|\blet mut \w+|(?m)^\s*use (?:std|crate)::"),
    ("go", r"(?m)^package \w+\s*$|(?m)^\s*func (?:\(\w+ \*?\w+\) )?\w+\(|\w+, err := "),
    ("csharp", r"(?m)^\s*using [A-Z][\w.]+;|\bnamespace [A-Z]\w+|\bConsole\.Write|\[Http(?:Get|Post|Put|Delete)\]"),
    (
        "java",
        r"(?m)^\s*import (?:static )?(?:java|javax|org|com|android)\.[\w.*]+;|\bpublic static void main\(String"
        r"|(?m)^\s*(?:public|private|protected) (?:static |final |synchronized )*[\w<>\[\], ]+ \w+\([^;]*\{?\s*$",
    ),
    (
        "cpp",
        r"(?m)^\s*#\s*include\s*<(?:iostream|string|vector|memory|map|algorithm|cstdio|cstring|cstdlib|fstream)>"
        r"|\bstd::\w+|\busing namespace std",
    ),
    (
        "c",
        r"(?m)^\s*#\s*include\s*[<\"]\w+(?:/\w+)*\.h[>\"]"
        r"|\bint main\(|\b(?:printf|malloc|strcpy|scanf|sprintf)\(",
    ),
    (
        "javascript",
        r"\bconsole\.log\(|(?m)^\s*(?:const|let|var) [\w{\[].*="
        r"|=>\s*[{(]|\bfunction\s*\w*\(.*\)\s*\{|\brequire\(['\"]|\bdocument\.\w+",
    ),
    (
        "ruby",
        r"(?m)^\s*(?:require|require_relative) ['\"]|(?m)^\s*def [\w.?!]+(?:\(.*\))?\s*$|(?m)^\s*puts |\bdo \|\w+\|",
    ),
    ("bash", r"(?m)^\s*(?:if \[\[? .*|for \w+ in .*; do|while .*; do|echo .*|fi|done|sudo .*|export \w+=.*)\s*$"),
)
LOOKED_AT: Final = 4_096  # characters of a block that the guess reads


def language_of(word: str, text: str) -> str:
    """The language's name, or "" where it is another one or cannot be told."""
    if word:
        return WORDS.get(word, "")
    import re2  # noqa: PLC0415  only for blocks without a word

    head = text[:LOOKED_AT]
    return next((language for language, pattern in GUESSED if re2.search(pattern, head) is not None), "")
