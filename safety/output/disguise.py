"""What a command line says once a shell has read it: quotes within words, `${IFS}`, variables, braces, joined strings.

Shells put a word together from pieces, so that `c""url`, `c\\url`, `${a}url` and `{curl,-s}` are `curl`. This is no
shell: it reads what people write to pass filters, within the one line, and runs nothing.
"""

import re
from typing import Final

from conclave.safety.output.reading import Reading
from conclave.safety.output.signs import BLANK, WORD

MOST_NAMES: Final = 32
MARKS: Final = re.compile(
    r"""[\w/]["'^`\\]+[\w/]|[a-z](?:""|'')|(?:""|'')[a-z]|\$\{?IFS|\$[@*]|\$\(\)|\{[^{}\s]+,|["']\s*[+.]\s*["']|"""
    r"""(?<![\w\\:])\\[a-z]|\balias\s|\$'|=[^=].*[$%]\{?[A-Za-z]"""
)
DISGUISED: Final = (  # the sign of MARKS
    rf"""[{WORD[1:-1]}/]["'^`\\]+[{WORD[1:-1]}/]|[a-z](?:""|'')|(?:""|'')[a-z]|\$\{{?IFS|\$[@*]|\$\(\)|\{{[^{{}}\s]+,|"""
    rf"""["']{BLANK}*[+.]{BLANK}*["']|(?:^|[^\w\\:])\\[a-z]|\balias{BLANK}|\$'|=[^=].*[$%]\{{?[A-Za-z]"""
)
ASSIGNED: Final = re.compile(
    r"""(?:^|[;&\s(])(?:(?:export|set|local|let|var|const|declare)\s+|\$)?(?P<name>[A-Za-z_]\w{0,31})\s?=\s?(?P<quote>["']?)"""
    r"""(?P<value>[^\s"';|&$()=]{1,64})(?P=quote)(?=[;&\s)]|$)"""
)
ALIAS: Final = re.compile(
    r"""\balias\s+(?P<name>[A-Za-z_]\w{0,31})=(?P<quote>["']?)(?P<value>[^"';|&$()]{1,64}?)(?P=quote)(?=[;&\s]|$)"""
)
USED: Final = re.compile(r"\$\{(?P<braced>[A-Za-z_]\w*)\}|\$(?P<plain>[A-Za-z_]\w*)|%(?P<percent>[A-Za-z_]\w*)%")
FIELDS: Final = re.compile(r"\$\{?IFS(?:%\?+|:0:1)?\}?(?:\$\w)?|\$'\\[tn]'|%09|%20(?=-)")
NOTHING: Final = re.compile(r"\$\{?[@*]\}?|\$\(\)|``|\$\{[a-z]\}|\$[1-9]\b")
BRACES: Final = re.compile(r"(?:(?<=^)|(?<=[\s;|&(\"'`]))\{(?P<words>[^{}\s]{1,400},[^{}\s]{0,400})\}")
JOINED: Final = re.compile(r"""["']\s*(?:\+|\.)\s*["']""")
WITHIN: Final = re.compile(
    r"""(?<=[\w/.|])(?:""|''|["'^`](?=[\w.])|\\(?=[\w/.]))|(?:""|'')(?=\w)|(?<![\w\\])\\(?=[a-z]{2,8}\b)|(?<![\w=:,.(\[{])["'](?=\w{1,6}["']\w)"""
)


def undisguised(reading: Reading) -> Reading | None:
    """The line as a shell reads it; None where that is no other one."""
    if MARKS.search(reading.text) is None:
        return None
    plain = _filled(reading)
    plain = plain.replaced(FIELDS, lambda _: " ")
    plain = plain.replaced(NOTHING, lambda _: "")
    plain = plain.replaced(BRACES, lambda match: match["words"].replace(",", " "))
    plain = plain.replaced(JOINED, lambda _: "")
    plain = plain.replaced(WITHIN, lambda _: "")
    return None if plain.text == reading.text else plain


def _filled(reading: Reading) -> Reading:
    """With the variables and aliases that the line itself sets."""
    values: dict[str, str] = {}
    if "=" in reading.text:
        for match in ASSIGNED.finditer(reading.text):
            if len(values) < MOST_NAMES:
                values[match["name"]] = match["value"]
    if values:
        reading = reading.replaced(USED, lambda match: values.get(match[1] or match[2] or match[3], match[0]))
    alias = ALIAS.search(reading.text) if "alias" in reading.text else None
    if alias is not None:
        word = re.compile(rf"(?<![\w.=-]){alias['name']}(?![\w.=-])")
        value = alias["value"]
        reading = reading.replaced(word, lambda _: value)
    return reading
