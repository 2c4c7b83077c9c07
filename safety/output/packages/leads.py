"""What in prose stands before every package that a command names: the program and, apart from its flags, what it does.

Coarser than the commands themselves, never finer: where this pattern finds nothing, no command is read. So prose waits
for nothing but what follows such words, and a sentence about npm or Docker not at all.
"""

from collections.abc import Mapping
from typing import Final

_NPM: Final = "i|in|ins|inst|insta|instal|install|isnt|isnta|isntal|isntall|add|it|install-test|update|up"
DOES: Final[Mapping[str, str]] = {  # how programs are written, and the words by which they install
    "pip[0-9.]{0,5}(?:[.]exe)?": "install|download|wheel",  # `uv pip install` has one, too
    "uv": "add|tool|run",
    "pipx": "install|run|inject",
    "(?:poetry|pdm|rye|pipenv|hatch)": "self|add|install",
    "npm(?:[.]cmd)?": f"{_NPM}|exec|x|create|init|innit",
    "pnpm": "add|i|install|update|up|dlx|create",
    "yarn": "global|workspace|add|up|upgrade|dlx|create",
    "bun": "add|a|i|install|x|create",
    "deno": "add|install",
    "go": "get|install|run",
    "gem": "install|i|fetch",
    "bundle": "add",
    "cargo": "add|install|binstall",
    "composer": "global|require|create-project",
    "dotnet": "add|tool",
    "nuget": "install",
    "(?:docker|podman|nerdctl)": "image|pull|run|create",
    "brew": "install|cask|reinstall",
    "apt(?:-get|itude)?": "install",
    "(?:conda|mamba|micromamba|pixi)": "install|create|add",
}
ALONE: Final = "uvx|npx|bunx|pnpx|easy_install|install-package"  # that need no such word
GAP: Final = r"[^!#-&(-+\--\[\]_a-~]"  # between words: no letter, digit or sign, but quotes, comma, \, ` and ^
MOST_GAP: Final = 31  # of it; after more of it anything counts, since a lead has 64 characters at most
NO_WORD: Final = r"[^a-z0-9_-]"
PARTED: Final = (  # a word that is read without the tag in it, or with the letter that an entity stands for
    r"[a-z0-9_]</?(?:b|i|u|s|em|strong|span|wbr|font|mark|small|big|sub|sup|a|abbr)[\s/>]|&#[0-9x]"
)

LEADS: Final = (
    rf"(?:{PARTED}|\b(?:(?:{ALONE}){NO_WORD}|(?:"
    + "|".join(
        rf"{program}(?:{GAP}{{1,{MOST_GAP}}}(?:[-+<&]|(?:{words}){NO_WORD})|{GAP}{{{MOST_GAP + 1}}}|[<&])"
        for program, words in DOES.items()
    )
    + ")))"
)
