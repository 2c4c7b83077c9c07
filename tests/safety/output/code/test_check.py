"""Insecure code in answers: found in blocks, with its place and what to do; constants pass; hostile text is bounded."""

import itertools
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.safety.code import FILE, measured, rows_of
from conclave.safety.api import Action, Severity
from conclave.safety.output.api import Excerpt, OutputRule
from conclave.safety.output.code.check import CodeCheck
from conclave.safety.output.code.languages import language_of
from conclave.safety.output.code.syntax import Limit, Source
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import judged

DATA = os.environ.get("CONCLAVE_DATA")
MOST_S = 3.0  # of the thread's own time for the worst of these texts; bash took 2 on a busy machine
BLOCK = Excerpt("import os\n\ndef f(host):\n    os.system('ping ' + host)\n", code=True, language="python")


def kinds(text: str, language: str) -> list[str]:
    return [one.kind for one in CodeCheck().inspect(Excerpt(text, code=True, language=language))]


def test_a_finding_covers_the_expression_and_says_what_to_do() -> None:
    (found,) = CodeCheck().inspect(BLOCK)
    assert BLOCK.text[found.start : found.end] == "os.system('ping ' + host)"
    assert (found.kind, found.severity, found.evidence) == ("code.py_shell_command", Severity.HIGH, "CWE-78")
    assert "subprocess.run" in found.remedy


def test_places_are_characters_whatever_stands_before() -> None:
    text = 'gruß = "日本語 🙂"\neval(gruß2)\n'
    (found,) = CodeCheck().inspect(Excerpt(text, code=True, language="python"))
    assert text[found.start : found.end] == "eval(gruß2)"


def test_prose_is_not_looked_at() -> None:
    assert CodeCheck().inspect(Excerpt("call eval(x) then", code=False)) == ()
    assert judged(Plan.of([OutputRule(CodeCheck())]), "Never call os.system('rm ' + x).")[0].spots == []


def test_a_fenced_block_is_found_in_an_answer_and_can_be_blocked() -> None:
    answer = f"Like this:\n\n```python\n{BLOCK.text}```\n"
    judging, shown = judged(Plan.of([OutputRule(CodeCheck(), Action.BLOCK)]), answer)
    assert judging.action is Action.BLOCK
    assert "system" not in shown


def test_what_can_be_put_right_is_put_right_where_policy_redacts() -> None:
    answer = "```python\nrequests.get(url, verify=False)\n```\n"
    shown = judged(Plan.of([OutputRule(CodeCheck(), Action.REDACT)]), answer)[1]
    assert "requests.get(url, verify=True)" in shown


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("CMD = 'ls'\nos.system(CMD + ' -l')", "python"),
        ("for c in ['ls', 'pwd']:\n    os.system(c)", "python"),
        ("cmds = {'a': 'ls'}\nos.system(cmds[name])", "python"),
        ("os.system('ls' if x else 'dir')", "python"),
        ("const c = 'ls';\nrequire('child_process').exec(`${c} -l`)", "javascript"),
        ('char *c = "ls"; system(c);', "c"),
        ('String t = "users"; st.executeQuery("SELECT * FROM " + t);', "java"),
    ],
    ids=["concatenated", "loop", "table", "choice", "template", "c", "java"],
)
def test_constants_are_no_finding_however_they_get_there(text: str, language: str) -> None:
    assert kinds(text, language) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f(c):\n    os.system(c)",
        "def f(c='ls'):\n    c = 'pwd'\n    os.system(c)",
        "from os import system as s\ns(x)",
        "import subprocess as sp\nsp.run(x, shell=True)",
        "def f(:\n    os.system('ls ' + x)\n  else)",
        '    the rest of a docstring.\n    """\n    os.system("ls " + x)',
    ],
    ids=["parameter", "default", "renamed", "module", "broken", "within-docstring"],
)
def test_a_command_line_is_found_however_it_is_written(text: str) -> None:
    assert len(kinds(text, "python")) == 1


def test_mild_findings_are_told_only_where_they_are_asked_for() -> None:
    excerpt = Excerpt("x = random.randint(1, 6)", code=True, language="python")
    assert CodeCheck().inspect(excerpt) == []
    assert [one.severity for one in CodeCheck(least=Severity.LOW).inspect(excerpt)] == [Severity.LOW]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("def f(x):\n    return x\n", "python"),
        ("const x = 1;\nconsole.log(x);", "javascript"),
        ("#include <stdio.h>\nint main() { return 0; }", "c"),
        ("#include <iostream>\nint main() { std::cout << 1; }", "cpp"),
        ("<?php echo 1;", "php"),
        ("package main\n\nfunc main() {}", "go"),
        ("fn main() {\n    let mut x = 1;\n}", "rust"),
        ("#!/bin/bash\necho hi", "bash"),
        ("just some words, and no code", ""),
    ],
    ids=["python", "javascript", "c", "cpp", "php", "go", "rust", "bash", "words"],
)
def test_a_block_without_a_word_is_guessed(text: str, language: str) -> None:
    assert language_of("", text) == language


def test_a_language_that_nobody_knows_is_left_alone() -> None:
    assert kinds("eval(x)", "brainfuck") == []


@pytest.mark.parametrize("language", ["python", "javascript", "tsx", "bash", "c", "cpp", "java", "php", "rust", ""])
@pytest.mark.parametrize(
    "text",
    [
        "(" * 65_000,
        "[{(" * 20_000,
        "a<" * 32_000,
        "if(a)" * 13_000,
        'f"{' * 20_000,
        "eval(" * 13_000,
        "\ud800" * 60_000,
    ],
    ids=["brackets", "mixed", "less", "ifs", "quotes", "evals", "surrogates"],
)
def test_hostile_text_takes_bounded_time(text: str, language: str) -> None:
    started_s = time.thread_time()
    with suppress(TimeoutError):  # the guard makes of it what policy says about a check that fails
        CodeCheck().inspect(Excerpt("eval(x);strcpy(a,b);eval $x\n" + text, code=True, language=language))
    assert time.thread_time() - started_s < MOST_S


def test_parsing_that_takes_too_long_says_so() -> None:
    seconds = itertools.count()

    def clock() -> float:
        return float(next(seconds))

    with pytest.raises(TimeoutError):
        Source("x = 1\n" * 5_000, "python", limit=Limit(wall_s=clock, own_s=clock))


def test_a_check_that_was_too_slow_is_taken_by_its_on_error() -> None:
    class Slow(CodeCheck):
        def inspect(self, excerpt: Excerpt) -> list[object]:
            raise TimeoutError

    judging, _ = judged(Plan.of([OutputRule(Slow(), Action.BLOCK)]), "```python\nx\n```\n")
    assert judging.action is Action.BLOCK
    judging, shown = judged(Plan.of([OutputRule(Slow(), Action.BLOCK, on_error="allow")]), "```python\nx\n```\n")
    assert (judging.action, shown) == (Action.ALLOW, "```python\nx\n```\n")


@pytest.mark.skipif(DATA is None, reason=f"CONCLAVE_DATA names no folder of {FILE}")
def test_of_the_labelled_rows_enough_are_found_and_hardly_any_wrongly() -> None:
    tally = measured(rows_of(Path(str(DATA))), CodeCheck(), minor=False, verbose=False)["all"]
    assert tally.found / tally.rows >= 0.8
    assert tally.right / (tally.right + tally.wrong) >= 0.95
