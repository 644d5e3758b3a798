"""Every note once. There are two alike: the database refuses, and nothing of this migration remains."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade():
    op.add_column("note", sa.Column("gone", sa.String))
    op.create_unique_constraint("note_text_once", "note", ["text"])
