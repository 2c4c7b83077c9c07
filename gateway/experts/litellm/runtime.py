"""The one litellm of this process: imported in a thread, right after the start or by the first call that needs it.

Decides what litellm may do by itself: nothing. No table is fetched, no picture of a client's is downloaded, no `.env`
is read, nothing is retried, printed, logged or reported, and no connection is its own (`transport`).
Importing takes 4 s of CPU and 145 MB, so the event loop never does it.
"""

import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Final

import structlog

from conclave.gateway.errors import ExpertFailed

INSTALL: Final = "make install EXTRAS=providers"
ENVIRONMENT: Final = {  # read by litellm when it is imported
    "LITELLM_MODE": "PRODUCTION",  # else it reads .env files
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches the price table
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOG": "CRITICAL",
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",  # else a client's picture URL makes the gateway ask any address for it
}
QUIET: Final[dict[str, Any]] = {
    "telemetry": False,
    "set_verbose": False,
    "suppress_debug_info": True,  # its hints are printed to stdout
    "turn_off_message_logging": True,
    "disable_streaming_logging": True,
    "num_retries": 0,  # the pool retries
    "drop_params": False,  # what a provider cannot do is said, not dropped
    "modify_params": False,
    "cache": None,
}
CALLBACKS: Final = ("callbacks", "input_callback", "success_callback", "failure_callback", "service_callback")
LOGGERS: Final = (  # they write prompts and addresses, some of them already at `info`
    *("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"),
    *("openai", "httpx", "httpcore", "boto3", "botocore", "urllib3"),
)
SILENT: Final = logging.CRITICAL + 1

log = structlog.get_logger()


def is_installed() -> bool:
    """Whether the extra `providers` is there; imports nothing."""
    return importlib.util.find_spec("litellm") is not None


class Runtime:
    """Gives litellm to the experts that need it; all of them share one, and the first makes the others wait."""

    def __init__(self, loads: Callable[[], ModuleType] | None = None) -> None:
        self._loads = loads or load
        self._module: ModuleType | None = None
        self._loading: asyncio.Task[ModuleType] | None = None

    async def litellm(self) -> ModuleType:
        """litellm, ready for use. Raises ExpertFailed if it cannot be imported."""
        if self._module is None:
            try:
                self._module = await asyncio.shield(self.begin())
            except ImportError as error:
                self._loading = None
                log.error("expert.litellm_missing", install=INSTALL, reason=type(error).__name__)
                raise ExpertFailed("the expert's provider library is not installed", kind="connect") from error
        return self._module

    def begin(self) -> "asyncio.Task[ModuleType]":
        """Begin to import it, where that was not done yet: so that no call has to wait for it."""
        if self._loading is None or self._loading.get_loop() is not asyncio.get_running_loop():
            self._loading = asyncio.create_task(asyncio.to_thread(self._loads), name="import-litellm")
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # the first call says it
        return self._loading


@cache
def shared() -> Runtime:
    """The process's own, for every expert of every version of the policy."""
    return Runtime()


def load() -> ModuleType:
    """Import litellm and switch off what it does by itself. Blocks for seconds, the first time."""
    from conclave.gateway.experts.litellm.rehearsal import rehearse  # noqa: PLC0415  it needs what this page loads
    from conclave.gateway.experts.litellm.transport import install  # noqa: PLC0415  as above

    os.environ.update(ENVIRONMENT)
    with warnings.catch_warnings(), _without_collections():
        warnings.simplefilter("ignore")  # its own deprecations say nothing to an operator
        litellm = importlib.import_module("litellm")
        _hush(litellm)
        install(litellm)
        rehearse(litellm)
    return litellm


@contextmanager
def _without_collections() -> Iterator[None]:
    """What is made within stays for good, so no collection looks at it: each would stop the event loop, too."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _hush(litellm: ModuleType) -> None:
    for name, value in QUIET.items():
        setattr(litellm, name, value)
    for name in CALLBACKS:
        setattr(litellm, name, [])
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(SILENT)  # a level, unlike `disabled`, holds for the loggers below it, too
