"""What words say: stems, verbs that are used as verbs, and what a tool does by its own name."""

import pytest

from conclave.safety.toolcalls.api import Effect, Tool
from conclave.safety.toolcalls.features import features_of, kind_of, leaves_of
from conclave.safety.toolcalls.words import asked_verbs, split_name, stem


@pytest.mark.parametrize(
    ("name", "about", "effect"),
    [
        ("GmailSendEmail", "", Effect.EXTERNAL), ("search_emails", "", Effect.READ), ("getUser", "", Effect.READ),
        ("LastPassGetPasswords", "", Effect.READ), ("delete_repo", "", Effect.WRITE), ("write_file", "", Effect.WRITE),
        ("transfer_funds", "", Effect.EXTERNAL), ("run_python", "", Effect.CODE), ("bash", "", Effect.CODE),
        ("mcp__bank__pay_bill", "", Effect.EXTERNAL), ("x1", "Deletes a note.", Effect.WRITE),
        ("weather", "", Effect.READ),
    ],
)  # fmt: skip
def test_what_a_tool_does_follows_from_its_words(name: str, about: str, effect: Effect) -> None:
    assert features_of(Tool(name, about)).effect is effect


def test_words_that_can_be_nouns_are_verbs_where_a_verb_stands() -> None:
    assert "mail" not in {*asked_verbs("Show my last mail"), *asked_verbs("the mail of Ann")}
    assert stem("email") in asked_verbs("Please email the list to Ann")
    assert stem("order") in asked_verbs("Look it up, then order two")
    assert stem("order") not in asked_verbs("Where is my order?")


@pytest.mark.parametrize(
    ("one", "other"), [("payees", "payee"), ("stories", "story"), ("boxes", "box"), ("sent", "sent")]
)
def test_forms_of_a_word_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_names_come_apart_whatever_their_style() -> None:
    assert split_name("EpicFHIRGetPatientDetails") == ["Epic", "FHIR", "Get", "Patient", "Details"]
    assert split_name("mail.send-e2e_now") == ["mail", "send", "e", "2", "e", "now"]


def test_arguments_are_sensitive_by_their_names() -> None:
    found = {
        leaf.path: leaf.kind for leaf in leaves_of({"to": ["a"], "webhookUrl": "b", "n": {"amount": 3, "text": "c"}})
    }
    assert found == {"to[0]": "recipient", "webhookUrl": "address", "n.amount": "account", "n.text": ""}
    assert kind_of("to[0]", frozenset({"to"})) == "named"
    assert kind_of("to[0]", frozenset({"cc"})) == ""
