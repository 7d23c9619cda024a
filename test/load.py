#!/usr/bin/env python3
"""llama-server under load: clients with random prompts, cancellations and disconnects, for some minutes.

    test/load.py SECONDS CLIENTS COMMAND...       e.g. 300 8 build/bin/llama-server -m model.gguf --hex balanced

No crash, no report of a sanitizer, every answer that was not cancelled complete, a tenth of them past the context of a slot, resident
memory flat, exit code 0 when it is asked to end: the last lines say `ok` or `FAIL`. What the server wrote is in the file $LOAD_LOG, or in
a temporary one. With LOAD_SANITIZED=1 memory is not judged: a sanitizer keeps what was freed for a while.

Memory is flat if, with every slot and the prompt cache filled before the clock starts, the line through the last two thirds of its
samples rises by less than 1 % of the resident size in five minutes. A run below that is warming up for longer: the last half counts,
and 3 % over the run are allowed.
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
sanitized = os.environ.get("LOAD_SANITIZED") == "1"
CONTEXT = 256 if sanitized else 512 # of a slot: a sanitized server is slow
n_shifted = 0 # answers that went past it
wrong = []
lock = threading.Lock()
end = 0.0


def connect(timeout=120):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)


def request(rng, long):
    if long: # words are tokens
        n = rng.randint(CONTEXT*3//10, CONTEXT*4//10)
        return n, {"prompt": " ".join(rng.choice(WORDS) for _ in range(rng.randint(CONTEXT*78//100, CONTEXT*86//100))), "n_predict": n, "n_keep": 4, "ignore_eos": True, "stream": True}
    n = rng.randint(4, 64)
    prompt = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 150)))
    if rng.random() < 0.3: # a common beginning, for the prompt cache
        prompt = " ".join(WORDS) + " " + prompt
    return n, {"prompt": prompt, "n_predict": n, "ignore_eos": True, "stream": True, "seed": rng.randint(0, 9999), "cache_prompt": rng.random() < 0.8}


def one(rng, long, slot=-1):
    global n_shifted
    n, body = request(rng, long)
    body["id_slot"] = slot
    kind = "complete" if long else rng.choices(["complete", "cancelled", "disconnected"], [6, 2, 1])[0]
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
        if long:
            if not done["truncated"] or done["tokens_evaluated"] + n <= CONTEXT:
                return f"{done['tokens_evaluated']} + {n} tokens, and no context shift"
            with lock:
                n_shifted += 1
        return "complete"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        client.close()


def client_loop(seed):
    rng = random.Random(seed)
    number = seed
    while time.monotonic() < end:
        number += 1
        result = one(rng, number % (3 if sanitized else 10) == 0) # the first of them soon: clients start at different numbers
        with lock:
            if result in counts:
                counts[result] += 1
            else:
                wrong.append(result)


def warm_up():
    """Every slot is full once, and the prompt cache as well."""
    global n_shifted
    rngs = [random.Random(1000 + slot) for slot in range(4)]
    for _ in range(2):
        threads = [threading.Thread(target=one, args=(rngs[slot], True, slot)) for slot in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    n_shifted = 0


def slope(values, step):
    """Of the least-squares line, in units per minute; values are STEP seconds apart."""
    n = len(values)
    if n < 2:
        return 0.0
    middle, mean = (n - 1)/2, sum(values)/n
    return sum((i - middle)*(v - mean) for i, v in enumerate(values))/sum((i - middle)**2 for i in range(n))*60/step


def resident(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])/1024
    return 0.0


# The server's own prompt cache grows by design: it is bounded, so that what is left would be a leak. glibc keeps freed blocks, more of
# them as larger ones are freed (stock llama-server then grows by 3 % in five minutes): with fixed thresholds it returns them.
held = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
log = open(os.environ["LOAD_LOG"], "w+b") if "LOAD_LOG" in os.environ else tempfile.TemporaryFile()
server = subprocess.Popen(command + ["--port", str(port), "-np", "4", "-c", str(4*CONTEXT), "--context-shift", "--cache-ram", "4"], stdout=subprocess.DEVNULL, stderr=log, env={**held, **os.environ})


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
    if not sanitized:
        warm_up()
    start = time.monotonic()
    end = start + seconds
    threads = [threading.Thread(target=client_loop, args=(i,)) for i in range(n_clients)]
    for thread in threads:
        thread.start()
    sizes, step = [], max(0.5, seconds/60)
    while time.monotonic() < end and server.poll() is None:
        time.sleep(step)
        if server.poll() is None:
            sizes.append(resident(server.pid))
    for thread in threads:
        thread.join(180)
    alive = server.poll() is None
    full = seconds >= 300
    warm = sizes[len(sizes)//3 if full else len(sizes)//2:]
    rise = slope(warm, step)
    minutes, allowed = (5, 0.01) if full else (seconds/60, 0.03)
    percent = 100*rise*minutes/warm[0] if warm else 0.0
    flat = bool(warm) and percent < 100*allowed
    growth = f"{rise:+.2f} MiB per minute after warming up, {percent:+.2f} % in {minutes:.1f} minutes (limit {100*allowed:.0f} %)"
    if alive:
        server.terminate()
        server.wait(60)
    reports = re.findall(r".*(?:ERROR: \w+Sanitizer|WARNING: \w+Sanitizer|SUMMARY: \w+Sanitizer|: runtime error: ).*", server_log())
    print(f"{n_clients} clients, {seconds} s: {counts['complete']} complete, {counts['cancelled']} cancelled, {counts['disconnected']} disconnected; {n_shifted} went past the context of {CONTEXT} tokens")
    print("resident MiB: " + " ".join(f"{x:.0f}" for x in sizes[::max(1, len(sizes)//12)]) + f"; {growth}")
    checks = [("no crash", alive, f"exit code {server.returncode}"),
              ("the server ends with exit code 0", server.returncode == 0, f"it was {server.returncode}"),
              ("no report of a sanitizer" if sanitized else "nothing on stderr that a sanitizer writes", not reports, f"{len(reports)}; {'; '.join(reports[:2])}"),
              ("every answer is complete", not wrong and counts["complete"] > 0, "; ".join(sorted(set(wrong))[:3])),
              ("answers past the context of a slot, and their context shifts in the log", n_shifted > 0 and server_log().count("context shift, n_keep") >= n_shifted, f"{n_shifted} answers")]
    if not sanitized:
        checks.append(("resident memory is flat", flat, growth))
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
