"""The text is a body now. A rename: the release before finds its column no more."""

from alembic import op

revision, down_revision = "0004", "0002"


def upgrade():
    op.alter_column("note", "text", new_column_name="body")
