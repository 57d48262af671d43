"""Runs other programs beside the server, each on free ports and with its files in a directory of the
test. Standard library only."""

import os
import shutil
import socket
import subprocess
import sys

from server import until


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf8") as file:
        file.write(text)
    return path


def find(program):
    """A program of the system's: daemons are often outside of a user's PATH."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not path:
        sys.exit(f"{program} is not installed: .ci/run clients installs it with apt-get when it runs as root")
    return path


class Program:
    """A program that runs until the block ends: `with Program("collectd", command, log)`. With a port
    the block begins when the program listens on it."""

    def __init__(self, name, command, log, port=None, environment=None, patience=10):
        self.name, self.command, self.port = name, command, port
        self.log_path, self.patience = log, patience
        self.environment = dict(os.environ, **(environment or {}))

    def __enter__(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environment)
        try:
            if self.port:
                until(self.listens, f"{self.name} to listen", self.log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self):
        with open(self.log_path, encoding="utf8", errors="replace") as log:
            return log.read()[-4000:]

    def listens(self):
        if self.process.poll() is not None:
            sys.exit(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True
