"""The tables of the state database, for SQLite and PostgreSQL alike. Changing one means adding a migration.

Times of keys are whole seconds since the epoch; times of audit rows and policy versions are ISO 8601 text in UTC, which
sorts as it reads.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

REVISION: Final = "0005"  # the newest migration; a test compares it with the folder

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False),  # keyed BLAKE2b of the whole key, in hex
    Column("tenant", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("experts", Text),  # a JSON list of names; NULL reaches all
    Column("created_at_s", BigInteger, nullable=False),
    Column("expires_at_s", BigInteger),
    Column("revoked_at_s", BigInteger),
    Column("successor", String(32)),  # the key that took its place when it was rotated
    Column("scopes", Text),  # a JSON list of the policy's scopes; NULL: bound to none
)

changes: Final = Table(  # a number that grows with each change of a topic: cheap to poll, needs no clock
    "changes",
    metadata,
    Column("topic", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

audit_rows: Final = Table(  # a copy of the journal to query; the journal's chains are what proves anything
    "audit_rows",
    metadata,
    Column("chain", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("time", String(40), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("request_id", String(64)),
    Column("tenant", String(200)),
    Column("key_id", String(32)),
    Column("ending", String(64)),
    Column("status", Integer),
    Column("expert", String(200)),
    Column("category", String(200)),
    Column("stream", Integer),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("duration_ms", Float),
    Column("row", Text, nullable=False),
    Column("arm", String(64)),  # of an A/B test
    Index("ix_audit_rows_time", "time"),
    Index("ix_audit_rows_tenant_time", "tenant", "time"),
    Index("ix_audit_rows_request_id", "request_id"),
)

follower_positions: Final = (
    Table(  # how far a follower has read each chain; a row deleted from audit_rows does not come back
        "follower_positions",
        metadata,
        Column("follower", String(64), primary_key=True),
        Column("chain", String(64), primary_key=True),
        Column("seq", BigInteger, nullable=False),
    )
)

policy_versions: Final = Table(  # the newest is in force; rows are added, never changed but for `filed`
    "policy_versions",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of `document`
    Column("document", Text, nullable=False),  # canonical JSON
    Column("origin", String(16), nullable=False),  # file, rollback, publish
    Column("source", Text, nullable=False),
    Column("author", String(200)),
    Column("time", String(40), nullable=False),
    Column("filed", Integer),  # 1: a file said this, when it was made or while it was the newest
)

feedback: Final = Table(  # what callers said of an answer: of each call the last word, by `time`, then chain and seq
    "feedback",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("key_id", String(32)),
    Column("time", String(40), nullable=False),
    Column("score", Float, nullable=False),  # 0..1
    Column("label", String(64)),
    Column("chain", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Index("ix_feedback_time", "time"),
)

shadow_choices: Final = Table(  # what a shadow of the policy would have chosen for a call, beside what was chosen
    "shadow_choices",
    metadata,
    Column("chain", String(64), primary_key=True),  # of the call's row
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("shadow", String(64), primary_key=True),
    Column("trial", String(32), nullable=False),  # digest of both ways to choose: rows with another are not comparable
    Column("time", String(40), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("category", String(200), nullable=False),
    Column("expert", String(200), nullable=False),
    Column("other", String(200)),  # the shadow's expert; NULL if it found none
    Column("score", Float),  # expected, 0..1; NULL where the policy knows none for both
    Column("other_score", Float),
    Column("cost_usd", Float),  # of the call's tokens at each expert's prices; NULL where one is unknown
    Column("other_cost_usd", Float),
    Index("ix_shadow_choices_shadow_time", "shadow", "time"),
)
