#!/usr/bin/env bash
# obstore 0.12.1: the variable AWS_ENDPOINT_URL_S3 takes precedence over an endpoint given in `config`.
#
# The documentation of S3Store says that values in `config` override those from the environment. The endpoint does not:
# `endpoint` and AWS_ENDPOINT_URL_S3 are two options, and the second goes first wherever it was set.
#
# Seen: with both set, the request goes to the variable's server ("asked: environment").
# Fails if the explicit endpoint is asked.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1
cat >"$folder/seen.py" <<'PYTHON'
import os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
from obstore.store import S3Store

asked = []


def server(name):
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(name)
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{running.server_port}"


config = {"endpoint": server("config"), "region": "us-east-1", "access_key_id": "a", "secret_access_key": "b"}
for variable in (None, "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
    if variable is not None:
        os.environ[variable] = server("environment")
    obstore.put(S3Store("bucket", config=config, client_options={"allow_http": True}), "key", b"value")
    print(f"{variable or 'no variable'}: asked {asked[-1]}")
assert asked == ["config", "config", "environment"], asked
PYTHON
env -u AWS_ENDPOINT_URL -u AWS_ENDPOINT_URL_S3 -u AWS_ENDPOINT -u HTTP_PROXY -u http_proxy -u ALL_PROXY -u all_proxy \
  "$folder/venv/bin/python" "$folder/seen.py"
