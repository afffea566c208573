#!/usr/bin/env python3
"""Talks with `gpt-oss-vision chat` on a pseudo-terminal, as a person does.

    chat_pty.py PROGRAM NANO      PROGRAM: the built gpt-oss-vision; NANO: the folder of the model nano

Prints one line per test and exits 1 if one failed. Standard library only.
"""
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import stat
import sys
import tempfile
import termios
import time

PROGRAM, NANO = sys.argv[1], pathlib.Path(sys.argv[2])
DOG = NANO / "test_pictures/dog_face.png"
SECONDS = 120  # until something expected must have come; a loaded machine with sanitizers is slow
ENDLESS = [part for end in (4087, 4088, 4094) for part in ("--logit-bias", f"{end}=-100")]  # nano's end tokens forbidden
ANSWER = "This is a dog face. Related words: adorbs, animal, dog."
STYLE = re.compile(rb"\x1b\[[0-9;]*m")
PROMPT = "> "


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, arguments, home, environment):
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("GPT_OSS_VISION_", "LC_"))}
        variables.pop("NO_COLOR", None)
        variables.update(HOME=str(home), XDG_STATE_HOME=str(home / "state"), TERM="xterm", LANG="C.UTF-8")
        variables.update(environment)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(PROGRAM, [PROGRAM, "chat", "--model", str(NANO), *arguments], variables)
        self.editing = variables["TERM"] != "dumb"
        self.output = b""
        self.at = 0  # what was expected so far ends here
        self.status = None

    def read(self, seconds):
        """Reads what there is; False at the end of the program's output."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.output += data
        return bool(data)

    def expect(self, text):
        """Waits for a text (styles are ignored) behind what was expected before; returns what came up to its end."""
        wanted = text.encode()
        end = time.monotonic() + SECONDS
        alive = True
        while True:
            seen = STYLE.sub(b"", self.output)
            found = seen.find(wanted, self.at)
            if found >= 0:
                before, self.at = self.at, found + len(wanted)
                return seen[before:self.at].decode(errors="replace")
            if not alive or time.monotonic() > end:
                raise AssertionError(f"expected {text!r}, got {seen[self.at:]!r}")
            alive = self.read(0.2)

    def send(self, text):
        os.write(self.fd, text.encode())

    def prompt(self, text=PROMPT):
        """Waits for a prompt, and until keys are taken: libedit changes the terminal's mode behind the prompt."""
        self.expect(text)
        end = time.monotonic() + SECONDS
        while self.editing and termios.tcgetattr(self.fd)[3] & termios.ICANON:
            if time.monotonic() > end:
                raise AssertionError("the terminal is not ready for a line")
            time.sleep(0.002)

    def say(self, text):
        """Types a line at the prompt."""
        self.prompt()
        self.send(text + "\r")

    def ends(self):
        """Waits for the program's end; its exit status."""
        end = time.monotonic() + SECONDS
        while self.read(0.2) and time.monotonic() < end:
            pass
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                return self.status
            time.sleep(0.05)
        raise AssertionError(f"the program did not end: {self.output[-300:]!r}")

    def close(self):
        if self.status is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        os.close(self.fd)


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def messages_of(file):
    return json.loads(file.read_text())["messages"]


def picture_save_and_load(start, home):
    t = start()
    t.expect("/help lists the commands")
    t.say(f"/image {DOG}")
    t.expect("the next message has 1 picture, 258 tokens: dog_face.png (PNG, 96 x 96)")
    t.expect("[1 picture] ")
    t.say("What is this?")
    t.expect(ANSWER)
    t.expect(" tokens/s, first after ")
    t.say(f"/save {home}/talk.json")
    t.expect("wrote 1 message")
    t.say(f"/save {home}/talk.md")
    t.expect("wrote 1 message")
    t.say("/reset")
    t.expect("a new conversation")
    t.say(f"/load {home}/talk.json")
    t.expect("1 message from")
    t.say("/retry")
    t.expect(ANSWER)
    t.say("/stats")
    t.expect("from the prefix cache")
    t.say("/quit")
    equal(t.ends(), 0)
    equal([m["role"] for m in messages_of(home / "talk.json")], ["user", "assistant"])
    assert ANSWER in (home / "talk.md").read_text()


def interrupt_stops_the_answer_only(start, home):
    t = start(*ENDLESS, "--max-new-tokens", "1000000", "--context", "100000")
    t.say("What is a dog?")
    t.expect("\n")
    seen = len(t.output)
    while len(t.output) < seen + 100:  # it is answering
        t.read(1)
    t.send("\x03")
    t.expect(", stopped")
    t.say("/set max_tokens 5")
    t.say("What is a cat?")
    t.expect("5 tokens")
    t.say(f"/save {home}/stopped.json")
    t.expect("wrote 2 messages")
    t.prompt()
    t.send("half a li\x03")
    t.expect("Ctrl-C again, or Ctrl-D, leaves")
    t.say("/set seed 3")  # the half line is gone, and it goes on
    t.expect("seed 3")
    t.prompt()
    t.send("\x03")
    t.expect("Ctrl-C again")
    t.prompt()
    t.send("\x03")
    equal(t.ends(), 0)
    assert len(messages_of(home / "stopped.json")[1]["content"]) > 20  # what was said is kept


def a_stopped_retry_keeps_the_answer(start, home):
    t = start(*ENDLESS, "--max-new-tokens", "20", "--context", "100000")
    t.say("What is a dog?")
    t.expect("20 tokens")
    t.say(f"/save {home}/before.json")
    t.expect("wrote 1 message")
    t.say("/set max_tokens 1000000")
    t.expect("max_tokens 1000000")
    t.say("/retry")
    t.expect("\n")
    seen = len(t.output)
    while len(t.output) < seen + 300:
        t.read(1)
    t.send("\x03")
    t.expect("the answer from before stays")
    t.say(f"/save {home}/after.json")
    t.expect("wrote 1 message")
    t.say("/quit")
    equal(t.ends(), 0)
    equal(messages_of(home / "after.json"), messages_of(home / "before.json"))


def pasted_text_is_one_message(start, home):
    t = start()
    t.prompt()
    t.send("\x1b[200~first line\nsecond /quit\n/quit\n\x1b[201~")
    t.send(" end\r")
    t.expect("context ")
    t.say(f"/save {home}/pasted.json")
    t.expect("wrote 1 message")
    t.say("one \\")
    t.prompt("... ")
    t.send("two\r")
    t.expect("context ")
    t.prompt()
    t.send('"""\r')
    t.prompt("... ")
    t.send("three\r")
    t.prompt("... ")
    t.send('four"""\r')
    t.expect("context ")
    t.say(f"/save {home}/pasted.json")
    t.expect("wrote 3 messages")
    t.prompt()
    t.send("\x04")
    equal(t.ends(), 0)
    equal([m["content"] for m in messages_of(home / "pasted.json") if m["role"] == "user"],
          ["first line\nsecond /quit\n/quit end", "one \ntwo", "three\nfour"])


def history_is_private_and_comes_back(start, home):
    t = start()
    t.say("/set seed 11")
    t.expect("seed 11")
    t.say("/set top_k 5")
    t.expect("top_k 5")
    t.prompt()
    t.send("\x04")
    equal(t.ends(), 0)
    file = home / "state/gpt-oss-vision/chat_history"
    equal(stat.S_IMODE(file.stat().st_mode), 0o600)
    equal(file.read_text(), "/set seed 11\n/set top_k 5\n")
    t = start()
    t.prompt()
    t.send("\x1b[A\x1b[A\r")  # up, up
    t.expect("seed 11")
    t.expect("seed 11")
    t.prompt()
    t.send("\x04")
    equal(t.ends(), 0)
    t = start("--no-history")
    t.say("/set seed 99")
    t.expect("seed 99")
    t.say("/quit")
    equal(t.ends(), 0)
    assert "99" not in file.read_text()


def tab_completes(start, home):
    folder = home / "my pictures"
    folder.mkdir()
    shutil.copy(DOG, folder / "a dog.png")
    t = start()
    t.prompt()
    t.send(f"/im\t{home}/my\t\t\r")
    t.expect("dog.png (PNG, 96 x 96)")
    t.prompt()
    t.send("/re\t")
    t.expect("/reset  /retry")
    t.send("t\t\r")
    t.expect("there is no message yet")
    t.say("/quit")
    equal(t.ends(), 0)


def colours_only_where_wanted(start, home):
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        t = start(environment=environment)
        t.say("What is a dog?")
        t.expect(" tokens/s, first after ")
        t.prompt()
        t.send("/quit\r")
        equal(t.ends(), 0)
        equal(b"\x1b[2m" in t.output, coloured)


def dropping_is_asked_for(start, home):
    words = "dog cat " * 28
    t = start("--context", "256", "--max-new-tokens", "4")
    for answer in "ny":
        t.say("/reset")
        t.say(words)
        t.expect("4 tokens")
        t.say(words)
        t.expect("4 tokens")
        t.say(words)
        t.expect("Forget the oldest ")
        t.prompt("[y/N] ")
        t.send(answer + "\r")
        t.expect("error: the conversation takes" if answer == "n" else "forgot the oldest")
    t.expect("4 tokens")
    t.say("/quit")
    equal(t.ends(), 0)
    t = start("--context", "256", "--max-new-tokens", "60", *ENDLESS)
    t.say("dog cat " * 75)
    t.expect("60 tokens")
    t.expect("% full; /drop forgets the oldest messages")
    t.say("/quit")
    equal(t.ends(), 0)


def main():
    failed = 0
    tests = [picture_save_and_load, interrupt_stops_the_answer_only, a_stopped_retry_keeps_the_answer,
             pasted_text_is_one_message,
             history_is_private_and_comes_back, tab_completes, colours_only_where_wanted, dropping_is_asked_for]
    for test in tests:
        home = pathlib.Path(tempfile.mkdtemp(prefix="gov_chat_"))
        terminals = []

        def start(*arguments, environment=None):
            terminals.append(Terminal(arguments, home, environment or {}))
            return terminals[-1]

        begin = time.monotonic()
        try:
            test(start, home)
            print(f"ok    {test.__name__} ({time.monotonic() - begin:.1f} s)")
        except AssertionError as error:
            failed += 1
            print(f"FAIL  {test.__name__}: {error}")
        for terminal in terminals:
            terminal.close()
        shutil.rmtree(home, ignore_errors=True)
    sys.exit(1 if failed else 0)


main()
