"""Policy versions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_versions",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("author", sa.String(200)),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("filed", sa.Integer),
        sa.PrimaryKeyConstraint("number", name="pk_policy_versions"),
    )
