"""A chat server on loopback that answers as a test says, well or badly, and counts; fixtures."""

import json
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from batch_script import BatchScript, finish

KEY = "sk-test-very-secret-0123456789"


def completion(text, finish="stop", usage=(10, 5)):
    """Return the body of a good answer."""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        ],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
    }


class ChatServer(ThreadingHTTPServer):
    """`answer(body, n)` decides about the n-th request (from 1) of the same last message.

    Of a request to rank documents these stand in place of the message.

    It returns a text, a completion, `(status, body, headers)`, `b"raw body"`, or `cut`.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer or (lambda body, n: "hello")
        self.times, self.bodies, self.headers, self.paths = [], [], [], []
        self.asked, self.finished = Counter(), Counter()
        self.running = self.most_running = 0
        self.files, self.batches, self.log = {}, {}, []
        self.script = BatchScript()
        self.on_batch = None
        self.dribble = ""  # `headers` or `body` come a byte per 0.2 s
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def input(self, batch):
        """Return the file that a batch was made of."""
        return self.files[self.batches[batch]["input_file_id"]]

    def handle_error(self, request, client_address):
        """Say nothing of clients that go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Say nothing."""

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.split("?")[0].endswith(("/chat/completions", "/rerank", "/score")):
            self.server.paths.append(self.path)
            self.chat(json.loads(data))
        elif self.path.endswith("/files"):
            self.upload(data)
        elif self.path.endswith("/batches"):
            self.create(json.loads(data))
        else:
            self.send(404, {"error": {"message": "no such path"}})

    def do_GET(self):
        path, server = self.path.split("?")[0], self.server
        last = path.rstrip("/").split("/")[-1]
        server.log.append(("GET", path))
        if path.endswith("/content"):
            name = path.split("/")[-2]
            data = server.files[name]
            replaced = server.script.content(name, server.script.count("content", name), data)
            self.say(data if replaced is None else replaced)
        elif last == "batches":
            listed = [b for b in reversed(server.batches.values())]
            page = {"object": "list", "data": listed, "has_more": False}
            replaced = server.script.listed(listed)
            self.say(page if replaced is None else replaced)
        elif last in server.batches:
            self.say(run_batch(server, server.batches[last]))
        else:
            self.send(404, {"error": {"message": "no such thing"}})

    def upload(self, data):
        server = self.server
        boundary = self.headers["Content-Type"].split("boundary=")[1].encode()
        parts = [p for p in data.split(b"--" + boundary) if b'filename="' in p]
        content = parts[0].split(b"\r\n\r\n", 1)[1][:-2]
        replaced = server.script.upload(server.script.count("upload"), content)
        if replaced is not None:
            self.say(replaced)
            return
        with server.lock:
            name = f"file-{len(server.files)}"
            server.files[name] = content
            server.log.append(("upload", name))
        self.send(200, {
            "id": name, "object": "file", "bytes": len(content), "created_at": 0,
            "filename": "input.jsonl", "purpose": "batch", "status": "processed",
        })  # fmt: skip

    def create(self, body):
        server = self.server
        replaced = server.script.create(server.script.count("create"), body)
        if replaced is not None:
            self.say(replaced)
            return
        with server.lock:
            name = f"batch_{len(server.batches)}"
            server.batches[name] = {
                "id": name, "object": "batch", "endpoint": body["endpoint"], "created_at": 0,
                "input_file_id": body["input_file_id"], "completion_window": "24h",
                "status": "in_progress", "metadata": body.get("metadata"), "polls": 0,
            }  # fmt: skip
            server.log.append(("create", name))
        if server.on_batch is not None:
            server.on_batch(server, name)
        replaced = server.script.made(server.batches[name])
        self.say(server.batches[name] if replaced is None else replaced)

    def chat(self, body):
        server = self.server
        asked = body["messages"][-1]["content"] if "messages" in body else body["documents"]
        text = json.dumps(asked)
        with server.lock:
            server.times.append(time.monotonic())
            server.bodies.append(body)
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            server.asked[text] += 1
            number = server.asked[text]
            server.running += 1
            server.most_running = max(server.running, server.most_running)
        try:
            self.reply(server.answer(body, number), text)
        finally:
            with server.lock:
                server.running -= 1

    def reply(self, answer, text):
        with self.server.lock:
            if isinstance(answer, (str, dict)) and answer != "cut":
                self.server.finished[text] += 1
        self.say(completion(answer) if isinstance(answer, str) and answer != "cut" else answer)

    def say(self, answer):
        if hasattr(answer, "what"):  # a `Trick` with the connection
            answer.what(self)
        elif answer == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": "x", ')
            self.wfile.flush()
            self.close_connection = True
        elif callable(answer):
            answer(self)
        elif isinstance(answer, bytes):
            self.send_bytes(200, answer)
        elif isinstance(answer, tuple):
            self.send(*answer)
        else:
            self.send(200, answer)

    def send(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_bytes(status, data, headers)

    def trickle(self, data):
        for place in range(len(data)):
            self.wfile.write(data[place : place + 1])
            self.wfile.flush()
            time.sleep(0.2)

    def send_bytes(self, status, data, headers=()):
        if self.server.dribble:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"
            if self.server.dribble == "body":
                self.wfile.write(head + b"\r\n")
                head = b" " * 1000
            self.close_connection = True
            return self.trickle(head)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def run_batch(server, batch):
    """Say what becomes of a batch, which ends at the look that the script names."""
    batch["polls"] += 1
    if batch["status"] == "in_progress" and batch["polls"] >= server.script.polls:
        finish(server, batch, completion)
    replaced = server.script.look(batch, batch["polls"])
    return batch if replaced is None else replaced


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a server; the key is set, all servers stop at the end."""
    monkeypatch.setenv("LLM_TEST_KEY", KEY)
    servers = []

    def start(answer=None):
        servers.append(ChatServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def unknown_names(monkeypatch):
    """Answer at once that `.invalid` names are unknown: some machines' resolvers take long."""
    known = socket.getaddrinfo

    def look_up(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture
def settings(tmp_path):
    """Return a function that makes the `llm` section for a server."""

    def make(server, /, **more):
        return {
            "backend": "openai", "model": "tiny", "base_url": server.url,
            "api_key_env": "LLM_TEST_KEY", "cache_dir": str(tmp_path / "cache"),
            "min_retry_wait": 0.01, "timeout": 5.0, **more,
        }  # fmt: skip

    return make
