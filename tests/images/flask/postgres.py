"""PostgreSQL in a container: a cluster on the first start, with the database and user that the environment names."""

import os
import subprocess

DATA = "/var/lib/postgresql/data"
UID = 70


def make_cluster():
    user, password = os.environ["POSTGRES_USER"], os.environ["POSTGRES_PASSWORD"]
    with open("/tmp/password", "w") as file:
        file.write(password)
    subprocess.run(
        ["initdb", "-D", DATA, "-U", user, "--pwfile=/tmp/password", "--auth=scram-sha-256", "--auth-local=trust"]
        + ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
        check=True,
    )
    os.remove("/tmp/password")
    with open(f"{DATA}/pg_hba.conf", "a") as file:
        file.write("host all all all scram-sha-256\n")
    statement = f'CREATE DATABASE "{os.environ["POSTGRES_DB"]}";\n'
    subprocess.run(["postgres", "--single", "-D", DATA, "postgres"], input=statement, text=True, check=True)


for folder in (DATA, "/run/postgresql"):
    os.makedirs(folder, exist_ok=True)
    os.chown(folder, UID, UID)
os.chmod(DATA, 0o700)
os.setgroups([])
os.setgid(UID)
os.setuid(UID)
if not os.path.exists(f"{DATA}/PG_VERSION"):
    make_cluster()
os.execvp("postgres", ["postgres", "-D", DATA, "-c", "listen_addresses=*"])
