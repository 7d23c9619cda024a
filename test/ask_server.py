"""Starts a llama-server (the command given), asks it to complete a sentence, prints the answer, stops it."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
url = f"http://127.0.0.1:{port}"
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def healthy():
    try:
        return direct.open(url + "/health", timeout=5).status == 200
    except OSError:
        return False


server = subprocess.Popen(sys.argv[1:] + ["--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    for _ in range(120):
        if server.poll() is not None:
            sys.exit(f"the server ended with exit code {server.returncode}")
        if healthy():
            break
        time.sleep(1)
    body = json.dumps({"prompt": "The capital of France is", "n_predict": 8, "temperature": 0}).encode()
    request = urllib.request.Request(url + "/completion", body, {"Content-Type": "application/json"})
    print(json.load(direct.open(request, timeout=120))["content"])
finally:
    server.terminate()
    server.wait(30)
