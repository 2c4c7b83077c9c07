"""The commands `conclave moe ...`: they start the local expert, and load torch only for that."""

import ipaddress
import json
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conclave.moe.adapt import Adapted
    from conclave.moe.checkpoint import Checkpoint
    from conclave.moe.engine import Engine
    from conclave.moe.offer import Offer
    from conclave.moe.routing import Policy, Tensor

KEY: Final = "CONCLAVE_MOE_API_KEY"
GRACE_S: Final = 10  # running answers may end after SIGTERM
LARGE_WEIGHTS: Final = (
    1_000_000  # of one expert: below, compiling loops costs more than they save (the tiny model's: 36,864)
)
EXTRA: Final = "the local expert needs the extra `moe`: make install EXTRAS=moe"


@dataclass(frozen=True, slots=True)
class Served:
    """What `conclave moe serve` was asked for."""

    model: Path | None
    digest: str | None
    name: str | None
    policy: str | None
    offered: tuple[str, ...]
    experts_max: int | None
    sequences: int
    kv_tokens: int | None
    waiting: int
    answer_tokens: int
    deadline_s: float
    device: str | None
    dtype: str
    experts: str
    int8: bool
    threads: int


@click.group()
def moe() -> None:
    """The local expert: a mixture-of-experts model that runs here."""


@moe.command()
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help=f"Anything but loopback needs ${KEY}.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0: any free one.")
@click.option("--digest", help="Refuse the model unless its files have this SHA-256 (printed at each start).")
@click.option("--name", help="The model's name in requests; else that of its folder.")
@click.option("--policy", help='Routing for calls that name none: a name, or JSON such as {"name": "topp", "p": 0.5}; '
              "else what was saved beside the model, else as it came.")  # fmt: skip
@click.option("--offer", "offered", multiple=True, default=("topk", "topp"), show_default=True,
              help="A routing policy that calls may ask for; may be given again.")  # fmt: skip
@click.option("--experts-max", type=click.IntRange(1), help="The most experts of a token; else as the model came.")
@click.option("--sequences", type=click.IntRange(1, 256), default=4, show_default=True, help="Calls that run at once.")
@click.option("--kv-tokens", type=click.IntRange(2), help="Tokens of cache for all; else the context for each call.")
@click.option("--waiting", type=click.IntRange(0), default=32, show_default=True, help="Calls that may wait for room.")
@click.option("--answer-tokens", type=click.IntRange(1), default=512, show_default=True,
              help="The longest answer to a call that does not say.")  # fmt: skip
@click.option("--deadline-s", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True,
              help="The longest that a call may take.")  # fmt: skip
@click.option("--device", help="cpu, cuda, cuda:1, ...; else cuda where there is one.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto",
              show_default=True, help="auto: as the weights are.")  # fmt: skip
@click.option("--experts", type=click.Choice(["auto", "conclave", "grouped_mm", "eager"]), default="auto",
              show_default=True, help="What computes experts; auto: conclave on a GPU, or large ones.")  # fmt: skip
@click.option(
    "--int8", is_flag=True, help="8-bit expert weights to decode with on a CPU, by conclave; changes answers."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads of one product.")
def serve(host: str, port: int, **options: Any) -> None:
    """Serve MODEL, the folder of a Hugging Face checkpoint, as an OpenAI-compatible expert; without it the tiny one."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")  # before transformers reads them
    served = Served(**options)
    key = os.environ.get(KEY) or None
    if key is None and not _is_loopback(host):
        raise click.ClickException(f"{host} can be reached from elsewhere; set a key in ${KEY}, or use 127.0.0.1")
    try:
        import torch  # noqa: F401, PLC0415  2 s, and missing without the extra
        import transformers  # noqa: F401, PLC0415  as above
    except ImportError as missing:
        raise click.ClickException(f"{EXTRA} ({missing})") from None
    with _bound(host, port) as sock:
        _run(served, host, sock, key)


def _run(served: Served, host: str, sock: socket.socket, key: str | None) -> None:
    import structlog  # noqa: PLC0415  keeps `--help` fast
    import torch  # noqa: PLC0415
    import uvicorn  # noqa: PLC0415

    from conclave.moe.checkpoint import CheckpointRefused  # noqa: PLC0415
    from conclave.moe.server import Face, create_app  # noqa: PLC0415

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )
    torch.set_num_threads(served.threads)
    try:
        checkpoint, make, offer = _prepared(served)
    except (CheckpointRefused, ValueError) as wrong:
        raise click.ClickException(" ".join(str(wrong).split())) from None
    except (MemoryError, RuntimeError, AssertionError) as wrong:  # as torch says no memory, no such device, no CUDA
        raise click.ClickException(f"the model cannot be loaded: {' '.join(str(wrong).split())[:300]}") from None
    from conclave.moe.routing import POLICIES  # noqa: PLC0415

    policy = json.dumps(POLICIES.settings(offer.policy))
    face = Face(served.name or checkpoint.folder.resolve().name, checkpoint.digest, policy, key)
    url = f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"
    click.echo(f"The local expert {face.model!r} serves {url}/v1 (digest {face.digest}).", err=True)
    click.echo(f"  routing: {policy}, at most {offer.experts_max} experts a token", err=True)
    config = uvicorn.Config(
        create_app(make, face), log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S, lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[sock])


def _bound(host: str, port: int) -> socket.socket:
    """The port, taken before the model is loaded; nobody can connect before it serves."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as wrong:
        sock.close()
        raise click.ClickException(f"{host} port {port} cannot be used: {wrong.strerror or wrong}") from None
    return sock


def _prepared(served: Served) -> "tuple[Checkpoint, Any, Offer]":
    """The loaded model, and what builds the engine on it. Raises ValueError that says what cannot be served."""
    import torch  # noqa: PLC0415  as above
    from transformers.utils import logging as hf_logging  # noqa: PLC0415

    from conclave.kernels.dispatch import NAME, prepare_model, register  # noqa: PLC0415
    from conclave.moe.adapt import adapt  # noqa: PLC0415
    from conclave.moe.checkpoint import TINY, load  # noqa: PLC0415
    from conclave.moe.engine import Engine, EngineLimits, check_chats  # noqa: PLC0415
    from conclave.moe.offer import Offer  # noqa: PLC0415
    from conclave.moe.turns import RoomSize  # noqa: PLC0415

    if served.int8 and served.experts not in {"auto", NAME}:
        raise ValueError(f"--int8 weights are read by `conclave` alone; leave --experts {served.experts} out")
    hf_logging.set_verbosity_error()  # what is wrong with a checkpoint is said in one line, ours
    if not sys.stderr.isatty():
        hf_logging.disable_progress_bar()
    device = served.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = "auto" if served.dtype == "auto" else getattr(torch, served.dtype)
    checkpoint = load(served.model or TINY, expected=served.digest, dtype=dtype)
    check_chats(checkpoint)
    adapted = adapt(checkpoint.model)
    policy, rows = _routing(served, checkpoint.folder)
    offer = Offer.of(adapted, policy=policy, names=frozenset(served.offered), experts_max=served.experts_max)
    checkpoint.model.to(device)
    register()
    large = checkpoint.model.device.type != "cpu" or _expert_weights(adapted) >= LARGE_WEIGHTS or served.int8
    checkpoint.model.set_experts_implementation(
        served.experts if served.experts != "auto" else NAME if large else "grouped_mm"
    )
    if served.int8:
        prepare_model(checkpoint.model, int8=True)
    with adapted.installed(offer.policy, rows=rows):
        _warm(checkpoint)
    context = int(checkpoint.model.config.max_position_embeddings)
    room = RoomSize(served.sequences, served.kv_tokens or served.sequences * context, served.waiting)
    limits = EngineLimits(room, served.answer_tokens, served.deadline_s)

    def make() -> "Engine":
        return Engine(checkpoint, adapted, offer, limits, rows=rows)

    return checkpoint, make, offer


def _routing(served: Served, folder: Path) -> "tuple[Policy | None, Mapping[str, Tensor] | None]":
    """The policy that was asked for, or else stands beside the model, and its rows in the gates. Raises ValueError."""
    from conclave.moe.adapt import WEIGHTS_FILE, saved  # noqa: PLC0415  as above
    from conclave.moe.routing import POLICIES  # noqa: PLC0415

    beside = saved(folder)
    policy = POLICIES.make(_policy(served.policy)) if served.policy else beside.policy if beside else None
    if policy is None or not policy.null_experts:
        return policy, None
    if beside is None:
        raise ValueError(
            f"null experts need the gate rows that they were fine-tuned with; {folder} has no {WEIGHTS_FILE}"
        )
    return policy, beside.rows


def _warm(checkpoint: "Checkpoint") -> None:
    """A prompt and two tokens: what is compiled for them (10 s for `conclave` on a CPU) is so before the first call."""
    import torch  # noqa: PLC0415  as above

    ids = torch.zeros((1, 8), dtype=torch.int64, device=checkpoint.model.device)
    mask = torch.ones_like(ids)
    checkpoint.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=2, min_new_tokens=2, do_sample=False)


def _expert_weights(adapted: "Adapted") -> int:
    layer = adapted.layers[0]
    return sum(int(weights.numel()) for weights in layer.experts.parameters()) // layer.width


def _policy(text: str) -> dict[str, Any] | str:
    if not text.lstrip().startswith("{"):
        return text
    try:
        settings: dict[str, Any] = json.loads(text)
    except ValueError as wrong:
        raise ValueError(f"--policy is no JSON: {wrong}") from None
    return settings


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
