"""Alembic's entry: runs the migrations on the connection and in the transaction that `Database.migrate` hands over."""

from alembic import context

from conclave.gateway.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
