"""Whose call it was: asked by who wants to say something of a call that is over. It knows ids and tenants, no more.

The newest calls of this process are known before the audit table has them; all others are looked up there, which lags
the record by about a second.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from conclave.gateway.errors import Unavailable
from conclave.gateway.state.apart import apart

if TYPE_CHECKING:
    from conclave.gateway.state.sql import Database

LOOK_UPS: Final = 8  # at once; the others wait
LIMIT_S: Final = 5.0  # of one, and of the wait for it


class KnownCalls:
    """`recent` says whose a call was that this process has recorded just now; None if it does not know."""

    def __init__(self, database: "Database", recent: Callable[[str], str | None]) -> None:
        self._database = database
        self._recent = recent
        self._turns = asyncio.Semaphore(LOOK_UPS)

    async def tenant_of(self, request_id: str) -> str | None:
        """The tenant of a recorded call; None if there is no such call. Raises Unavailable."""
        if (known := self._recent(request_id)) is not None:
            return known
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  0.4 s, and loaded by now

        try:
            async with asyncio.timeout(LIMIT_S), self._turns:
                return await apart(partial(self._look_up, request_id), name="calls")
        except (TimeoutError, SQLAlchemyError) as error:
            raise Unavailable("the state database does not answer", retry_after_s=LIMIT_S) from error

    def _look_up(self, request_id: str) -> str | None:
        from sqlalchemy import select  # noqa: PLC0415  as above

        from conclave.gateway.state.tables import audit_rows  # noqa: PLC0415

        at = audit_rows.c
        with self._database.read() as connection:
            statement = select(at.tenant).where(at.request_id == request_id, at.kind == "call").limit(1)
            tenant = connection.execute(statement).scalar()
            return None if tenant is None else str(tenant)
