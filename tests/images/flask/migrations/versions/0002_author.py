"""Who wrote it. A new column that may be empty: the release before goes on working."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    op.add_column("note", sa.Column("author", sa.String))
