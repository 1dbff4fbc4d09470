"""
ClickHouse's engine (chdb) behind the part of ClickHouse's HTTP interface that clients use: POST with the statement in
`?query=` or in the body, settings and `param_*` in the URL, gzip bodies, basic authentication, and errors as the server
words them. The engine does the work and refuses what it refuses; nothing is answered in its place.

Requests take turns: the engine has one session here. A result goes to a temporary file first, so that a client that
reads slowly keeps nobody waiting.
"""

import argparse
import base64
import gzip
import hmac
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import chdb

# Of the interface itself; everything else in the URL is a setting.
INTERFACE = {
    "query", "database", "user", "password", "query_id", "session_id", "session_timeout", "session_check",
    "default_format", "compress", "decompress", "enable_http_compression", "wait_end_of_query", "buffer_size",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "role", "quota_key",
}
NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
FORMAT = re.compile(r"\bFORMAT\s+([A-Za-z0-9]+)\s*;?\s*$", re.IGNORECASE)
INSERT = re.compile(r"^\s*INSERT\s+INTO\b", re.IGNORECASE)
READS = re.compile(r"^\s*(SELECT|WITH|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|\()", re.IGNORECASE)
CODE = re.compile(r"Code: (\d+)\.")
PIECE = 1 << 20


class Engine:
    """One connection, and the lock that makes requests take turns."""

    def __init__(self, folder):
        self.lock = threading.Lock()
        self.connection = chdb.connect(folder)
        # In force from the last request.
        self.settings = {}
        self.version = self._text("SELECT version()")

    def _text(self, sql):
        return self.connection.query(sql, "TabSeparated").bytes().decode().strip()

    def run(self, sql, settings, body, output):
        """Writes the result to `output`. Gives the rows that an insert with data wrote, else None."""
        with self.lock:
            self._adopt(settings)
            return self._statement(sql, body, output)

    def _adopt(self, settings):
        """A request's settings hold for it alone; those that the one before had as well need not be set again."""
        for name in [name for name in self.settings if name not in settings]:
            if not name.startswith("param_"):
                self.connection.query(f"SET {name} = DEFAULT", "TabSeparated")
            del self.settings[name]
        for name, value in settings.items():
            if self.settings.get(name) == value:
                continue
            self.connection.query(f"SET {name} = {quote(value)}", "TabSeparated")
            self.settings[name] = value

    def _statement(self, sql, body, output):
        found = FORMAT.search(sql)
        name = found.group(1) if found else "TabSeparated"
        if INSERT.match(sql) and body is not None:
            inserter = self.connection.send_insert(sql[: found.start()] if found else sql, name)
            try:
                for piece in body:
                    inserter.append(piece)
                return inserter.finish().rows_written
            except BaseException:
                inserter.cancel()
                raise
        if READS.match(sql):
            for chunk in self.connection.send_query(sql[: found.start()] if found else sql, name):
                output.write(chunk.bytes())
        else:
            output.write(self.connection.query(sql, name).bytes())
        return None


def quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ClickHouse"
    # Small answers would wait for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    engine = None
    user = None
    password = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        if urlsplit(self.path).path in ("/ping", "/replicas_status"):
            return self.answer(200, b"Ok.\n")
        self.handle_query()

    def do_POST(self):
        self.handle_query()

    def handle_query(self):
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        with tempfile.TemporaryFile() as spool:
            body = self.read_body(spool)
            if not self.authenticated(parameters):
                name = parameters.get("user") or self.user
                return self.refuse(
                    401, 516,
                    f"Code: 516. DB::Exception: {name}: Authentication failed: password is incorrect, "
                    f"or there is no user with such name. (AUTHENTICATION_FAILED)",
                )
            sql = parameters.get("query", "")
            if sql == "":
                sql, body = b"".join(body or []).decode(), None
            elif body is not None and not INSERT.match(sql):
                sql, body = sql + b"".join(body).decode(), None
            settings = {name: value for name, value in parameters.items() if name not in INTERFACE}
            unknown = next((name for name in settings if not NAME.match(name)), None)
            if unknown is not None:
                return self.refuse(400, 115, "Code: 115. DB::Exception: Unknown setting. (UNKNOWN_SETTING)")
            with tempfile.SpooledTemporaryFile(4 << 20) as output:
                try:
                    written = self.engine.run(sql, settings, body, output)
                except Exception as error:
                    text = str(error)
                    at = text.find("Code: ")
                    text = text[at:] if at >= 0 else f"Code: 1002. DB::Exception: {text} (UNKNOWN_EXCEPTION)"
                    code = int(CODE.match(text).group(1))
                    return self.refuse(404 if code in (60, 81) else 500, code, text)
                self.answer_file(output, parameters.get("query_id", ""), written)

    def read_body(self, spool):
        """The body's pieces, decompressed, or None where there is none. Read whole, so that the connection stays usable."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    break
                spool.write(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left > 0:
                piece = self.rfile.read(min(left, PIECE))
                if not piece:
                    raise ConnectionError("the body ended early")
                spool.write(piece)
                left -= len(piece)
        if spool.tell() == 0:
            return None
        spool.seek(0)
        source = gzip.GzipFile(fileobj=spool) if self.headers.get("Content-Encoding") == "gzip" else spool
        return iter(lambda: source.read(PIECE), b"")

    def authenticated(self, parameters):
        user = self.headers.get("X-ClickHouse-User") or parameters.get("user")
        password = self.headers.get("X-ClickHouse-Key") or parameters.get("password", "")
        authorization = self.headers.get("Authorization", "")
        if authorization.startswith("Basic "):
            user, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
        return hmac.compare_digest((user or "default").encode(), self.user.encode()) and hmac.compare_digest(
            password.encode(), self.password.encode()
        )

    def refuse(self, status, code, text):
        body = f"{text} (version {self.engine.version})\n".encode()
        self.answer(status, body, {"X-ClickHouse-Exception-Code": str(code)})

    def answer(self, status, body, headers=None):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer_file(self, output, query_id, written):
        length = output.tell()
        output.seek(0)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(length))
        self.send_header("X-ClickHouse-Query-Id", query_id)
        if written is not None:
            self.send_header("X-ClickHouse-Summary", f'{{"written_rows":"{written}"}}')
        self.end_headers()
        shutil.copyfileobj(output, self.wfile, PIECE)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        # A client that hangs up is no news.
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", default="default")
    arguments = parser.parse_args()
    Handler.user = arguments.user
    Handler.password = os.environ.get("CLICKHOUSE_PASSWORD", "")
    Handler.engine = Engine(arguments.folder)
    server = Server((arguments.host, arguments.port), Handler)
    # serve_forever() must not be asked to end from its own thread, in which handlers of signals run.
    stop = lambda *_: threading.Thread(target=server.shutdown).start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"ClickHouse {Handler.engine.version} on {arguments.host}:{arguments.port}", flush=True)
    server.serve_forever()
    with Handler.engine.lock:
        Handler.engine.connection.close()


if __name__ == "__main__":
    main()
