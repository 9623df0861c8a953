#!/usr/bin/env python3
"""Analyses models in moto's S3 and compares with the same models on disk.

usage: moto_check.py SPECTRALD      (scripts/test-moto calls it in an environment that has moto and boto3)
"""
import http.client
import http.server
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "models"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "hunter2hunter2", "AWS_REGION": "us-east-1"}
# nothing of the caller's environment reaches the program, but what it needs to run
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}


def run(binary, endpoint, *args):
    env = {**ENVIRONMENT, **KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}
    return subprocess.run([binary, *args], env=env, capture_output=True, text=True, timeout=300)


def rows(ran):
    if ran.returncode != 0 or ran.stderr:
        sys.exit(f"FAILED: exit code {ran.returncode}: {ran.stderr}")
    return json.loads(ran.stdout)["layers"]


def same_as_on_disk(binary, endpoint, store, folder):
    name = folder.name
    for file in ("model.safetensors", "config.json"):
        store.upload_file(str(folder / file), BUCKET, f"{name}/{file}")
    options = ("--erg", "--format", "json")
    local = rows(run(binary, endpoint, "analyze", str(folder / "model.safetensors"), *options))
    for uri in (f"s3://{BUCKET}/{name}/model.safetensors", f"s3://{BUCKET}/{name}/", f"s3://{BUCKET}/{name}"):
        remote = rows(run(binary, endpoint, "analyze", uri, *options))
        if remote != local:
            sys.exit(f"FAILED: {uri} differs from the same model on disk")
        print(f"ok: {uri}: {len(remote)} rows, the same as on disk")


class ReplacingProxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on to moto, and calls `replace` once, before the first request for weights. Signatures are not
    harmed: moto does not check them, and no header is changed."""

    protocol_version = "HTTP/1.1"
    moto = None  # host, port
    header_bytes = 0
    replace = None
    statuses = []
    lock = threading.Lock()

    def do_GET(self):
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and int(asked.split("-")[1]) >= self.header_bytes:
            with self.lock:
                replace, ReplacingProxy.replace = ReplacingProxy.replace, None
                if replace:
                    replace()
        self.pass_on()

    def do_HEAD(self):
        self.pass_on()

    def pass_on(self):
        upstream = http.client.HTTPConnection(*self.moto, timeout=60)
        upstream.request(self.command, self.path, headers=dict(self.headers))
        answer = upstream.getresponse()
        body = answer.read()
        self.statuses.append((self.command, answer.status, self.headers.get("If-Match")))
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(key, value)
        length = answer.getheader("Content-Length") or str(len(body))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def replaced_under_way(binary, port, store, model):
    key = "replaced/model.safetensors"
    bytes_before = model.read_bytes()
    header = 8 + int.from_bytes(bytes_before[:8], "little")
    changed = bytes_before[:-1] + bytes([bytes_before[-1] ^ 1])
    store.put_object(Bucket=BUCKET, Key=key, Body=bytes_before)
    ReplacingProxy.moto = ("127.0.0.1", port)
    ReplacingProxy.header_bytes = header
    ReplacingProxy.replace = staticmethod(lambda: store.put_object(Bucket=BUCKET, Key=key, Body=changed))
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ReplacingProxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    ran = run(binary, f"http://127.0.0.1:{proxy.server_address[1]}", "analyze", f"s3://{BUCKET}/{key}")
    proxy.shutdown()
    refused = [seen for seen in ReplacingProxy.statuses if seen[1] == 412]
    said = ran.stderr.strip()
    if not refused or not all(pin for _, _, pin in refused):
        sys.exit(f"FAILED: moto answered no 412: {ReplacingProxy.statuses}")
    if ran.returncode != 2 or ran.stdout or "the object changed while it was read" not in said or "\n" in said:
        sys.exit(f"FAILED: replaced under way: exit code {ran.returncode}, {said!r}, {len(ran.stdout)} bytes of stdout")
    print(f"ok: replaced under way: {said}")


def main(binary):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    store = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=KEYS["AWS_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    store.create_bucket(Bucket=BUCKET)
    fracast, minilm = ROOT / "tests/fixtures/models/fracast", ROOT / "models/minilm"
    same_as_on_disk(binary, endpoint, store, fracast)
    if (minilm / "model.safetensors").is_file():
        same_as_on_disk(binary, endpoint, store, minilm)
    elif os.environ.get("SPECTRALD_REQUIRE_MODELS"):
        sys.exit("FAILED: models/minilm is absent: run scripts/fetch-models")
    else:
        print("skipped: models/minilm is absent: run scripts/fetch-models", file=sys.stderr)
    replaced_under_way(binary, port, store, fracast / "model.safetensors")
    server.stop()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
