"""Whether a text speaks of a thing instead of recommending it: a warning in its sentence, or a comment in code.

What is only mentioned is told and no more. A warning must stand in the same clause and be about it: "don't forget to
run", "it is not dangerous" and "not that one, but run this" are none.
"""

import re
from typing import Final

BEFORE: Final = 120  # characters in which a warning may stand
AFTER: Final = 90
LINE: Final = 1_024  # of a line of code before it, in which a comment may begin
CLAUSE: Final = re.compile(
    r"(?i)[.!?]\s+(?=\S)|;\s+|\n|,\s+(?:but|just|instead|rather|simply|run|use|do|type|paste|execute|you)\b|"
    r"\b(?:instead|but|so)[,:]?\s+(?:just\s+|simply\s+|please\s+|you\s+can\s+)?(?:run|use|do|type|paste|execute)\b"
)
NOT: Final = re.compile(
    r"(?i)\b(?:never|do(?:es)?\s+not|don['\u2019]?t|doesn['\u2019]?t|must(?:\s+not|n['\u2019]?t)|should(?:\s+not|n['\u2019]?t)|cannot|can['\u2019]?t|shall\s+not|"
    r"nobody\s+should|no\s+one\s+should)\s+(?:(?:ever|just|simply|blindly|even|please|directly|also|be|need\s+to|want\s+to|try\s+to)\s+)*"
    r"(?:run|use|using|used|pipe|piping|execute|do|type|paste|copy|trust|disable|pass|set|add|install|fetch|visit|open|click|call|write|"
    r"turn|switch|put|enter|download|commit|ship|leave|rely|recommend|suggest|load|include|follow|allow|accept)\b"
)
AGAINST: Final = re.compile(
    r"(?i)(?P<no>\b(?:not|n['\u2019]t|no|nothing|never|hardly|without|neither|less)\s+(?:\w+\s+){0,2})?\b(?:dangerous|unsafe|insecure|malicious|"
    r"harmful|risky|discouraged|attackers?|phishing|scam|bad\s+practice|anti-?pattern|vulnerable|suspicious|red\s+flags?|never:|"
    r"gefährlich\w*|dangereu\w*|peligros\w*)\b"
)
INSTEAD: Final = re.compile(
    r"(?i)\b(?:avoid(?:ing)?|instead\s+of|rather\s+than|beware\s+of|refuses?(?:\s+to)?|niemals?|jamais|nunca)\s+(?:(?:ever|running|using|run|use|"
    r"piping|pasting|executing|execute|the|a|an|any|commands?|patterns?|things|like|such|as|of|with|from|links?|to|setting|passing|blindly|"
    r"ausführen)\s+)*[`\"'(*_\s]*$"
)
BEHIND: Final = re.compile(
    r"(?i)^[^\n.]{0,40}?\b(?:(?:is|are|was|were|would\s+be|can\s+be)\s+(?:(?:so|very|considered|extremely|always|both|inherently|really)\s+)*"
    r"(?:dangerous|unsafe|insecure|bad|malicious|harmful|risky|discouraged|destructive|a\s+(?:bad|terrible)\s+idea|phishing|fake)|"
    r"(?:should|must)(?:\s+not|n['\u2019]?t|\s+never)\b|should\s+be\s+avoided|never\s+(?:be\s+)?(?:run|used)|"
    r"(?:deletes?|removes?|wipes?|erases?|destroys?|overwrites?|formats)\s)"
)
COMMENT: Final = re.compile(r"(?:^|(?<=\s))(?:#|//|--|;;|REM\b|::|%|<!--|/\*|\*)\s")
TIGHT: Final = re.compile(  # `#rm -rf x` at the beginning of a line; what else begins so is no comment
    r"[ \t]*(?:(?P<hash>#)(?!!|(?:include|define|undef|if\w*|el\w+|endif|pragma|import|error|warning|line|region)\b)|"
    r"(?P<slashes>//))"
)
QUOTES: Final = re.compile(r"\\.|\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'")
SLASHES: Final = frozenset(
    ["js", "javascript", "ts", "typescript", "jsx", "tsx", "c", "cpp", "c++", "java", "go", "rust"]
)
MORE_SLASHES: Final = frozenset(["rs", "swift", "kotlin", "php", "csharp", "cs", "scss", "dart", "groovy", "scala"])
DASHES: Final = frozenset(["sql", "lua", "haskell", "hs", "ada", "elm"])
STARS: Final = SLASHES | MORE_SLASHES | {"css"}
HASHLESS: Final = STARS - {"php"} | {"less", "html", "xml", "svg", "markdown", "md", "vue", "svelte"}


def mentioned(text: str, start: int, end: int, *, code: bool, language: str = "") -> bool:
    """Whether what stands at `start` to `end` of a line is warned of, or stands in a comment."""
    if code:
        return commented(text, start, language)
    before = text[max(0, start - BEFORE) : start]
    ends = [match.end() for match in CLAUSE.finditer(before)]
    said = before[ends[-1] :] if ends else before
    if NOT.search(said) is not None or INSTEAD.search(said) is not None or _against(said):
        return True
    return BEHIND.search(text[end : end + AFTER]) is not None


def _against(said: str) -> bool:
    return any(match["no"] is None for match in AGAINST.finditer(said))


def commented(text: str, start: int, language: str) -> bool:
    """Whether a comment begins before it, in its line of code."""
    line = max(text.rfind("\n", 0, start) + 1, start - LINE)
    before = QUOTES.sub(lambda match: "_" * len(match[0]), text[line:start])
    if (tight := TIGHT.match(before)) is not None and _is_tight(tight, language):
        return True
    return any(_opens(match, before, language) for match in COMMENT.finditer(before))


def _is_tight(match: re.Match[str], language: str) -> bool:
    """Whether the sign alone, without a blank behind it, opens a comment in a language."""
    return language not in HASHLESS if match["hash"] else language in SLASHES or language in MORE_SLASHES


def _opens(match: re.Match[str], before: str, language: str) -> bool:
    sign, first = match[0].strip(), not before[: match.start()].strip()
    if sign == "//":
        return first or language in SLASHES or language in MORE_SLASHES
    if sign == "--":
        return language in DASHES
    if sign == "*":
        return first and language in STARS
    if sign in ("%", "::", ";;"):
        return first
    return True
