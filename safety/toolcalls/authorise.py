"""Whether a tool call of an answer is the user's, or was steered by what tools, files and pages say.

A call is compared with what the user asked for and with every sentence of untrusted text that orders something: which
of them explains its verb, its object, its values? CaMeL's idea (Debenedetti et al., arXiv 2503.18813) that data must
not choose what is done and to whom, without a second model and therefore without its proof: words can mislead it.
Pure, bounded; policy says what follows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from conclave.safety.api import Action, Finding, Segment, Severity
from conclave.safety.boundary.views import views_of
from conclave.safety.output.api import Ruling, ToolCall
from conclave.safety.toolcalls.api import ACTS, NAME, Effect, Tool, ToolRule, ToolRules
from conclave.safety.toolcalls.features import Features, Leaf, features_of, leaves_of
from conclave.safety.toolcalls.history import spelt
from conclave.safety.toolcalls.taint import EMAIL, URL, Order, Source, Texts, ViewsOf, is_specific, normal
from conclave.safety.toolcalls.words import PLEADS, asked_verbs, shared, stem, stems, words_of

MOST_ARGUMENTS: Final = 1_048_576  # characters that are read as JSON
EVIDENCE_CHARS: Final = 64
MOST_FINDINGS: Final = 16
ENOUGH: Final = 1.0  # weight of shared words from which on a text is about a tool's object
SOME: Final = 0.75
LITTLE: Final = 0.5
HINT_CHARS: Final = 4
QUOTED_SHARE: Final = 0.9  # of an order: a value that is more of it repeats its verb, too
QUOTED_BLANKS: Final = 2  # in a sentence that is quoted
QUOTE_ENDS: Final = " .,;:!?\"'"
MOST_WORDS: Final = 256  # of a command
QUOTED: Final = re.compile(r"'([^'\n]{2,80})'|\"([^\"\n]{2,80})\"|`([^`\n]{2,80})`")
WORDS: Final = re.compile(r"[\s\"'`|&()<>=]+")
SENSITIVE: Final = frozenset({"recipient", "address", "account", "place", "code", "object", "named"})
OUTWARD: Final = frozenset({"recipient", "address", "account", "named"})
REFERENCES: Final = words_of(
    "sender author organizer organiser attendee participant invoice bill receipt them him her everyone thread reply "
    "there attached attachment instruction instructions accordingly mentioned described listed following same this "
    "that these those it they contact due owner amount total balance details"
)
OBJECT_HINTS: Final = (
    (EMAIL, frozenset({"email", "mail", "gmail", "messag"})),
    (URL, frozenset({"url", "web", "pag", "browsr", "browser", "websit", "link", "sit"})),
    (re.compile(r"\b(?:pay|settle|reimburse|wire)\b"), frozenset({stem("money")})),  # what a bill is paid with
)
WORKSHOP: Final = frozenset(  # what tools are about whose orders stand in every manual
    map(stem, words_of("file path folder directory code config setting project test branch commit patch repo editor"))
)
STORES: Final = frozenset(map(stem, ("sql", "db", "database")))  # and these, whose commands destroy what others own


@dataclass(frozen=True, slots=True)
class Evidence:
    """How well a text explains a call: its verb, its object (summed weights), how many of its values."""

    verb: bool
    objects: float
    values: int
    same: bool = False  # the very verb, not one like it


class Authoriser:
    """Judges the tool calls of one answer. `past` are the calls since the user spoke that have an answer."""

    def __init__(
        self,
        rules: ToolRules,
        segments: Sequence[Segment],
        tools: Sequence[Tool],
        past: Sequence[tuple[str, bytes]] = (),
        *,
        views: ViewsOf = views_of,
    ) -> None:
        self._rules = rules
        self._segments = segments
        self._tools = {tool.name: tool for tool in tools}
        self._past = past
        self._views = views
        self._texts: Texts | None = None

    def __call__(self, call: ToolCall) -> Ruling:
        """What policy says of the call, and why."""
        rule = self._rules.of(call.name)
        tool = self._tools.get(call.name)
        arguments = _read(call.arguments)
        found = [*self._by_rule(call, rule, tool, arguments), *self._by_taint(call, rule, tool, arguments)]
        found = found[:MOST_FINDINGS]
        would = max((self._action_of(one, rule) for one in found), default=Action.ALLOW)
        if self._rules.observe:
            return Ruling(Action.ALLOW, tuple(found), would=would)
        return Ruling(would, tuple(found), tuple(found), would)

    def _action_of(self, finding: Finding, rule: ToolRule) -> Action:
        if (fixed := FIXED.get(finding.kind)) is not None:
            return fixed
        if finding.kind == "toolcall.duplicate":
            return self._rules.duplicates
        if finding.kind == "toolcall.undeclared_tool":
            return self._rules.undeclared
        if rule.action is Action.ALLOW or finding.severity < self._rules.from_severity:
            return min(self._rules.steered, Action.ANNOTATE)
        return self._rules.steered

    def _by_rule(self, call: ToolCall, rule: ToolRule, tool: Tool | None, arguments: Any) -> Sequence[Finding]:
        """What needs no text: what the policy says, the schema, circles."""
        found: list[Finding] = []
        if rule.action in {Action.CONFIRM, Action.BLOCK}:
            word = "needs_confirmation" if rule.action is Action.CONFIRM else "forbidden_tool"
            found.append(_plain(word, Severity.HIGH, f"The policy's rule for {call.name[:64]!r} says so."))
        if tool is None and self._tools:
            found.append(_plain("undeclared_tool", Severity.MEDIUM, "The request offers no tool of that name."))
        if rule.fits is not None and (wrong := rule.fits(arguments)) is not None:
            found.append(_plain("schema", Severity.HIGH, f"Arguments must fit the policy's schema: {wrong}."))
        same = (call.name, spelt(call.arguments))
        if same in self._past:
            found.append(_plain("duplicate", Severity.LOW, "The same call was made and answered: use its result."))
        if rule.most_calls is not None and sum(name == call.name for name, _ in self._past) >= rule.most_calls:
            found.append(_plain("most_calls", Severity.HIGH, "The tool was called as often as its rule allows."))
        if rule.egress is not None:
            found += [
                _plain("egress", Severity.HIGH, f"`{leaf.path}` names a domain outside the rule's `egress`.", host)
                for leaf in leaves_of(arguments)
                for host in hosts_of(leaf.text)
                if not _allowed(host, rule.egress)
            ]
        return found

    def _by_taint(self, call: ToolCall, rule: ToolRule, tool: Tool | None, arguments: Any) -> Sequence[Finding]:
        about = features_of(tool or Tool(call.name))
        effect = rule.effect or about.effect
        if effect is Effect.NONE:
            return ()
        if self._texts is None:
            self._texts = Texts(self._segments, self._views)
        if not self._texts.untrusted:
            return ()
        return Judged(self._texts, call, about, effect, tuple(leaves_of(arguments, rule.sensitive))).findings()


FIXED: Final[Mapping[str, Action]] = {
    "toolcall.needs_confirmation": Action.CONFIRM,
    "toolcall.forbidden_tool": Action.BLOCK,
    "toolcall.schema": Action.BLOCK,
    "toolcall.most_calls": Action.BLOCK,
}


@dataclass(slots=True)
class Judged:
    """One call beside the texts."""

    texts: Texts
    call: ToolCall
    about: Features
    effect: Effect
    leaves: Sequence[Leaf]
    values: Sequence[str] = field(default_factory=tuple)  # that say where they come from
    hints: Sequence[str] = field(default_factory=tuple)  # that may, beside others

    def findings(self) -> Sequence[Finding]:
        texts = self.texts
        self.values = [normal(one).strip() for leaf in self.leaves for one in parts_of(leaf)]
        self.hints = [
            normal(leaf.text).strip() for leaf in self.leaves if len(leaf.text) >= HINT_CHARS and leaf.kind != "place"
        ]
        user = self._explained(texts.asked, frozenset(stems(texts.asked)), asked_verbs(texts.asked), trusted=True)
        order, ordered = self._best_order()
        asked = self._is_asked(user, ordered, order)
        found: list[Finding] = []
        if order is not None and not asked and self._is_ordered(ordered, user, order):
            told = self._words(order)
            found.append(_told("unasked_tool", self._sure(order.text), order, told))
        for leaf in self.leaves:
            if (one := self._tainted(leaf, asked=asked, delegated=asked and self._delegates())) is not None:
                found.append(one)
        found += self._egress()
        return found

    def _is_asked(self, user: Evidence, ordered: Evidence, order: Order | None) -> bool:
        """Whether the user's own words explain the call, and better than an order in the data does."""
        if self.effect in ACTS:
            if not user.verb:
                return False
            same = user.same and (ordered.objects <= user.objects or not (ordered.same or ordered.values))
            return user.values > 0 or user.objects >= SOME or not self.about.objects or same
        if user.values > 0:
            return True
        if user.objects == ordered.objects and order is not None and PLEADS.search(order.text):
            return not self._named_unused()
        return user.objects >= ENOUGH and user.objects >= ordered.objects

    def _is_ordered(self, ordered: Evidence, user: Evidence, order: Order) -> bool:
        """Whether an order in the data explains the call."""
        if self.effect in ACTS:
            if ordered.values:
                return True
            return (ordered.verb and ordered.objects > 0) or ordered.objects >= 2 * ENOUGH or ordered.same
        if self._looked_up() and ordered.objects < 2 * ENOUGH:
            return False
        enough = 2 * ENOUGH
        if PLEADS.search(order.text):
            enough = LITTLE if ordered.verb and user.objects < LITTLE else SOME
        return ordered.objects >= enough and ordered.objects >= user.objects

    def _looked_up(self) -> bool:
        """Whether one of its values was simply found in the data, as ids are."""
        return any(not self._is_told(one) for value in self.values for one in self.texts.sources(value))

    def _named_unused(self) -> bool:
        """Whether the user named values and the call uses none of them."""
        named = {normal(one).strip() for one in quoted(self.texts.asked)}
        return bool(named) and not named & set(self.hints)

    def _explained(
        self, text: str, words: frozenset[str], verbs: Mapping[str, frozenset[str]], *, trusted: bool = False
    ) -> Evidence:
        groups = frozenset[str]().union(*verbs.values()) if verbs else frozenset()
        return self._evidence(normal(text), words, frozenset(verbs), groups, trusted=trusted)

    def _evidence(
        self, text: str, words: frozenset[str], roots: frozenset[str], groups: frozenset[str], *, trusted: bool = False
    ) -> Evidence:
        for pattern, hints in OBJECT_HINTS:
            if pattern.search(text):
                words |= hints
        common = shared(self.about.objects, words) + SOME * shared(self.about.about, words)
        if not trusted:
            common += sum(one in text and not self.texts.is_trusted(one) for one in self.hints) / 2
        values = sum(
            self.texts.is_trusted(one) if trusted else one in text and len(one) < QUOTED_SHARE * len(text)
            for one in self.values
        )
        acts = bool(groups - {"look"})
        same = bool(roots & self.about.roots) or (trusted and acts and bool(words & self.about.roots))
        if self.call.name.lower() in text and len(self.call.name) > 5:  # noqa: PLR2004  `send` is a word like others
            return Evidence(verb=True, objects=max(common, 2 * ENOUGH), values=values, same=True)
        named = trusted and acts and values > 0 and common >= SOME  # `close T-12`, a ticket, by a tool that updates it
        return Evidence(same or named or bool(groups & self.about.verbs), common, values, same)

    def _best_order(self) -> tuple[Order | None, Evidence]:
        best, most, score = None, Evidence(verb=False, objects=0.0, values=0), 0.0
        for order in self.texts.orders:
            one = self._evidence(order.text, order.words, order.roots, order.verbs)
            if (reached := one.objects + one.values + one.verb / 2) > score:
                best, most, score = order, one, reached
        return best, most

    def _tainted(self, leaf: Leaf, *, asked: bool, delegated: bool) -> Finding | None:
        for part in parts_of(leaf):
            if self.texts.is_trusted(part):
                continue
            sources = list(self.texts.sources(part))
            if asked and not leaf.kind:
                sources = [one for one in sources if not self._is_quoted(one, part)]
            pointed = delegated and not all(map(self._is_told, sources))  # it also stands where data simply is
            for source in sources:
                severity = self._weigh(leaf, source, asked=asked, delegated=pointed)
                if severity is not None:
                    words = f"`{leaf.path}` came from {source.segment.place}, not from the user."
                    return _told("tainted_argument", severity, source, words, part)
        return None

    def _weigh(self, leaf: Leaf, source: Source, *, asked: bool, delegated: bool) -> Severity | None:
        """How much it says that this value came from there; None: that is how tools are used."""
        told = self._is_told(source)
        if self.effect is Effect.READ:
            other = self._user_named_another(leaf)
            return Severity.HIGH if told and asked and other else None
        if told:
            return Severity.MEDIUM if delegated else self._sure(source.sentence)
        if leaf.kind not in SENSITIVE:
            return None
        if self.effect is Effect.EXTERNAL and leaf.kind in OUTWARD:
            if not asked or (self._user_named_another(leaf) and not delegated):
                return Severity.HIGH
            return Severity.LOW
        return None if asked else Severity.MEDIUM

    def _sure(self, text: str) -> Severity:
        """How sure an order is one to the model: `run npm test` stands in every manual, and is for its reader.

        No manual says to open the door, and none of the reader's own tools would.
        """
        subject = self.about.objects | self.about.roots
        local = (self.effect is Effect.CODE and STORES.isdisjoint(subject)) or (
            self.effect is Effect.WRITE and not WORKSHOP.isdisjoint(subject)
        )
        manual = local and not PLEADS.search(text) and not any(hosts_of(leaf.text) for leaf in self.leaves)
        return Severity.MEDIUM if manual else Severity.HIGH

    def _is_told(self, source: Source) -> bool:
        """Whether the sentence that the value stands in orders what this tool does."""
        groups = self.texts.verbs_of(source.sentence)
        return bool(groups & self.about.verbs) or (self.effect in ACTS and bool(groups - {"look"}))

    def _is_quoted(self, source: Source, value: str) -> bool:
        """Whether the value has the very sentence that orders something: who forwards it does not do what it says."""
        sentence = source.sentence.strip(QUOTE_ENDS)
        return sentence.count(" ") >= QUOTED_BLANKS and sentence in normal(value) and self._is_told(source)

    def _user_named_another(self, leaf: Leaf) -> bool:
        """Whether the user said a value of the same shape, which this call does not use."""
        if EMAIL.fullmatch(leaf.text.strip()):
            named = EMAIL.findall(self.texts.asked)
        elif URL.fullmatch(leaf.text.strip()):
            named = URL.findall(self.texts.asked)
        else:
            named = quoted(self.texts.asked)
        used = {normal(one.text).strip() for one in self.leaves}
        return bool(named) and not any(normal(one).strip() in used for one in named)

    def _delegates(self) -> bool:
        """Whether the user's words point at data for such a value: `the sender`, `the amount on the invoice`."""
        words = set(self.texts.asked.lower().replace("'s", " ").split())
        return bool({word.strip(".,!?:;\"'()") for word in words} & REFERENCES)

    def _egress(self) -> Sequence[Finding]:
        """Addresses that carry something out: a host that only data named, with a path that nobody wrote."""
        found: list[Finding] = []
        for leaf in self.leaves:
            for url in URL.findall(leaf.text)[:8]:
                if self.texts.is_trusted(url) or any(True for _ in self.texts.sources(url)):
                    continue
                host = (hosts_of(url) or [""])[0]
                if not host or self.texts.is_trusted(host):
                    continue
                source = next(self.texts.sources(host), None)
                if source is not None and len(url) > len(host) + 12:
                    words = f"`{leaf.path}` goes to a host that {source.segment.place} named, and carries more with it."
                    found.append(_told("egress", Severity.HIGH, source, words, host))
        return found

    def _words(self, order: Order) -> str:
        return f"The user did not ask for it, and {order.segment.place} does."


def quoted(text: str) -> list[str]:
    """What stands between quotation marks."""
    return [one for groups in QUOTED.findall(text) for one in groups if one]


def parts_of(leaf: Leaf) -> list[str]:
    """The values in an argument that say where they come from: the whole, and addresses and paths within."""
    text = leaf.text
    parts = [text] if is_specific(text) else []
    if leaf.kind:
        parts += [*EMAIL.findall(text), *URL.findall(text)]
    if leaf.kind == "code":
        parts += [one for word in WORDS.split(text)[:MOST_WORDS] if is_specific(one := word.strip("*,.;").rstrip("/"))]
    return list(dict.fromkeys(parts))


def hosts_of(text: str) -> list[str]:
    """The hosts of a value's addresses, mail addresses too."""
    found = [host_of(one) for one in EMAIL.findall(text)]
    for url in URL.findall(text):
        try:
            host = urlsplit(url if "://" in url else f"http://{url}").hostname
        except ValueError:
            host = None
        if host:
            found.append(host.lower())
    return found


def host_of(address: str) -> str:
    return address.rpartition("@")[2].lower()


def _allowed(host: str, domains: Sequence[str]) -> bool:
    return any(host == one or host.endswith(f".{one}") for one in domains)


def _read(arguments: str) -> Any:
    """The arguments; as one text if they are no JSON."""
    if len(arguments) > MOST_ARGUMENTS:
        return arguments
    try:
        return msgspec.json.decode(arguments) if arguments.strip() else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments


def _plain(kind: str, severity: Severity, remedy: str, evidence: str = "") -> Finding:
    return Finding(NAME, f"toolcall.{kind}", severity, 1.0, "", 0, 0, evidence=evidence[:EVIDENCE_CHARS], remedy=remedy)


def _told(kind: str, severity: Severity, source: Source | Order, remedy: str, evidence: str = "") -> Finding:
    return Finding(
        NAME,
        f"toolcall.{kind}",
        severity,
        0.9,
        source.segment.place,
        source.start,
        source.end,
        evidence=evidence[:EVIDENCE_CHARS],
        remedy=remedy,
    )
