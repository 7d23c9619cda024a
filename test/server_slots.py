"""Starts a llama-server with four slots and writes a transcript: four streamed answers at once, the same questions again from
the prompt cache, a slot that is saved, restored and saved again, a text that goes past the context of its slot. The last line is `ok`.

    test/server_slots.py [--window] [--large] COMMAND...

--window: of a model with a sliding window, whose prompts are read again from their last checkpoint. --large: and the context of a slot
is larger than the window (512), so that the cache cannot shift: such a text ends with the context.
"""

import concurrent.futures
import itertools
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

QUESTIONS = ["The capital of France is", "The largest planet is called", "Water is made of hydrogen and", "One, two, three, four,"]
flags = list(itertools.takewhile(lambda word: word in ("--window", "--large"), sys.argv[1:]))
command = sys.argv[1 + len(flags):]
window, large = "--window" in flags, "--large" in flags
CONTEXT, COUNTED, PAST = (1024, 210, 0) if large else (512, 100, 80) # of a slot; numbers in its prompt; tokens written past it

with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
folder = tempfile.TemporaryDirectory()


def call(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    return direct.open(urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}), timeout=300)


def post(path, body):
    return json.load(call(path, body))


def ask(slot, stream):
    """The text and the number of prompt tokens that were read."""
    body = {"prompt": QUESTIONS[slot], "id_slot": slot, "n_predict": 16, "temperature": 0, "ignore_eos": True, "cache_prompt": True, "stream": stream}
    if not stream:
        answer = post("/completion", body)
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


def save(name):
    return post("/slots/3?action=save", {"filename": name})["n_saved"], pathlib.Path(folder.name, name).read_bytes()


def save_and_restore():
    saved, state = save("slot")
    post("/slots/3?action=erase", {})
    restored = post("/slots/3?action=restore", {"filename": "slot"})["n_restored"]
    _, again = save("again")
    text, read = ask(3, False)
    print(f"slot 3: {saved} tokens saved in {len(state)} bytes, {restored} restored, the same bytes saved again; {text!r} ({read} tokens read)")
    assert saved == restored, "not all tokens are restored"
    assert state == again, f"the restored slot has another state: {len(again)} bytes, {sum(a != b for a, b in zip(state, again))} differ"
    assert (read == 1 or window) and "five, six" in text, "the restored slot answers otherwise"


def past_the_context():
    """Counts on from a prompt that fills most of the slot: numbers that follow each other across the shift."""
    prompt = " ".join(f"{i}," for i in range(1, COUNTED + 1))
    room = CONTEXT - len(post("/tokenize", {"content": prompt, "add_special": True})["tokens"])
    assert 0 < room < 300, f"the prompt leaves {room} tokens"
    body = {"prompt": prompt, "id_slot": 3, "n_predict": room + max(PAST, 1), "n_keep": 4, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    answer = post("/completion", body)
    numbers = [int(x) for x in re.findall(r"\d+(?=,)", answer["content"])]
    print(f"past the context: {answer['tokens_predicted']} tokens, truncated {answer['truncated']}; {answer['content']!r}")
    assert answer["truncated"], "the context was not full"
    assert answer["tokens_predicted"] == room + PAST, "the answer is not complete"
    assert numbers == list(range(COUNTED + 1, COUNTED + 1 + len(numbers))) and len(numbers) > room//6, "it did not count on"


server = subprocess.Popen(command + (["-ub", "64"] if large else []) + ["--port", str(port), "-np", "4", "-c", str(4*CONTEXT), "--context-shift", "--slot-save-path", folder.name],
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
    assert all("five, six" in answers[3][0] for answers in (first, again)), "slot 3 cannot count"
    assert all(read < before if window else read == 1 for (_, before), (_, read) in zip(first, again)), "the prompt cache was not used"
    save_and_restore()
    past_the_context()
    print("ok")
finally:
    server.terminate()
    server.wait(30)
    folder.cleanup()
