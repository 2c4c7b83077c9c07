"""The pool that a policy describes: each expert with its deployments, keys read from where the policy says they are.

Asks nobody anything: an expert that is down is found out by the first call to it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from conclave.gateway.experts.api import Expert
from conclave.gateway.experts.deployment import Deployment
from conclave.gateway.experts.egress import Refused
from conclave.gateway.experts.endpoint import TimeLimits
from conclave.gateway.experts.openai_http import HttpSessions, OpenAIExpert
from conclave.gateway.experts.pool import Pool, PoolEntry
from conclave.gateway.policy.document import DeploymentSettings, ExpertSettings, PolicyDocument

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from conclave.router.encoder import StaticEncoder


def configured(
    policy: PolicyDocument,
    environ: Mapping[str, str],
    sessions: HttpSessions,
    *,
    encoder: "StaticEncoder | None" = None,
) -> Pool:
    """The pool of a completed policy. Raises OSError or ValueError for a key that cannot be read or sent.

    `encoder` is the one that the router uses, to share it; without it, an expert that needs one reads its own.
    """
    return Pool(
        {
            name: PoolEntry(
                deployments=[Deployment("built-in", _encoder(name, encoder))]
                if expert.kind == "encoder"
                else _deployments(name, expert, environ, sessions),
                transport_retries=expert.transport_retries,
                failures_to_open=expert.breaker.failures,
                open_s=expert.breaker.open_s,
            )
            for name, expert in policy.experts.items()
        }
    )


def _deployments(
    name: str, expert: ExpertSettings, environ: Mapping[str, str], sessions: HttpSessions
) -> list[Deployment]:
    if expert.kind == "quoting":
        return [Deployment("built-in", _quoting(name, expert))]
    limits = TimeLimits(first_byte_s=expert.first_byte_s, plain_s=expert.plain_s, idle_s=expert.idle_s)
    found = []
    for number, place in enumerate(expert.resolved_deployments()):
        assert place.model  # noqa: S101  the policy was checked
        if expert.kind == "litellm":
            behind = _behind_litellm(name, place, _key(name, place, environ), sessions, limits=limits)
            where = urlsplit(place.base_url).netloc if place.base_url else place.model.partition("/")[0]
            found.append(Deployment(f"{number}:{where}", behind, place.weight))
            continue
        assert place.base_url  # noqa: S101  as above
        server = OpenAIExpert(
            name,
            place.base_url,
            place.model,
            api_key=_key(name, place, environ),
            session=_sessions_to(name, place.base_url, sessions),
            limits=limits,
            stream_usage=expert.stream_usage,
        )
        found.append(Deployment(f"{number}:{place.base_url.split('//')[1].split('/')[0]}", server, place.weight))
    return found


def _sessions_to(name: str, url: str, sessions: HttpSessions) -> "Callable[[], ClientSession]":
    try:
        return sessions.to(url)
    except Refused as error:
        raise ValueError(f"expert {name}: base_url: {error}") from error


def _encoder(name: str, encoder: "StaticEncoder | None") -> Expert:
    from conclave.gateway.experts.encoder import EncoderExpert, embed_with  # noqa: PLC0415  as below
    from conclave.router.encoder import StaticEncoder  # noqa: PLC0415  with numpy and a tokenizer, when there is one

    encoder = encoder or StaticEncoder.load()
    return EncoderExpert(name, embed_with(encoder), dimensions=encoder.dimensions)


def _behind_litellm(
    name: str, place: DeploymentSettings, api_key: str | None, sessions: HttpSessions, *, limits: TimeLimits
) -> Expert:
    from conclave.gateway.experts import litellm_expert  # noqa: PLC0415  when there is one
    from conclave.gateway.experts.litellm import runtime  # noqa: PLC0415  as above

    if not runtime.is_installed():
        raise ValueError(f"expert {name}: kind litellm needs litellm: {runtime.INSTALL}")
    if place.base_url:
        _sessions_to(name, place.base_url, sessions)
    return litellm_expert.LiteLLMExpert(
        name,
        place.model or "",
        runtime=runtime.shared(),
        sessions=sessions,
        api_key=api_key,
        base_url=place.base_url,
        params=place.params,
        limits=limits,
    )


def _quoting(name: str, expert: ExpertSettings) -> Expert:
    from conclave.gateway.experts.quoting import QuotingExpert  # noqa: PLC0415  with sqlite3, when there is one
    from conclave.retrieval import docs  # noqa: PLC0415  as above

    store = docs.load_docs()
    if expert.documents is not None:
        docs.index_folder(store, expert.documents)
    return QuotingExpert(name, store)


def _key(name: str, place: DeploymentSettings, environ: Mapping[str, str]) -> str | None:
    if place.api_key_file is not None:
        try:
            key = place.api_key_file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise OSError(f"expert {name}: api_key_file {place.api_key_file}: {error.strerror}") from error
        where = f"api_key_file {place.api_key_file}"
    elif place.api_key_env is not None:
        key, where = environ.get(place.api_key_env, "").strip(), f"api_key_env {place.api_key_env}"
    else:
        return None
    if key and not (key.isascii() and key.isprintable()):
        raise ValueError(f"expert {name}: {where} must hold one line of printable ASCII, the key and nothing else")
    return key or None
