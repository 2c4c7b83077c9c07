import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

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


def test_an_unknown_command_is_a_usage_error() -> None:
    answer = CliRunner().invoke(main, ["swerve"])
    assert answer.exit_code == 2
    assert "swerve" in answer.output


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
