"""The metrics, and the command that prints them."""

import math
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from conclave.gateway.cli import main
from conclave.retrieval.benchmark import CorpusError, metrics, read_corpus


def write(folder: Path, *, corpus: str, queries: str, qrels: str) -> Path:
    (folder / "qrels").mkdir()
    (folder / "corpus.jsonl").write_text(corpus)
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    texts = {"d1": "The cat sleeps on the sofa.", "d2": "Trains run on rails.", "d3": "Bread is baked in an oven."}
    return write(
        tmp_path,
        corpus="\n".join(f'{{"_id": "{name}", "title": "", "text": "{text}"}}' for name, text in texts.items()),
        queries='{"_id": "q1", "text": "sleeping cat"}\n{"_id": "q2", "text": "baked bread"}\n',
        qrels="query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td3\t2\nq2\td2\t0\n",
    )


@pytest.mark.parametrize(
    ("found", "ndcg", "recall", "mrr"),
    [
        (["a", "b"], 1.0, 1.0, 1.0),
        (["b", "a"], (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3)), 1.0, 1.0),
        (["x", "a"], (2 / math.log2(3)) / (2 + 1 / math.log2(3)), 0.5, 0.5),
        (["x"] * 10 + ["a"], 0.0, 0.0, 0.0),
        ([], 0.0, 0.0, 0.0),
    ],
)
def test_metrics_are_those_of_trec_eval(found: list[str], ndcg: float, recall: float, mrr: float) -> None:
    said = metrics(found, {"a": 2, "b": 1, "c": 0})
    assert said["nDCG@10"] == pytest.approx(ndcg)
    assert (said["recall@10"], said["MRR@10"]) == (recall, mrr)


def test_the_command_measures_three_ways(corpus: Path) -> None:
    ran = CliRunner().invoke(main, ["retrieval", "benchmark", str(corpus), "--json"])
    assert ran.exit_code == 0, ran.output
    found = msgspec.json.decode(ran.stdout)
    assert set(found) == {"meaning", "words", "hybrid"}
    assert found["words"]["metrics"]["nDCG@10"]["mean"] == 1.0
    assert found["hybrid"]["queries"] == 2
    told = CliRunner().invoke(main, ["retrieval", "benchmark", str(corpus)])
    assert "3 documents, 2 queries" in told.stdout


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("corpus.jsonl", "{", "corpus.jsonl, line 1"),
        ("queries.jsonl", '{"text": "no id"}', "queries.jsonl, line 1"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1 d1 1\n", "test.tsv, line 2"),
        ("qrels/test.tsv", "q9\td1\t1\n", "no query with a relevant document"),
    ],
)
def test_files_that_are_no_corpus_are_refused(corpus: Path, file: str, text: str, said: str) -> None:
    (corpus / file).write_text(text)
    with pytest.raises(CorpusError, match=said):
        read_corpus(corpus)
    ran = CliRunner().invoke(main, ["retrieval", "benchmark", str(corpus)])
    assert ran.exit_code == 1
    assert said in ran.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["retrieval", "benchmark", str(tmp_path)])
    assert ran.exit_code == 1
    assert "corpus.jsonl is not there" in ran.stderr
