"""Answers as llama-server does, as far as test/load.py asks. $FAULT: `leak`, `short` (a token less), `no-shift`, `exit` (exit code 3)."""

import http.server
import json
import os
import signal
import sys
import time

FAULT = os.environ.get("FAULT", "")
kept = []


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        n, read = body["n_predict"] - (FAULT == "short"), len(body["prompt"].split())
        past = read + n > 512 and FAULT != "no-shift"
        if past:
            print("slot context shift, n_keep = 4, n_left = 507, n_discard = 253", file=sys.stderr, flush=True)
        if FAULT == "leak":
            kept.append(b"x" * (1 << 20))
        self.send_response(200)
        self.end_headers()
        try:
            time.sleep(0.1)
            for _ in range(n):
                self.wfile.write(b'data: {"content": "x", "stop": false}\n\n')
            end = {"content": "", "stop": True, "tokens_predicted": n, "tokens_evaluated": read, "truncated": past}
            self.wfile.write(b"data: " + json.dumps(end).encode() + b"\n\n")
        except OSError: # the client is gone
            pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(3 if FAULT == "exit" else 0))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
