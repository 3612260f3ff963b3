#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nginx under the engine: nginx_client.py OUT CLIENTS.

Two workers send files from buffers of their own (no sendfile, 1 MiB each) to clients that read
slowly, so that most buffers wait, filled, for their turn; among the answers are parts of files,
compressed ones, some that went through the server twice and some that a pool of threads reads with
O_DIRECT.  Each byte is compared.  Half-way the configuration is loaded again (SIGHUP), which
starts new workers and lets the old ones finish.
"""
import gzip
import hashlib
import http.client
import os
import random
import signal
import sys
import threading
import time

from driver import Server, check, free_port, wait_for

SEED = 4669
CONFIG = """
daemon off; worker_processes 2; pid {out}/nginx.pid; error_log {out}/error.log warn;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile off; keepalive_timeout 60; default_type application/octet-stream;
    output_buffers 3 1m;
    client_body_temp_path {out}/body; proxy_temp_path {out}/proxy; fastcgi_temp_path {out}/fcgi;
    uwsgi_temp_path {out}/uwsgi; scgi_temp_path {out}/scgi; gzip_buffers 64 64k;
    server {{
        listen 127.0.0.1:{port}; root {out}/files;
        location /text {{ gzip on; gzip_types *; gzip_min_length 0; }}
        location /direct/ {{ alias {out}/files/; aio threads; directio 512; }}
        location /back/ {{ proxy_pass http://127.0.0.1:{port}/; proxy_buffers 64 64k;
            proxy_buffer_size 64k; proxy_busy_buffers_size 1m; proxy_max_temp_file_size 0; }}
    }}
}}
"""


def make_files(out):
    rng = random.Random(SEED)
    files = {}
    os.makedirs(os.path.join(out, "files"))
    for n in range(12):
        name = f"text{n}" if n % 4 == 0 else f"file{n}"
        data = rng.randbytes(rng.randrange(1, 7 << 20))
        if n % 4 == 0:
            data = data.hex().encode()
        with open(os.path.join(out, "files", name), "wb") as f:
            f.write(data)
        files[name] = data
    return files


class Client(threading.Thread):
    def __init__(self, number, port, files, rounds):
        super().__init__()
        self.rng = random.Random(SEED + number)
        self.port, self.files, self.rounds, self.error = port, files, rounds, ""
        self.total = hashlib.sha256()

    def body(self, answer, slow):
        parts = []
        while True:
            part = answer.read(256 * 1024)
            if not part:
                return b"".join(parts)
            parts.append(part)
            if slow:
                time.sleep(0.01)

    def ask(self, name):
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        data, headers, want = self.files[name], {}, 200
        kind = self.rng.randrange(3)
        if kind == 1:
            a = self.rng.randrange(len(data))
            headers["Range"] = f"bytes={a}-"
            data, want = data[a:], 206
        elif kind == 2:
            headers["Accept-Encoding"] = "gzip"
        conn.request("GET", ("/", "/back/", "/direct/")[self.rng.randrange(3)] + name, headers=headers)
        answer = conn.getresponse()
        got = self.body(answer, self.rng.randrange(2))
        if answer.getheader("Content-Encoding") == "gzip":
            got = gzip.decompress(got)
        if answer.status != want or got != data:
            self.error = self.error or f"{name}: status {answer.status}, {len(got)} bytes of {len(data)}"
        self.total.update(got)
        conn.close()

    def run(self):
        try:
            for _ in range(self.rounds):
                self.ask(self.rng.choice(sorted(self.files)))
        except (OSError, http.client.HTTPException) as e:
            self.error = self.error or repr(e)


def clients(n, port, files, rounds):
    threads = [Client(i, port, files, rounds) for i in range(n)]
    for t in threads:
        t.start()
    return threads


def results(threads):
    total = hashlib.sha256()
    for t in threads:
        t.join()
        check(not t.error, t.error)
        total.update(t.total.digest())
    return total.hexdigest()


def main():
    out, n = sys.argv[1], int(sys.argv[2])
    port = free_port()
    files = make_files(out)
    config = os.path.join(out, "nginx.conf")
    with open(config, "w") as f:
        f.write(CONFIG.format(out=out, port=port, user="user root;" if os.geteuid() == 0 else ""))
    print("seed", SEED)
    server = Server(["/usr/sbin/nginx", "-p", out, "-c", config, "-e", os.path.join(out, "error.log")],
                    os.path.join(out, "server.log"))
    wait_for("nginx", lambda: os.path.exists(os.path.join(out, "nginx.pid")), server)
    threads = clients(n, port, files, 12)
    time.sleep(1)
    server.child.send_signal(signal.SIGHUP)
    print(results(threads))
    print(results(clients(n, port, files, 6)))
    server.child.send_signal(signal.SIGQUIT)
    check(server.ended() == 0, "nginx did not end well: " + server.said())
    with open(os.path.join(out, "error.log"), errors="replace") as f:
        bad = [line for line in f if "[alert]" in line or "[crit]" in line or "[emerg]" in line]
    check(not bad, "".join(bad[-3:]))


sys.exit(main())
