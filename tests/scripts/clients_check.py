#!/usr/bin/env python3
"""Runs the programs of examples/clients against a coordinator and compares them with spectrald's own results.

usage: clients_check.py SPECTRALD FOLDER NAME…    (scripts/test-clients calls it, having built the clients NAME in FOLDER)
"""
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy

ROOT = Path(__file__).resolve().parents[2]
FRACAST = ROOT / "tests/fixtures/models/fracast/model.safetensors"
# nothing of the caller's settings reaches the server or the clients
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("SPECTRALD_", "OTEL_")) and not k.lower().endswith("_proxy")}
# bytes of the server after which the first connection is cut: within the answers to the first, second and third call
CUTS = (300, 1200, 5000)
# of the model during which the coordinator is killed
LAYERS, SHAPE = 40, (768, 640)


def fail(message):
    sys.exit(f"FAILED: {message}")


def commands(folder):
    return {
        "python": [folder / "venv/bin/python", folder / "python/client.py"],
        "go": [folder / "go/client"],
        "node": ["node", folder / "node/client.js"],
        "java": ["java", "-jar", folder / "java/target/client.jar"],
    }


class Server:
    """`spectrald serve` over a data directory; started again, it listens where it listened."""

    def __init__(self, binary, data):
        self.binary, self.data, self.address = binary, data, "127.0.0.1:0"
        self.start()

    def start(self):
        command = [self.binary, "serve", "--data-dir", self.data / "db", "--listen", self.address, "--http-listen", "off", "--threads", "1"]
        with open(self.data / "log", "ab") as log:
            self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=log, text=True)
        patience = threading.Timer(60, self.process.kill)
        patience.start()
        line = self.process.stdout.readline()
        patience.cancel()
        if not line.startswith("listening on "):
            self.kill()
            fail(f"serve said {line!r}, and on stderr: {(self.data / 'log').read_text()}")
        self.address = line.removeprefix("listening on ").strip()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def own(self, *args):
        """What spectrald's own client prints."""
        command = [self.binary, args[0], "--addr", self.address, *args[1:]]
        return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=300).stdout

    def lines_for(self, analysis):
        """The lines that a client must print at its end, from the program's own report."""
        layers = json.loads(self.own("results", analysis, "--format", "json"))["layers"]
        alphas = [(row["name"], row["alpha"]) for row in layers if row.get("alpha") is not None]
        mean = sum(alpha for _, alpha in alphas) / len(alphas)
        return [f"{name} {alpha:.6f}" for name, alpha in alphas] + [f"mean alpha {mean:.6f} over {len(alphas)} layers"]

    def analyses(self):
        return re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", self.own("jobs"))


class Cutter:
    """A proxy before the server that cuts its first connection after so many bytes of the server."""

    def __init__(self, server, limit):
        self.target, self.limit, self.cuts = server.address.rsplit(":", 1), limit, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        limit = self.limit
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection((self.target[0], int(self.target[1])))
            threading.Thread(target=self.copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, limit), daemon=True).start()
            limit = None

    def copy(self, source, sink, limit):
        try:
            while data := source.recv(65536):
                if limit is not None and len(data) > limit:
                    sink.sendall(data[:limit])
                    self.cuts += 1
                    break
                sink.sendall(data)
                limit = None if limit is None else limit - len(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def run(command, address, model, *options):
    started = time.monotonic()
    ran = subprocess.run([*command, address, str(model), *options], env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    return ran, time.monotonic() - started


def analysis_of(name, stdout):
    found = re.search(r"^analysis (\S+)$", stdout, re.M)
    return found[1] if found else fail(f"{name} names no analysis: {stdout}")


def compare(name, server, ran):
    """The client ended well, and printed what spectrald's own report says. Gives its last line."""
    code, stdout, stderr = ran
    if code != 0 or stderr:
        fail(f"{name}: exit code {code}: {stdout}{stderr}")
    lines, expected = stdout.splitlines(), server.lines_for(analysis_of(name, stdout))
    # the Python program prints a table of a DataFrame instead of a line a layer; its numbers are compared by themselves
    expected = expected[-1:] if name == "python" else expected
    if lines[-len(expected):] != expected:
        fail(f"{name} printed\n{stdout}but spectrald itself has\n" + "\n".join(expected))
    return lines[-1]


def well(name, command, server):
    ran, seconds = run(command, server.address, FRACAST)
    last = compare(name, server, (ran.returncode, ran.stdout, ran.stderr))
    print(f"ok: {name}: {last} ({seconds:.1f} s)")
    return last


def bad_inputs(name, command, server):
    cases = {
        "/nowhere/model.safetensors": "(reason NOT_FOUND, domain spectrald, file=/nowhere/model.safetensors)",
        "s3://nowhere/model.safetensors": "(reason PERMISSION_DENIED, domain spectrald)",
    }
    for model, reason in cases.items():
        ran, _ = run(command, server.address, model)
        if ran.returncode != 1 or ran.stdout or not ran.stderr.startswith("error: ") or reason not in ran.stderr:
            fail(f"{name} with {model}: exit code {ran.returncode}: {ran.stdout}{ran.stderr}, not {reason}")
    print(f"ok: {name}: an unknown path and a model outside the roots give the reasons of google.rpc.ErrorInfo and exit code 1")


def broken_connections(name, command, server):
    """Whatever answer the connection breaks in, the client goes on and asks for one analysis only."""
    for limit in CUTS:
        before, cutter = set(server.analyses()), Cutter(server, limit)
        ran, _ = run(command, cutter.address, FRACAST)
        cutter.listener.close()
        compare(name, server, (ran.returncode, ran.stdout, ran.stderr))
        new = set(server.analyses()) - before
        if cutter.cuts != 1 or len(new) != 1:
            fail(f"{name}, cut after {limit} bytes: {cutter.cuts} cuts, {len(new)} analyses: {ran.stdout}")
    print(f"ok: {name}: the same with its connection cut after {', '.join(map(str, CUTS))} bytes")


def restart(name, command, server, model):
    """The coordinator is killed once the client was told of the first rows, and started again."""
    client = subprocess.Popen([*command, server.address, str(model)], env=ENVIRONMENT, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(120, client.kill)  # a client that never ends fails the comparison below
    timer.start()
    said, killed = "", False
    for line in client.stdout:
        said += line
        if not killed and re.search(r"(?i)running: [1-9]", line):
            server.kill()
            server.start()
            killed = True
    stderr = client.stderr.read()
    code = client.wait()
    timer.cancel()
    if not killed:
        fail(f"{name}: the model was done before the coordinator could be killed: {said}{stderr}")
    last = compare(name, server, (code, said, stderr))
    told = sorted(re.findall(r"^row: (.*)$", said, re.M))
    if told != sorted(f"layer.{layer}" for layer in range(LAYERS)):
        fail(f"{name}: the rows that it was told of over two watches are not each layer once: {told}")
    print(f"ok: {name}: {last}, each told once, the coordinator having been killed with SIGKILL while it watched")


def synthetic(path, seed):
    """A model that takes seconds; another seed is another content, so that no result is known already."""
    draw, header, data = numpy.random.default_rng(seed), {}, io.BytesIO()
    for layer in range(LAYERS):
        weights = draw.standard_normal(SHAPE, dtype=numpy.float32).tobytes()
        begin = data.tell()
        data.write(weights)
        header[f"layer.{layer}.weight"] = {"dtype": "F32", "shape": SHAPE, "data_offsets": [begin, data.tell()]}
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data.getvalue())
    return path


def same(ours, theirs):
    """Whether two cells of CSV are the same text or the same number."""
    try:
        return ours == theirs or float(ours) == float(theirs)
    except ValueError:
        return False


def data_frame(command, server, folder):
    """Every column of the Python program's DataFrame, name and values, is that of spectrald's own CSV."""
    written = folder / "frame.csv"
    ran, _ = run(command, server.address, FRACAST, "--all", "--csv", str(written))
    compare("python", server, (ran.returncode, ran.stdout, ran.stderr))
    own = server.own("results", analysis_of("python", ran.stdout), "--format", "csv")
    (columns, *rows), (names, *frame) = csv.reader(io.StringIO(own)), csv.reader(io.StringIO(written.read_text()))
    if names != columns or len(frame) != len(rows):
        fail(f"the DataFrame has {len(frame)} rows of {names}, not {len(rows)} of {columns}")
    for ours, theirs in zip(frame, rows):
        for column, cell, expected in zip(columns, ours, theirs):
            # a list in the one, 64x1x3 in the other
            cell = cell.strip("[]").replace(", ", "x") if column == "shape" else cell
            if not same(cell, expected):
                fail(f"the DataFrame has {cell!r} as {column} of {theirs[1]}, not {expected!r}")
    print(f"ok: python: all {len(columns)} columns and {len(rows)} rows of its DataFrame are those of spectrald results --format csv")


def listed(server, version):
    """What the reflection of this version lists, raw: its one request is list_services, its field 7."""
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        return b"".join(call(iter([b"\x3a\x00"]), timeout=30))


def reflection(grpcurl, server):
    """A client that knows nothing of the protocol learns it by reflection."""
    def call(*args, data=None):
        command = [grpcurl, "-plaintext", *(["-d", json.dumps(data)] if data else []), server.address, *args]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)

    def well(*args, data=None):
        ran = call(*args, data=data)
        return ran.stdout if ran.returncode == 0 else fail(f"grpcurl {args}: {ran.stdout}{ran.stderr}")

    services = set(well("list").split())
    expected = {f"spectrald.v1.{name}Service" for name in ("Analysis", "System", "Upload", "Worker")} | {"grpc.health.v1.Health"}
    if not services >= expected:
        fail(f"grpcurl lists {services}, not all of {expected}")
    for version in ("v1", "v1alpha"):
        if missing := [name for name in expected if name.encode() not in listed(server, version)]:
            fail(f"reflection {version} does not list {missing}")
    described = well("describe", "spectrald.v1.LayerResult")
    if 'json_name = "D_two_sided"' not in described:
        fail(f"grpcurl describes LayerResult without WeightWatcher's column names: {described}")
    if not json.loads(well("spectrald.v1.SystemService/GetStatus")).get("accepting"):
        fail("GetStatus does not say that analyses are accepted")
    before = server.analyses()
    request = {"model": str(FRACAST), "validate_only": True}
    planned = json.loads(well("spectrald.v1.AnalysisService/CreateAnalysis", data=request))["analysis"]
    if planned["plan"]["layers"] != "14" or planned.get("id") or server.analyses() != before:
        fail(f"validate_only did not just plan: {planned}")
    refused = call("spectrald.v1.AnalysisService/CreateAnalysis", data={"model": "s3://nowhere/model.safetensors"})
    if refused.returncode == 0 or "Code: PermissionDenied" not in refused.stderr:
        fail(f"grpcurl with a model outside the roots: {refused.stdout}{refused.stderr}")
    print(f"ok: grpcurl by reflection: v1 and v1alpha, {len(services)} services, a message, GetStatus, validate_only, an error")


def main():
    binary, folder, names = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:]
    with tempfile.TemporaryDirectory(prefix="spectrald-clients-") as temporary:
        data = Path(temporary)
        server = Server(binary, data)
        try:
            if "grpcurl" in names:
                reflection(folder / "bin/grpcurl", server)
            clients = {name: command for name, command in commands(folder).items() if name in names}
            last_lines = set()
            for name, command in clients.items():
                last_lines.add(well(name, command, server))
                bad_inputs(name, command, server)
                broken_connections(name, command, server)
            for seed, (name, command) in enumerate(clients.items()):
                restart(name, command, server, synthetic(data / f"{name}.safetensors", seed))
            if "python" in clients:
                data_frame(clients["python"], server, data)
            if len(last_lines) != 1:
                fail(f"the clients disagree: {last_lines}")
            print(f"ok: {', '.join(clients)} agree with each other and with spectrald")
        finally:
            server.kill()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is killed, too
    main()
