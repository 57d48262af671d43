"""PyPI's graphite-web in gunicorn."""

import json
import os
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

from programs import Program, free_port, write

TOOLS = os.path.dirname(sys.executable)

SETTINGS = """
SECRET_KEY = "a test"
TIME_ZONE = "UTC"
ALLOWED_HOSTS = ["*"]
STORAGE_DIR = CONF_DIR = LOG_DIR = {home!r}
WHISPER_DIR = {tree!r}
STANDARD_DIRS = [WHISPER_DIR]
LOG_ROTATION = False
FIND_CACHE_DURATION = DEFAULT_CACHE_DURATION = 0
CARBONLINK_HOSTS = {carbonlink!r}
CLUSTER_SERVERS = {cluster!r}
STORAGE_FINDERS = ({finder!r},)
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}}}}}
"""


class Graphite(Program):
    """graphite-web with its files below `home`: `with Graphite(home, tree, …) as graphite`."""

    def __init__(self, home, tree, cluster=(), carbonlink=()):
        finder = "remote.RemoteFinder" if cluster else "standard.StandardFinder"
        settings = {"home": home, "tree": tree, "cluster": list(cluster), "carbonlink": list(carbonlink)}
        settings.update(finder=f"graphite.finders.{finder}", database=os.path.join(home, "graphite.db"))
        write(os.path.join(home, "settings_here.py"), SETTINGS.format(**settings))
        environment = {"PYTHONPATH": home, "GRAPHITE_SETTINGS_MODULE": "settings_here", "GRAPHITE_ROOT": home}
        environment["DJANGO_SETTINGS_MODULE"] = "graphite.settings"
        log, port = os.path.join(home, "log"), free_port()
        with open(log, "ab") as output:
            migrate = [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"]
            done = subprocess.run(migrate, stdout=output, stderr=output, env=dict(os.environ, **environment), check=False)
        command = [os.path.join(TOOLS, "gunicorn"), "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "4"]
        super().__init__("graphite-web", command + ["graphite.wsgi:application"], log, port, environment)
        if done.returncode != 0:
            sys.exit(f"graphite-web's database was not made:\n{self.log()}")

    def get(self, path):
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return json.loads(answer.read())
        except HTTPError as error:
            sys.exit(f"graphite-web: {path}: {error.code}\n{error.read()[-3000:]!r}\n{self.log()}")
