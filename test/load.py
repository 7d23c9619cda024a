#!/usr/bin/env python3
"""llama-server under load: clients with random prompts, cancellations and disconnects, for some minutes.

    test/load.py SECONDS CLIENTS COMMAND...       e.g. 300 8 build/bin/llama-server -m model.gguf --hex balanced

No crash, no report of a sanitizer, every answer that was not cancelled complete, resident memory flat, exit code 0 when it is
asked to end: the last lines say `ok` or `FAIL`. What the server wrote is in the file $LOAD_LOG, or in a temporary one. With
LOAD_SANITIZED=1 memory is not judged: a sanitizer keeps what was freed for a while.
"""

import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

seconds, n_clients, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
WORDS = "time people water light number stone river cache letter music window garden paper engine winter question".split()
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
counts = {"complete": 0, "cancelled": 0, "disconnected": 0}
wrong = []
lock = threading.Lock()
end = 0.0


def connect(timeout=120):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)


def request(rng):
    n = rng.randint(4, 64)
    prompt = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 150)))
    if rng.random() < 0.3: # a common beginning, for the prompt cache
        prompt = " ".join(WORDS) + " " + prompt
    return n, {"prompt": prompt, "n_predict": n, "ignore_eos": True, "stream": True, "seed": rng.randint(0, 9999), "cache_prompt": rng.random() < 0.8}


def one(rng):
    n, body = request(rng)
    kind = rng.choices(["complete", "cancelled", "disconnected"], [6, 2, 1])[0]
    client = connect()
    try:
        client.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        if kind == "disconnected": # before an answer can come
            return kind
        response = client.getresponse()
        if response.status != 200:
            return f"status {response.status}: {response.read(200)!r}"
        stop_after, seen, done = rng.randint(1, n), 0, None
        for line in response:
            if line.startswith(b"data: "):
                part = json.loads(line[6:])
                seen += 1
                done = part if part.get("stop") else done
                if kind == "cancelled" and seen >= stop_after:
                    return kind
        if done is None or done["tokens_predicted"] != n:
            return f"an answer of {n} tokens ended after {done and done['tokens_predicted']}"
        return "complete"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        client.close()


def client_loop(seed):
    rng = random.Random(seed)
    while time.monotonic() < end:
        result = one(rng)
        with lock:
            if result in counts:
                counts[result] += 1
            else:
                wrong.append(result)


def resident(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])/1024
    return 0.0


# the server's own prompt cache grows by design: it is bounded, so that what is left would be a leak
log = open(os.environ["LOAD_LOG"], "w+b") if "LOAD_LOG" in os.environ else tempfile.TemporaryFile()
sanitized = os.environ.get("LOAD_SANITIZED") == "1"
server = subprocess.Popen(command + ["--port", str(port), "-np", "4", "-c", "2048", "--cache-ram", "16"], stdout=subprocess.DEVNULL, stderr=log)


def server_log():
    log.seek(0)
    return log.read().decode(errors="replace")


try:
    for _ in range(240):
        if server.poll() is not None:
            sys.exit(f"FAIL the server ended with exit code {server.returncode}: {server_log()[-2000:]}")
        try:
            client = connect(5)
            client.request("GET", "/health")
            if client.getresponse().status == 200:
                break
        except OSError:
            pass
        time.sleep(0.5)
    start = time.monotonic()
    end = start + seconds
    threads = [threading.Thread(target=client_loop, args=(i,)) for i in range(n_clients)]
    for thread in threads:
        thread.start()
    sizes = []
    while time.monotonic() < end and server.poll() is None:
        time.sleep(max(0.5, seconds/60))
        if server.poll() is None:
            sizes.append(resident(server.pid))
    for thread in threads:
        thread.join(180)
    alive = server.poll() is None
    warm = sizes[len(sizes)//3:]
    third = max(1, len(warm)//3)
    growth = max(warm[-third:]) - max(warm[:third]) if warm else 0.0
    flat = sanitized or bool(warm) and growth < 0.03*warm[0]
    if alive:
        server.terminate()
        server.wait(60)
    reports = re.findall(r".*(?:ERROR: \w+Sanitizer|WARNING: \w+Sanitizer|SUMMARY: \w+Sanitizer|: runtime error: ).*", server_log())
    print(f"{n_clients} clients, {seconds} s: {counts['complete']} complete, {counts['cancelled']} cancelled, {counts['disconnected']} disconnected")
    print("resident MiB: " + " ".join(f"{x:.0f}" for x in sizes[::max(1, len(sizes)//12)]) + f"; growth after warming up {growth:.1f}")
    checks = [("no crash", alive, f"exit code {server.returncode}"),
              ("the server ends with exit code 0", server.returncode == 0, f"it was {server.returncode}"),
              ("no report of a sanitizer" if sanitized else "nothing on stderr that a sanitizer writes", not reports, f"{len(reports)}; {'; '.join(reports[:2])}"),
              ("every answer is complete", not wrong and counts["complete"] > 0, "; ".join(sorted(set(wrong))[:3]))]
    if not sanitized:
        checks.append(("resident memory is flat", flat, f"{growth:.1f} MiB more"))
    for name, good, why in checks:
        print(f"ok {name}" if good else f"FAIL {name}: {why}")
    if not all(good for _, good, _ in checks):
        print("the server's last lines:\n" + server_log()[-3000:])
    status = 0 if all(good for _, good, _ in checks) else 1
finally:
    if server.poll() is None:
        server.terminate()
        server.wait(30)
sys.exit(status)
