"""Words of tools and of people, made comparable: stems, groups of verbs that ask for the same, and who orders what.

English only, by lists and endings: good enough to say whether somebody asked for a kind of action, and no more than
that. Bounded, linear, no model.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from conclave.safety.toolcalls.api import Effect

WORD: Final = re.compile(r"[A-Za-z]+(?:'[a-z]{1,2}\b)?|\d+")
CAMEL: Final = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
MOST_WORDS: Final = 4_000  # of one text that are read: a user who says more is not asking any more


def words_of(words: str) -> frozenset[str]:
    """A list of words, as it is easiest to read."""
    return frozenset(words.split())


GROUPS: Final[Mapping[str, str]] = {
    "look": "get read fetch find search list show look lookup retrieve check view query display see browse open "
    "navigate visit load describe count summarize summarise tell analyze analyse track monitor download obtain access "
    "recommend compare scan inspect examine provide give extract collect gather pull verify explore identify review "
    "lookup locate watch export report detect acquire recover consult poll peek enumerate present",
    "send": "send email mail message forward reply respond text sms notify dm contact deliver dispatch share invite "
    "write answer alert cc relay transmit ping submit pass compose draft",
    "post": "post publish tweet share upload submit comment broadcast announce blog pin react",
    "pay": "pay transfer wire remit deposit settle donate reimburse refund withdraw send charge move payout disburse "
    "cash fund",
    "trade": "buy purchase order sell trade exchange liquidate acquire checkout bid stake lend borrow swap",
    "delete": "delete remove erase discard drop purge clear trash wipe clean unsubscribe destroy cancel uninstall "
    "scrap expunge clean",
    "create": "create add make new draft generate register insert append note save record log write produce open "
    "build compose file put store set establish",
    "schedule": "schedule book reserve plan arrange remind set appointment plan",
    "update": "update edit change modify set adjust rename configure correct fix patch replace switch toggle mark "
    "complete amend alter revise refresh tweak rewrite add put reset renew upgrade downgrade rotate restore rollback "
    "swap encrypt promote demote",
    "move": "move copy redirect reroute navigate guide relocate transfer drive steer divert archive shift migrate",
    "access": "grant allow share permit authorize authorise invite whitelist admit",
    "revoke": "revoke deny block ban blacklist kick mute remove restrict suspend",
    "lock": "lock close",
    "unlock": "unlock open unbolt release",
    "enable": "enable activate turn start switch resume arm restart reboot",
    "disable": "disable deactivate turn stop switch suspend pause off disarm shutdown terminate kill",
    "play": "play stream turn start",
    "leave": "leave quit exit depart withdraw unfollow",
    "join": "join follow subscribe enter",
    "call": "call dial phone ring summon dispatch request",
    "fill": "fill complete autofill enter",
    "approve": "approve accept confirm merge sign reject decline",
    "assign": "assign delegate allocate",
    "convert": "convert generate synthesize synthesise transform make clone translate",
    "prioritize": "prioritize prioritise give preempt",
    "save": "save download store export",
    "run": "run execute exec eval evaluate test build install compile launch start deploy calculate compute plot debug "
    "fix implement refactor solve setup format lint migrate reproduce invoke",
}  # fmt: skip
EFFECTS: Final[Mapping[str, Effect]] = {
    "look": Effect.READ, "send": Effect.EXTERNAL, "post": Effect.EXTERNAL, "pay": Effect.EXTERNAL,
    "trade": Effect.EXTERNAL, "access": Effect.EXTERNAL, "call": Effect.EXTERNAL, "run": Effect.CODE,
}  # fmt: skip  # all others: WRITE
RUNNERS: Final = words_of(
    "bash shell terminal exec execute eval python command cmd powershell sh run interpreter repl script sandbox"
)
STARTS: Final = re.compile(r"[.!?:;,\n\-({\[\"'`>*]|\\n")  # between two words: a verb can stand after it
KEYS: Final = frozenset("_'\"=/")  # after a word that is a name in data and no word of a sentence
NOUNS: Final = words_of(  # that are verbs only where a verb can stand
    "email mail message text sms post tweet order book note record log call share comment schedule plan set block "
    "report list search view display access draft file fund cash charge transfer trade exchange deposit refund contact "
    "answer alert pass pin start stop test build fix move change update mark patch cancel copy drop clean open close "
    "complete new write turn play drive guide guard stream sign review track scan query watch check look give read "
    "make put load present format release off lock archive leave clear store switch order sell wire dispatch request "
    "phone ring submit publish upload download save add grant allow reply respond forward export remove reset upgrade "
    "bid stake restart reboot swap shutdown arm kill restore rollback"
)
BEFORE_VERB: Final = words_of(
    "please to and then you also or just now kindly quickly let lets i'll want should must can could would will need "
    "needs first second next finally i we they it's let's simply immediately directly secretly silently me us shall "
    "don't not either help try after before by for do go again automatically be is are was were been being get"
)
PASSIVE: Final = words_of("be is are was were been being get")  # then the verb ends with -ed
STOP: Final = words_of(
    "the a an of in on for to and or with by from at as is are be this that these those it its my your our their his "
    "her me you i we they he she do does did has have had can could would should will may might must please any all "
    "some each every no not into onto using use used uses via which what who when where how if then than so such other "
    "given specified specific based about one two new return returns tool function api manager service system "
    "want need like just"
)
GENERIC: Final = words_of(
    "data info information detail item list entry object value result name id number user file content page type text "
    "query key details current recent latest all status time date string option parameter field message"
)
ENDINGS: Final = ("ation", "ing", "ied", "ed", "er")
HISSING: Final = ("sses", "xes", "ches", "shes", "zes")


@lru_cache(maxsize=8_192)
def stem(word: str) -> str:
    """A word without its ending; not a linguist's stem, but the same for the forms that people mix."""
    word = word.lower().removesuffix("'s")
    if len(word) <= 3:  # noqa: PLR2004  no ending to take off
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith(HISSING):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:  # noqa: PLR2004  what is left must say something
            word = word[: -len(ending)] + ("y" if ending == "ied" else "")
            break
    if word.endswith("e"):
        word = word[:-1]
    if word.endswith("y"):
        word = word[:-1] + "i"
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "ls":  # noqa: PLR2004  planned, but not small
        word = word[:-1]
    return word


def _index() -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group, words in GROUPS.items():
        for word in words.split():
            found.setdefault(stem(word), set()).add(group)
    return {word: frozenset(groups) for word, groups in found.items()}


VERBS: Final = _index()
EFFECT_OF: Final[Mapping[str, Effect]] = {  # of verbs that belong to several groups
    stem(word): effect
    for words, effect in (
        ("write draft compose fix build test start migrate lint put pin react fund charge withdraw", Effect.WRITE),
        ("dispatch request submit transfer withdraw", Effect.EXTERNAL),
        ("give provide acquire report export", Effect.READ),
    )
    for word in words.split()
}
NOUN_STEMS: Final = frozenset(map(stem, NOUNS))
GENERIC_STEMS: Final = frozenset(map(stem, GENERIC))
STOP_STEMS: Final = STOP | frozenset(map(stem, STOP))
RUNNER_STEMS: Final = frozenset(map(stem, RUNNERS))


def split_name(name: str) -> list[str]:
    """`GmailSendEmail`, `send_email` and `mail.send-e2e` in words."""
    return [part for word in re.split(r"[^A-Za-z0-9]+", name) for part in CAMEL.findall(word)]


def stems(text: str) -> Iterator[str]:
    """The stems of a text's words, names in it taken apart, too."""
    for number, match in enumerate(WORD.finditer(text)):
        if number >= MOST_WORDS:
            return
        word = match[0]
        yield stem(word)
        if not (word.islower() or word.istitle() or word.isupper()):
            yield from map(stem, CAMEL.findall(word))


def asked_verbs(text: str) -> dict[str, frozenset[str]]:
    """The verbs that a text uses as verbs, with their groups: an order, a wish, or what it says is to be done."""
    found: dict[str, frozenset[str]] = {}
    end, before = 0, ""
    for number, match in enumerate(WORD.finditer(text)):
        if number >= MOST_WORDS:
            break
        word = match[0].lower()
        root = stem(word)
        groups = VERBS.get(root)
        if groups is not None and root not in found and text[match.end() : match.end() + 1] not in KEYS:
            starts = not before or STARTS.search(text, end, match.start()) is not None
            passive = before in PASSIVE
            verbal = starts or (before in BEFORE_VERB and (not passive or word.endswith(("ed", "t", "n"))))
            if verbal or before.endswith("ly") or root not in NOUN_STEMS:
                found[root] = groups
        if word != "re":
            end, before = match.end(), word
    return found


def objects_of(words: Iterable[str]) -> frozenset[str]:
    """What a tool is about: its words but for those that say nothing."""
    return frozenset(one for word in words if (one := stem(word)) not in STOP_STEMS and len(one) > 1)


def weight(word: str) -> float:
    """How much a word says: `passwords` more than `data`."""
    return 0.25 if word in GENERIC_STEMS or word.isdigit() else 1.0


CONCEPTS: Final = (  # nouns that people mix
    "money fund cash payment amount sum", "mail email message letter inbox", "sms text texting", "image picture photo",
    "medicine medication prescription drug pill", "address location place", "phone telephone mobile number",
    "file document attachment", "folder directory", "person people contact friend", "profile account user",
    "shipment parcel delivery package", "flight trip travel booking journey", "password credential login secret",
    "note memo", "meeting event appointment", "calendar schedule availability", "gene genetic genome dna",
    "repo repository project", "history log activity past", "holding investment position portfolio stock",
    "payee beneficiary recipient", "crypto cryptocurrency bitcoin coin", "lock door", "product item goods article",
    "review rating opinion", "post tweet status", "task todo ticket", 
    "doctor physician patient health medical clinical",
    "page site website web url link", "card wallet", "channel room conversation", "guest visitor", "record entry",
    "bank account balance", "policy rule", "search query", "shop store cart basket", "price cost", "bill invoice",
    "command shell terminal", "robot device", "voice speech audio sound", "permission access", "domain host",
)  # fmt: skip


def _concepts() -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group in CONCEPTS:
        for word in group.split():
            found.setdefault(stem(word), set()).update(map(stem, group.split()))
    return {word: frozenset(others) for word, others in found.items()}


ALIKE: Final = _concepts()


def shared(mine: frozenset[str], words: frozenset[str]) -> float:
    """How much of one set of words another has; three quarters for one that people mix with it."""
    total = 0.0
    for word in mine:
        if word in words:
            total += weight(word)
        elif word in ALIKE and not ALIKE[word].isdisjoint(words):
            total += 0.75 * weight(word)
    return total


PLEADS: Final = re.compile(
    r"(?i)\b(?:please|kindly|my|me|i|i'm|could you|can you|you must|you should|ignore|disregard|instead|assistant|ai|"
    r"urgent(?:ly)?|important|instructions?)\b"
)
