"""Feedback, what shadows would have chosen, and the arm of an A/B test."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_rows", sa.Column("arm", sa.String(64)))
    op.create_table(
        "feedback",
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("key_id", sa.String(32)),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("label", sa.String(64)),
        sa.Column("chain", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_feedback"),
    )
    op.create_index("ix_feedback_time", "feedback", ["time"])
    op.create_table(
        "shadow_choices",
        sa.Column("chain", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("shadow", sa.String(64), nullable=False),
        sa.Column("trial", sa.String(32), nullable=False),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("category", sa.String(200), nullable=False),
        sa.Column("expert", sa.String(200), nullable=False),
        sa.Column("other", sa.String(200)),
        sa.Column("score", sa.Float),
        sa.Column("other_score", sa.Float),
        sa.Column("cost_usd", sa.Float),
        sa.Column("other_cost_usd", sa.Float),
        sa.PrimaryKeyConstraint("chain", "seq", "shadow", name="pk_shadow_choices"),
    )
    op.create_index("ix_shadow_choices_shadow_time", "shadow_choices", ["shadow", "time"])
