#!/usr/bin/env python3
"""Lines a CPU second of the relay, beside carbon-c-relay's, measured alternately.

    benches/relay/run.py PATH-OF-PLUMBAGO [ROUNDS]

A sender writes LINES lines of NAMES names to the relay over one TCP connection; the relay sends them to three
destinations, which read and count them. The figure is lines received divided by the CPU time (user and system,
all threads) of the relay's process from the first line until the last destination has the last one. Destinations
and sender are other processes and do not count. plumbago has the default configuration but for its route with
keep = "never"; its queue on disk is part of the figure. carbon-c-relay (Debian's) has its defaults with a queue that
holds all lines, so that it drops nothing.
"""

import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time

LINES = 2_000_000
NAMES = 20_000


def destination(listener, counter):
    buffer = bytearray(1 << 20)
    while True:
        stream, _ = listener.accept()
        while n := stream.recv_into(buffer):
            with counter.get_lock():
                counter.value += buffer.count(b"\n", 0, n)


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port():
    """A port below those that the kernel gives to clients: a client that tries one of these may meet itself."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def lines():
    at = int(time.time())
    names = [f"servers.dc{n % 7}.web{n % 613:04}.cpu.{n}.user" for n in range(NAMES)]
    block = "".join(f"{name} {n % 1000 / 10} {at + n // 4}\n" for n, name in enumerate(names)).encode()
    return block


def wait_for_port(port):
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.02)


def measure(start, method):
    counters, listeners, processes = [], [], []
    for _ in range(3):
        listener = socket.create_server(("127.0.0.1", 0))
        counter = multiprocessing.Value("q", 0)
        process = multiprocessing.Process(target=destination, args=(listener, counter), daemon=True)
        process.start()
        counters.append(counter), listeners.append(listener), processes.append(process)
    ports = [listener.getsockname()[1] for listener in listeners]
    copies = 3 if method == "all" else 1
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        relay = start(directory, port, ports, method)
        stream = wait_for_port(port)
        time.sleep(1)
        before = cpu(relay.pid)
        begun = time.time()
        block = lines()
        for _ in range(LINES // NAMES):
            stream.sendall(block)
        stream.close()
        while sum(counter.value for counter in counters) < LINES * copies:
            if time.time() - begun > 120:
                print("lost:", [counter.value for counter in counters])
                break
            time.sleep(0.01)
        wall = time.time() - begun
        used = cpu(relay.pid) - before
        relay.terminate()
        relay.wait()
    for process in processes:
        process.terminate()
    return LINES / used, LINES / wall


def plumbago(directory, port, ports, method):
    destinations = ", ".join(f'"127.0.0.1:{to}:{n}"' for n, to in enumerate(ports))
    path = os.path.join(directory, "plumbago.toml")
    with open(path, "w") as file:
        file.write(
            f'data = "{directory}/data"\n[stats]\nself = false\n'
            f'[statsd]\nudp = []\nadmin = []\n[render]\nhttp = []\n'
            f'[carbon]\nline_tcp = ["127.0.0.1:{port}"]\nline_udp = []\npickle = []\n'
            f'[[carbon.routes]]\ndestinations = [{destinations}]\nmethod = "{method}"\nkeep = "never"\n'
        )
    return subprocess.Popen([sys.argv[1], "serve", "--config", path], stderr=subprocess.DEVNULL)


def carbon_c_relay(directory, port, ports, method):
    servers = "\n".join(f"  127.0.0.1:{to}={n}" for n, to in enumerate(ports))
    kind = "forward" if method == "all" else method
    path = os.path.join(directory, "relay.conf")
    with open(path, "w") as file:
        file.write(f"cluster all\n {kind}\n{servers}\n;\nmatch * send to all stop;\n")
    arguments = ["carbon-c-relay", "-f", path, "-p", str(port), "-s", "-q", str(LINES + 1)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    for method in ["all", "carbon_ch"]:
        figures = {"plumbago": [], "carbon-c-relay": []}
        for _ in range(rounds):
            for name, start in [("plumbago", plumbago), ("carbon-c-relay", carbon_c_relay)]:
                figures[name].append(measure(start, method))
        per_cpu = {name: statistics.median(one[0] for one in all) for name, all in figures.items()}
        wall = {name: statistics.median(one[1] for one in all) for name, all in figures.items()}
        ratios = [ours[0] / theirs[0] for ours, theirs in zip(*figures.values())]
        print(f"{method}: load {os.getloadavg()[0]:.1f}")
        for name in figures:
            print(f"  {name:15} {per_cpu[name]:>11,.0f} lines/CPU s  {wall[name]:>11,.0f} lines/s")
        print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
