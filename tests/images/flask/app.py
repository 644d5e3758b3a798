"""Notes in a database, in four releases that differ in their schema. RELEASE says which one this is."""

import os

from flask import Flask, jsonify, request
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

RELEASE = os.environ.get("RELEASE", "sha-1")

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 3}}
db = SQLAlchemy(app)
migrate = Migrate(app, db)


class Note(db.Model):
    """A note. The second release knows who wrote it, the fourth calls its text a body."""

    id = db.Column(db.Integer, primary_key=True)
    content = db.Column("body" if RELEASE == "sha-4" else "text", db.String, nullable=False)
    if RELEASE != "sha-1":
        author = db.Column(db.String)


@app.get("/readyz")
def ready():
    """Ready with a database, whatever its schema: a color is up before it has migrated."""
    try:
        db.session.execute(text("select 1"))
    except Exception as error:
        return jsonify(ready=False, why=type(error).__name__), 503
    return jsonify(ready=True)


@app.get("/healthz")
def healthy():
    return "ok"


@app.get("/version")
def version():
    return jsonify(service="recall", version=RELEASE)


@app.get("/")
@app.get("/load")  # what the load of the tests asks for
def notes():
    return jsonify([note.content for note in db.session.scalars(db.select(Note).order_by(Note.id))])


@app.post("/")
def add():
    note = Note(content=request.get_data(as_text=True))
    db.session.add(note)
    db.session.commit()
    return jsonify(id=note.id), 201
