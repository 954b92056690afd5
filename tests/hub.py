"""A stand-in for the Hugging Face hub's protocol, as far as edits need it, on this machine."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
COMMIT = re.compile(r"/api/models/([^/]+/[^/]+)/commit/[^/]+")
PREUPLOAD = re.compile(r"/api/models/([^/]+/[^/]+)/preupload/[^/]+")
TOKEN = "Bearer hf_of_the_owner"


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub of its server."""

    def log_message(self, *_):
        """Nothing is logged."""

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value, status=200):
        self.reply(status, json.dumps(value).encode(), Content_Type="application/json")

    def do_GET(self):
        self.server.hub.asked.append(self.path)
        found = RESOLVE.match(self.path)
        if found is None:
            self.json({}, 200 if self.path == "/" else 404)
        else:
            self.resolve(*found.groups())

    def do_HEAD(self):
        self.do_GET()

    def resolve(self, repository, revision, name):
        own = self.server.hub.commits.get(repository)
        if not own:
            return self.reply(404, X_Error_Code="RepoNotFound")
        known = {"main": own[-1], **{commit: (commit, files) for commit, files in own}}
        if revision not in known:
            return self.reply(404, X_Error_Code="RevisionNotFound")
        commit, files = known[revision]
        if name not in files:
            return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        tag = hashlib.sha256(files[name]).hexdigest()
        return self.reply(200, files[name], ETag=f'"{tag}"', X_Repo_Commit=commit)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != TOKEN:
            self.json({"error": "Invalid credentials"}, 401)
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif PREUPLOAD.match(self.path):
            paths = [one["path"] for one in json.loads(body)["files"]]
            how = {"uploadMode": "regular", "shouldIgnore": False}
            self.json({"files": [{"path": path, **how} for path in paths]})
        elif COMMIT.match(self.path):
            self.commit(COMMIT.match(self.path)[1], body)
        else:  # what it thinks of the card
            self.json({"warnings": [], "errors": []})

    def create(self, asked):
        hub, name = self.server.hub, f"{asked.get('organization') or 'owner'}/{asked['name']}"
        status = 409 if name in hub.commits else 200
        hub.commits.setdefault(name, [])
        self.json({"url": f"{hub.address}/{name}", "name": name}, status)

    def commit(self, repository, body):
        hub = self.server.hub
        own = hub.commits[repository]
        files = dict(own[-1][1]) if own else {}
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = hashlib.sha1(body + bytes(len(own))).hexdigest()
        own.append((commit, files))
        address = f"{hub.address}/{repository}/commit/{commit}"
        self.json({"commitUrl": address, "commitOid": commit})


class Hub:
    """Repositories by name, each a list of commits: what files it then holds.

    Attributes:
        commits: of every repository, (hash, files by name) in order.
        asked: paths that were requested.
        address: of the server.
    """

    def __init__(self):
        self.commits, self.asked = {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.hub = self
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        """No more answers."""
        self.server.shutdown()
        self.server.server_close()
