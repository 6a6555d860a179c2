#!/usr/bin/env bash
# obstore 0.12.1: of the default headers of a client, LIST requests leave `x-amz-...` ones out of the signature.
#
# `client_options={"default_headers": ...}` adds headers to all requests of a store. Signature Version 4 wants every
# `x-amz-` header of a request among the signed ones. PUT, GET, HEAD and DELETE have it there; LIST sends it unsigned,
# which S3 may refuse. So a header such as x-amz-expected-bucket-owner cannot be a default of a store that lists.
#
# Seen: "PUT signed", "GET signed", "HEAD signed", "DELETE signed", "LIST sent, not signed".
# Fails if LIST signs the header, or another request does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1
cat >"$folder/seen.py" <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
from obstore.store import S3Store

HEADER = "x-amz-expected-bucket-owner"
LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
DELETED = b"<DeleteResult><Deleted><Key>key</Key></Deleted></DeleteResult>"
seen = {}


class Handler(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_list = "list-type=2" in self.path
        is_bulk = self.command == "POST"
        kind = "LIST" if is_list else "DELETE" if is_bulk else self.command
        signed = self.headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        sent = self.headers.get(HEADER) is not None
        seen[kind] = "signed" if HEADER in signed else "sent, not signed" if sent else "not sent"
        body = LISTING if is_list else DELETED if is_bulk else b"x"
        self.send_response(200)
        for name, value in (("ETag", '"x"'), ("Last-Modified", "Sat, 28 Nov 2026 00:00:00 GMT")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_GET = do_HEAD = do_DELETE = do_POST = answer

    def log_message(self, *_):
        pass


running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=running.serve_forever, daemon=True).start()
store = S3Store(
    "bucket",
    config={
        "endpoint": f"http://127.0.0.1:{running.server_port}",
        "region": "us-east-1",
        "access_key_id": "a",
        "secret_access_key": "b",
    },
    client_options={"allow_http": True, "default_headers": {HEADER: "123456789012"}},
)
obstore.put(store, "key", b"value")
obstore.get(store, "key").bytes()
obstore.head(store, "key")
obstore.delete(store, "key")
list(obstore.list(store))
for kind in ("PUT", "GET", "HEAD", "DELETE", "LIST"):
    print(kind, seen[kind])
assert seen.pop("LIST") == "sent, not signed", "LIST signs it now"
assert set(seen.values()) == {"signed"}, seen
PYTHON
env -u AWS_ENDPOINT_URL -u AWS_ENDPOINT_URL_S3 -u AWS_ENDPOINT -u HTTP_PROXY -u http_proxy -u ALL_PROXY -u all_proxy \
  "$folder/venv/bin/python" "$folder/seen.py"
