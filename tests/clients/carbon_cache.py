"""PyPI's carbon-cache over a tree."""

import os
import socket
import sys

from programs import Program, free_port, write

TOOLS = os.path.dirname(sys.executable)
FILES = {
    "storage-schemas.conf": "[one]\npattern = .*\nretentions = 1s:1h,1m:7d\n",
    "storage-aggregation.conf": "[default]\npattern = .*\nxFilesFactor = 0\naggregationMethod = average\n",
}


class Carbon(Program):
    """carbon-cache over the tree: `with Carbon(…) as carbon`."""

    def __init__(self, home, tree, url, hashed, files=FILES, **more):
        port = free_port()
        settings = {
            "STORAGE_DIR": home,
            "CONF_DIR": os.path.join(home, "conf"),
            "LOG_DIR": home,
            "PID_DIR": home,
            "LOCAL_DATA_DIR": tree,
            "MAX_CREATES_PER_MINUTE": "inf",
            "LINE_RECEIVER_INTERFACE": "127.0.0.1",
            "LINE_RECEIVER_PORT": port,
            "PICKLE_RECEIVER_INTERFACE": "127.0.0.1",
            "PICKLE_RECEIVER_PORT": free_port(),
            "CACHE_QUERY_INTERFACE": "127.0.0.1",
            "CACHE_QUERY_PORT": free_port(),
            "GRAPHITE_URL": url,
            "ENABLE_TAGS": True,
            "TAG_HASH_FILENAMES": hashed,
            "TAG_UPDATE_INTERVAL": 1,
            "CARBON_METRIC_INTERVAL": 0,
            **more,
        }
        conf = "[cache]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
        for name, text in {"carbon.conf": conf, **files}.items():
            write(os.path.join(home, "conf", name), text)
        command = [sys.executable, os.path.join(TOOLS, "carbon-cache.py"), "--nodaemon"]
        command += ["--config", os.path.join(home, "conf", "carbon.conf"), "start"]
        # It writes its cache before it ends.
        log, environment = os.path.join(home, "carbon.log"), {"GRAPHITE_ROOT": home}
        super().__init__("carbon-cache", command, log, port, environment, patience=30)

    def lines(self, lines):
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall("".join(line + "\n" for line in lines).encode())
