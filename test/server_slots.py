"""Starts a llama-server (the command given) with four slots and writes a transcript: four streamed answers at once, the
same questions again from the prompt cache, a slot that is saved and restored. The last line is `ok`."""

import concurrent.futures
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

QUESTIONS = ["The capital of France is", "The largest planet is called", "Water is made of hydrogen and", "One, two, three, four,"]

with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
folder = tempfile.TemporaryDirectory()


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    return direct.open(urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}), timeout=300)


def ask(slot, stream):
    """The text and the number of prompt tokens that were read."""
    body = {"prompt": QUESTIONS[slot], "id_slot": slot, "n_predict": 16, "temperature": 0, "ignore_eos": True, "cache_prompt": True, "stream": stream}
    if not stream:
        answer = json.load(call("/completion", body))
        return answer["content"], answer["timings"]["prompt_n"]
    text, read = "", None
    for line in call("/completion", body):
        if line.startswith(b"data: "):
            part = json.loads(line[6:])
            text += part["content"]
            if part["stop"]:
                read = part["timings"]["prompt_n"]
    return text, read


def all_slots(title, stream):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda slot: ask(slot, stream), range(4)))
    print(title)
    for question, (text, read) in zip(QUESTIONS, answers):
        print(f"    {question!r} + {text!r} ({read} tokens read)")
        assert text and read is not None, "an answer is not complete"
    return answers


server = subprocess.Popen(sys.argv[1:] + ["--port", str(port), "-np", "4", "-c", "2048", "--slot-save-path", folder.name],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    for _ in range(240):
        assert server.poll() is None, f"the server ended with exit code {server.returncode}"
        try:
            call("/health")
            break
        except OSError:
            time.sleep(0.5)
    first = all_slots("four slots at once, streamed:", True)
    again = all_slots("again, from the prompt cache:", False)
    assert "Paris" in first[0][0], "slot 0 does not know the capital of France"
    assert all(read == 1 for _, read in again), "the prompt cache was not used"
    assert "Paris" in again[0][0], "another answer from the prompt cache"
    saved = json.load(call("/slots/0?action=save", {"filename": "slot"}))
    json.load(call("/slots/0?action=erase", {}))
    restored = json.load(call("/slots/0?action=restore", {"filename": "slot"}))
    text, read = ask(0, False)
    print(f"slot 0: {saved['n_saved']} tokens saved, {restored['n_restored']} restored; {text!r} ({read} tokens read)")
    assert saved["n_saved"] == restored["n_restored"] and read == 1 and "Paris" in text, "the restored slot answers otherwise"
    print("ok")
finally:
    server.terminate()
    server.wait(30)
    folder.cleanup()
