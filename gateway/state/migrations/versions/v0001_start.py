"""Keys, change numbers, audit rows and follower positions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("experts", sa.Text),
        sa.Column("created_at_s", sa.BigInteger, nullable=False),
        sa.Column("expires_at_s", sa.BigInteger),
        sa.Column("revoked_at_s", sa.BigInteger),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
    )
    op.create_table(
        "changes",
        sa.Column("topic", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic", name="pk_changes"),
    )
    op.create_table(
        "audit_rows",
        sa.Column("chain", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.Column("tenant", sa.String(200)),
        sa.Column("key_id", sa.String(32)),
        sa.Column("ending", sa.String(64)),
        sa.Column("status", sa.Integer),
        sa.Column("expert", sa.String(200)),
        sa.Column("category", sa.String(200)),
        sa.Column("stream", sa.Integer),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("duration_ms", sa.Float),
        sa.Column("row", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("chain", "seq", name="pk_audit_rows"),
    )
    op.create_index("ix_audit_rows_time", "audit_rows", ["time"])
    op.create_index("ix_audit_rows_tenant_time", "audit_rows", ["tenant", "time"])
    op.create_index("ix_audit_rows_request_id", "audit_rows", ["request_id"])
    op.create_table(
        "follower_positions",
        sa.Column("follower", sa.String(64), nullable=False),
        sa.Column("chain", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("follower", "chain", name="pk_follower_positions"),
    )
