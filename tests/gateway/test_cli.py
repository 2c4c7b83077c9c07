import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from conclave.gateway.cli import COMMANDS, LazyGroup, main
from conclave.gateway.state.sql import Database
from conclave.gateway.state.tables import REVISION
from conclave.safety.audit.keys import KEY_FILE, SigningKey

HEAVY = ("sqlalchemy", "fastapi", "pydantic", "structlog", "uvicorn", "numpy", "msgspec", "cryptography")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_is_listed_can_be_run(name: str) -> None:
    command = LazyGroup().get_command(click.Context(main), name)
    assert isinstance(command, click.Command)
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_docs(name: str) -> None:
    docs = Path(__file__).parents[2] / "docs"
    pages = (page.read_text() for page in docs.rglob("*.md"))
    assert any(f"conclave {name}" in page for page in pages)


@pytest.mark.parametrize(
    ("written", "words"),
    [("swerve", "'swerve'. Did you mean 'serve'?"), ("knowlege", "Did you mean 'knowledge'?"), ("zzz", "'zzz'.\n")],
)
def test_an_unknown_command_is_a_usage_error(written: str, words: str) -> None:
    answer = CliRunner().invoke(main, [written])
    assert (answer.exit_code, words in answer.output) == (2, True), answer.output


def test_the_version_is_an_option_too() -> None:
    said = [CliRunner().invoke(main, [one]) for one in ("version", "--version")]
    assert (said[0].output, said[0].exit_code) == (said[1].output, said[1].exit_code)


def test_help_lists_the_commands_without_importing_them() -> None:
    """What makes `conclave --help` quick: only click is imported."""
    script = (
        "import sys; from conclave.gateway.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr.strip() == "[]"
    assert all(name in ran.stdout for name in COMMANDS)


def test_migrate_brings_the_database_up_to_date_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE__SERVER__STATE_DIR", str(tmp_path))
    first = CliRunner().invoke(main, ["migrate", "--config", "/dev/null"])
    assert (first.exit_code, f"new -> {REVISION}" in first.output) == (0, True), first.output
    second = CliRunner().invoke(main, ["migrate", "--config", "/dev/null"])
    assert f"at {REVISION} already" in second.output
    database = Database.of(None, tmp_path)
    assert database.revision() == REVISION
    database.close()


def test_a_configuration_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    config = tmp_path / "conclave.yaml"
    config.write_text("server:\n  prot: 8080\n")
    ran = CliRunner().invoke(main, ["serve", "--config", str(config)])
    assert ran.exit_code == 1
    assert "prot" in ran.output
    assert "Traceback" not in ran.output


def test_audit_verify_asks_the_table_through_the_mounted_command(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "keys").mkdir()
    SigningKey.open(tmp_path / KEY_FILE)
    verify = ["audit", "--state-dir", str(tmp_path), "verify", "--table"]
    Database.of(None, tmp_path).open().close()
    good = CliRunner().invoke(main, [*verify, f"sqlite:///{tmp_path / 'conclave.db'}"])
    assert good.exit_code == 0, good.output
    bad = CliRunner().invoke(main, [*verify, "mysql://x/y"])
    assert (bad.exit_code, "not" in bad.output) == (1, True)


def test_audit_prune_takes_the_policys_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conclave.yaml").write_text("policy:\n  audit:\n    keep_days: 30\n")
    (tmp_path / "journal").mkdir()
    SigningKey.open(tmp_path / KEY_FILE)
    prune = ["audit", "--state-dir", str(tmp_path), "prune"]
    monkeypatch.setenv("CONCLAVE_CONFIG", "/dev/null")
    assert "--keep-days" in CliRunner().invoke(main, prune).output
    monkeypatch.setenv("CONCLAVE_CONFIG", str(tmp_path / "conclave.yaml"))
    pruned = CliRunner().invoke(main, prune)
    assert pruned.exit_code == 0, pruned.output


@contextmanager
def counting_server() -> Iterator[tuple[str, list[str]]]:
    """A server that lists one model, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": [{"id": "m"}]}')

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1", asked
        http.shutdown()
        thread.join()


def test_audit_prune_asks_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the policy names no expert, so that `serve` would look for some."""
    (tmp_path / "journal").mkdir()
    SigningKey.open(tmp_path / KEY_FILE)
    (tmp_path / "conclave.yaml").write_text("policy:\n  audit:\n    keep_days: 30\n")
    monkeypatch.setenv("CONCLAVE_CONFIG", str(tmp_path / "conclave.yaml"))
    with counting_server() as (url, asked):
        monkeypatch.setenv("VLLM_BASE_URL", url)
        pruned = CliRunner().invoke(main, ["audit", "--state-dir", str(tmp_path), "prune"])
        assert (pruned.exit_code, asked) == (0, []), pruned.output


@pytest.mark.parametrize(
    "file",
    ["policy: {audit: {keep_days: 30, keep_days: 3}}", "policy: {audit: {keep_days: 0}}", "policy: [", "policy: 3"],
    ids=["twice", "out of range", "no YAML", "no mapping"],
)
def test_a_policy_with_a_mistake_prunes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    (tmp_path / "conclave.yaml").write_text(file)
    (tmp_path / "journal").mkdir()
    monkeypatch.setenv("CONCLAVE_CONFIG", str(tmp_path / "conclave.yaml"))
    ran = CliRunner().invoke(main, ["audit", "--state-dir", str(tmp_path), "prune"])
    assert (ran.exit_code, "$CONCLAVE_CONFIG" in ran.output) == (2, True), ran.output


@pytest.mark.parametrize("change", ["damaged", "newer"])
def test_migrating_what_cannot_be_migrated_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("CONCLAVE__SERVER__STATE_DIR", str(tmp_path))
    if change == "damaged":
        (tmp_path / "conclave.db").write_bytes(b"not a database" * 100)
    else:
        database = Database.of(None, tmp_path).open()
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        database.close()
    ran = CliRunner().invoke(main, ["migrate", "--config", "/dev/null"])
    assert ran.exit_code == 1
    assert ran.output.startswith("Error: ")
    assert ran.output.count("\n") == 1
    assert ("newer Conclave" if change == "newer" else "cannot open the state database") in ran.output


def serve(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conclave.gateway.cli", "serve", "--config", "/dev/null", *arguments]
    env = {"PATH": "/usr/bin:/bin", "CONCLAVE__SERVER__STATE_DIR": str(state)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def test_a_taken_port_is_one_clear_line_and_exit_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = serve(tmp_path, "--port", str(taken.getsockname()[1]), "--admin-port", "0")
    assert ran.returncode == 1
    assert "is in use by another program" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_option_for_the_state_folder_stands_above_the_variable(tmp_path: Path) -> None:
    (tmp_path / "named" / "keys").mkdir(parents=True)
    (tmp_path / "named" / "keys" / "api_key_pepper").write_bytes(b"short")
    ran = serve(tmp_path / "variable", "--state-dir", str(tmp_path / "named"), "--port", "0", "--admin-port", "0")
    assert (ran.returncode, str(tmp_path / "named" / "keys") in ran.stderr) == (1, True), ran.stderr
    assert not (tmp_path / "variable").exists()


def test_a_public_address_without_a_key_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    ran = serve(tmp_path, "--host", "0.0.0.0", "--port", "0", "--admin-port", "0")  # noqa: S104  must be refused
    assert ran.returncode == 1
    assert "conclave keys create" in ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout


def test_a_state_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "conclave.db").write_bytes(b"not a database" * 100)
    ran = serve(tmp_path, "--port", "0", "--admin-port", "0")
    assert ran.returncode == 1
    assert "cannot open the state database" in ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("", b"", "server.state_dir"),
        ("keys/api_key_pepper", b"short", "api_key_pepper does not hold 32 bytes"),
        ("keys/audit_ed25519", b"no key", "cannot start"),
    ],
    ids=["no folder", "short pepper", "bad signing key"],
)
def test_a_state_folder_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, file: str, content: bytes, said: str
) -> None:
    state = tmp_path / "state"
    place = state / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    ran = serve(state, "--port", "0", "--admin-port", "0")
    assert (ran.returncode, said in ran.stderr, ran.stderr.count("\n")) == (1, True, 1), ran.stderr
    assert str(state) in ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout


def test_a_key_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "conclave.yaml"
    expert = "{model: m, base_url: 'http://127.0.0.1:1/v1', api_key_file: /no/such/key}"
    config.write_text(f"policy: {{experts: {{fast: {expert}}}}}")
    ran = serve(tmp_path / "state", "--config", str(config), "--port", "0", "--admin-port", "0")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert "expert fast: api_key_file /no/such/key: No such file or directory" in ran.stderr
