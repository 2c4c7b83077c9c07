"""The container: docker-compose takes compose.yaml, which keeps its locks, and the Dockerfile has all rooms."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "compose.yaml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text().splitlines()
ROOMS = ("gateway", "router", "safety", "retrieval", "moe", "kernels")


def every_option_on() -> str:
    """compose.yaml with its single-# lines switched on, the second `command` in place of the first."""
    on = re.sub(r"^( *)# ", r"\1", COMPOSE, flags=re.MULTILINE)
    return on.replace('    command: ["serve", "--host", "0.0.0.0"]\n', "")


def gateway(text: str) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(text)["services"]["gateway"]
    return service


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose (Debian's will do)")
@pytest.mark.parametrize("text", [COMPOSE, every_option_on()], ids=["as it is", "every option on"])
def test_docker_compose_takes_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    command = ["docker-compose", "-f", "compose.yaml", "config", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose (Debian's will do)")
def test_docker_compose_finds_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace("read_only: true", "readonly: true"))
    command = ["docker-compose", "-f", "compose.yaml", "config", "-q"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("text", [COMPOSE, every_option_on()], ids=["as it is", "every option on"])
def test_the_service_keeps_its_locks(text: str) -> None:
    service = gateway(text)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "10001:10001"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert not [name for name in service["environment"] if "KEY" in name]  # secrets are files


def test_health_is_asked_the_same_way_in_both_files() -> None:
    asked = gateway(COMPOSE)["healthcheck"]["test"][-1]
    assert "/readyz" in asked
    assert asked in DOCKERFILE


def test_the_image_runs_as_nobody_in_particular() -> None:
    last_stage = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last_stage, flags=re.MULTILINE)


def test_the_extras_that_the_image_may_have_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = gateway(every_option_on())["build"]["args"]["EXTRAS"].split(",")
    assert set(named) <= project["optional-dependencies"].keys()
    assert re.search(r"^ARG EXTRAS=$", DOCKERFILE, flags=re.MULTILINE)


@pytest.mark.parametrize(("extras", "asked"), [("", ""), ("providers,otlp", "[providers,otlp]")], ids=["lean", "two"])
def test_the_image_installs_the_wheel_with_the_extras(tmp_path: Path, extras: str, asked: str) -> None:
    """The word of the Dockerfile's line, as a shell makes it."""
    wheel = tmp_path / "conclave_gateway-0.1.0-py3-none-any.whl"
    wheel.touch()
    (word,) = re.findall(r'^ +("\$\(ls /wheels/.+")$', DOCKERFILE, flags=re.MULTILINE)
    word = word.replace("/wheels", str(tmp_path))
    done = subprocess.run(
        ["/bin/sh", "-c", f"echo {word}"],
        env={"PATH": "/usr/bin:/bin", "EXTRAS": extras},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"{wheel}{asked}"


def test_dockerfile_and_dockerignore_know_the_same_files() -> None:
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
        for name in line.split()
    }
    assert copied == {line[1:] for line in IGNORE if line.startswith("!")}
    assert set(ROOMS) < copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_version_is_the_projects() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert version is not None
    assert gateway(COMPOSE)["image"] == f"conclave-gateway:{version[1]}"
