"""The web page against the program that GOV_PROGRAM names, with nano, or a server that runs already at GOV_SERVER_URL."""
import os
import re
import subprocess

import pytest
from conftest import ROOT, fill, fresh, previews, requested


@pytest.fixture
def real_url():
    if url := os.environ.get("GOV_SERVER_URL"):
        yield url
        return
    if not (program := os.environ.get("GOV_PROGRAM")):
        pytest.skip("neither GOV_PROGRAM nor GOV_SERVER_URL is set")
    with subprocess.Popen([program, "serve", "--model", str(ROOT / "models/nano"), "--port", "0", "--quiet"], stdout=subprocess.PIPE, text=True) as server:
        yield re.search(r"http://\S+", server.stdout.readline())[0]
        server.terminate()


@pytest.fixture
def real(driver, real_url):
    url = real_url
    page = fresh(driver, url.rstrip("/") + "/").open()
    yield page
    assert page.js("return [window.breaches, window.failures]") == [[], []]
    outside = [u for u in requested(driver) if not u.startswith((page.url, "data:", "blob:", "about:"))]
    assert outside == []


def test_real_server(real):
    real.until(lambda: real.text("#model") not in ("", "no connection", "loading the model…"), what="the model's name")
    real.one('input[aria-label="Pictures"]').send_keys(str(ROOT / "models/nano/test_pictures/dog_face.png"))
    previews(real, 1)
    answer = real.ask("What is this?")
    assert answer and not real.all(".assistant .error"), real.text(".assistant .error")
    assert re.search(r"\d+ tokens.* prompt \d+ .*of pictures", real.text(".stats")), real.text(".stats")
    fill(real, temperature="0", seed="3", max_completion_tokens="40")
    assert real.ask("And what is it not?")
    real.button("Ask again")
    real.until(lambda: real.text(".assistant:last-child .branches") == "2/2", what="another version")
    real.idle()
    first = real.answers()[-1]
    real.button("Earlier version")
    assert real.answers()[-1] == first, "the same seed gives the same answer"
    real.shot("real-chat")
    real.click("#view-live")
    real.until(lambda: real.text(".about"), what="live state")
    assert re.search(r"[1-9]\d* done", real.text("#live"))
    if real.all(".heat:not([hidden])"):
        assert "No rows yet" not in real.text("#live"), "text and image rows were counted"
    real.shot("real-live")
