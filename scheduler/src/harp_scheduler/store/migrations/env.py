"""How alembic runs the migrations: in the transaction that `migrate.upgrade` has begun."""

from alembic import context

from harp_scheduler.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
