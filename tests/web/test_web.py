"""The web page in headless Chromium, against the mock server."""
import base64
import json
import re
import struct
import time
import zlib

import pytest
from conftest import ROOT, fill, previews
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys


def png(width=40, height=30, colour=(200, 60, 20)):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes(colour) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# Makes File objects in the page from base64 and hands them over as a paste or a drop does.
TRANSFER = """
const [kind, files] = arguments, transfer = new DataTransfer();
for (const [name, type, data] of files) transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, {type}));
const target = document.querySelector(kind === "paste" ? "#prompt" : "body");
if (kind === "paste") target.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true}));
else for (const event of ["dragenter", "dragover", "drop"]) target.dispatchEvent(new DragEvent(event, {dataTransfer: transfer, bubbles: true, cancelable: true}));
"""


def hand_over(page, kind, *files):
    page.js(TRANSFER, kind, [[name, mime, base64.b64encode(data).decode()] for name, mime, data in files])


def test_units(page):
    """The pure modules: markdown, math, code, trees, events, pictures, store; see unit/."""
    page.driver.get(page.url + "unit/index.html")
    end = time.time() + 120
    while time.time() < end and not page.js("return window.results?.done"):
        time.sleep(0.1)
    results = page.js("return window.results")
    assert results["done"], "the unit tests did not end"
    assert results["failures"] == []
    assert results["passed"] > 135


def test_size():
    """The page is light: everything that a browser loads, uncompressed."""
    assert sum(file.stat().st_size for file in (ROOT / "src/server/web").iterdir()) <= 136 << 10


# ---- chat
def test_streams_an_answer(page, server):
    page.send("slow")
    page.until(lambda: 10 < len(page.answers()[-1]) < 2000 if page.answers() else False, what="a part of the answer")
    assert page.all('.assistant[aria-busy="true"]') and page.all('.send[aria-label="Stop"]')
    page.until(lambda: "tokens/s" in page.text(".assistant .stats"), what="the speed, while it goes on")
    page.click(".send")
    page.idle()
    assert "You stopped this answer." in page.text(".assistant")
    page.until(lambda: server.disconnects == 1, what="the server sees that the client is gone")
    request = server.requests[0]
    assert request["stream"] is True and request["stream_options"] == {"include_usage": True} and request["model"] == "mock-nano"
    assert request["messages"] == [{"role": "user", "content": "slow"}]


def test_history_goes_along_and_statistics_are_shown(page, server):
    page.ask("first")
    page.ask("second")
    assert [m["role"] for m in server.requests[1]["messages"]] == ["user", "assistant", "user"]
    assert re.search(r"\d+ tokens · \d+(\.\d)? tokens/s · first after [\d.]+ m?s · prompt 40 \(16 cached\)", page.text(".assistant:last-child .stats"))
    page.until(lambda: "of 4,096 tokens" in page.text(".composer-note"), what="context use")


def test_markdown_math_code_and_reasoning(page):
    page.ask("markdown")
    assert page.text(".assistant h4") == "Mixture of experts"
    assert len(page.all(".assistant math")) == 2 and len(page.all(".assistant tbody tr")) == 2 and page.all(".assistant .hl-keyword")
    assert page.text(".assistant a") == "https://example.com/moe" and page.one(".assistant a").get_attribute("rel") == "noopener noreferrer nofollow"
    assert re.match(r"Thought for [\d.]+ m?s · 12 tokens", page.text("summary.reasoning"))
    assert "The user asks" not in page.text(".assistant .fold")
    page.click("summary.reasoning")
    page.until(lambda: "The user asks" in page.text(".assistant .fold"), what="unfolded reasoning")
    page.button("Copy code")
    page.until(lambda: page.all('button[aria-label="Copied"]'), what="copied")
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        page.shot(f"chat-{scheme}")


def test_model_output_is_inert(page):
    page.ask("say <img src=x onerror=\"window.hit=1\"> <script>window.hit=1</script> [x](javascript:window.hit=1) $\\text{<img onerror=hit=1 src=y>}$ ![y](https://evil.example/z.png)")
    assert page.js("return window.hit") is None
    assert not page.all(".assistant img, .assistant script") and [a.get_attribute("href") for a in page.all(".assistant a")] == ["https://evil.example/z.png"]


def test_stop_with_escape_and_retry_and_branches(page, server):
    page.send("slow")
    page.until(lambda: page.answers() and page.answers()[-1], what="some text")
    page.press(Keys.ESCAPE)
    page.idle()
    page.ask("one")
    page.button("Ask again")
    page.until(lambda: len(server.requests) == 3 and not page.all('[aria-busy="true"]'), what="another answer")
    assert "Answer 3 to: one" in page.answers()[-1] and page.text(".assistant:last-child .branches") == "2/2"
    page.button("Earlier version")
    assert "Answer 2 to: one" in page.answers()[-1] and page.focus() == "Later version"
    page.button("Later version")
    assert "Answer 3 to: one" in page.answers()[-1]
    assert server.requests[2]["messages"] == server.requests[1]["messages"]


def test_edit_makes_a_branch(page, server):
    page.ask("one")
    page.ask("two")
    page.button("Edit message", at=0)
    editor = page.one(".editor textarea")
    assert editor.get_attribute("value") == "one"
    editor.send_keys(Keys.ESCAPE)
    assert page.focus() == "Edit message" and len(page.all(".user")) == 2
    page.button("Edit message", at=0)
    page.one(".editor textarea").send_keys(" and a half", Keys.ENTER)
    page.until(lambda: len(page.all(".user")) == 1, what="the branch")
    page.idle()
    assert server.requests[-1]["messages"] == [{"role": "user", "content": "one and a half"}]
    page.button("Earlier version", ".user")
    assert len(page.all(".user")) == 2
    page.one("#prompt").click()
    page.press(Keys.ARROW_UP)
    page.until(lambda: page.all(".editor"), what="arrow up edits the last question")
    assert page.one(".editor textarea").get_attribute("value") == "two"


@pytest.mark.parametrize("text, message", [("busy", "Too many requests are waiting (try again in 7 s)"), ("broken stream", "The connection broke before the answer was complete"),
                                           ("error event", "The model failed")])
def test_errors_are_one_line(page, text, message):
    page.ask(text)
    assert page.text(".error span") == message and page.one(".error").get_attribute("role") == "alert"
    assert page.text(".error button") == "Retry"


def test_retry_after_an_error(page, server):
    page.ask("fail once")
    assert page.text(".error span") == "The logits are not finite"
    page.click(".error button")
    page.until(lambda: page.answers() and "fail once" in page.answers()[-1], what="the second try")
    page.idle()
    assert not page.all(".assistant .error") and len(page.all(".assistant")) == 1 and not page.all(".branches")


def test_retry_keeps_what_follows_a_failed_answer(page, server):
    page.ask("busy")
    page.ask("and now?")
    page.click(".error button")
    page.until(lambda: len(server.requests) == 3, what="the second try")
    page.idle()
    assert page.text(".assistant .branches") == "2/2"
    page.button("Earlier version", ".assistant")
    assert len(page.all(".user")) == 2 and "and now?" in page.answers()[-1]


def test_a_status_is_no_model_name(page, server):
    server.loading = True
    page.open()
    page.until(lambda: page.text("#model") == "loading the model…", what="it says so")
    page.ask("early")
    assert "model" not in server.requests[0]
    server.loading = False


def test_two_tabs(page, server):
    driver, first = page.driver, page.driver.current_window_handle
    page.ask("from the first")
    driver.switch_to.new_window("tab")
    try:
        page.open()
        page.until(lambda: page.answers(), what="the same chat")
        page.ask("from the second")
        driver.switch_to.window(first)
        page.until(lambda: len(page.answers()) == 2, what="the other tab's messages")
        page.ask("again from the first")
        driver.switch_to.window(driver.window_handles[1])
        page.open()
        page.until(lambda: len(page.answers()) == 3, what="all messages")
        page.button("Delete from the first")
        page.click("dialog .danger")
        page.until(lambda: page.all(".welcome"), what="nothing left")
        driver.close()
    finally:
        driver.switch_to.window(first)
    page.until(lambda: page.all(".welcome") and not page.all(".chat-title"), what="gone here too")


def test_server_gone(page, server):
    page.js("window.fetch = () => Promise.reject(new TypeError('network'))")
    page.ask("hello")
    assert page.text(".error span") == "The server cannot be reached"


def test_waits_for_the_model(page, server):
    server.loading = True
    page.open()
    page.until(lambda: page.text("#model") == "loading the model…", what="it says so")
    server.loading = False
    page.until(lambda: page.text("#model") == "mock-nano", what="it asks again")


def test_token_limit_is_said(page):
    page.ask("long")
    assert "Stopped at the token limit." in page.text(".assistant")


def test_api_key(page, server):
    server.key = "secret"
    page.open()
    page.one("dialog input[type=password]").send_keys("wrong", Keys.ENTER)
    page.until(lambda: page.all("dialog input") and page.one("dialog input").get_attribute("value") == "", what="asked again")
    page.one("dialog input").send_keys("secret", Keys.ENTER)
    page.until(lambda: page.text("#model") == "mock-nano", what="the model's name")
    assert "Answer" in page.ask("hi")
    assert page.js("return [sessionStorage.length, JSON.stringify(localStorage).includes('secret')]") == [1, False]


# ---- pictures
@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_paste_and_drop(page, server, kind):
    hand_over(page, kind, ("a.png", "image/png", png()), ("b.png", "image/png", png(10, 60)))
    previews(page, 2)
    page.button("Remove a.png")
    previews(page, 1)
    assert page.ask("what is this?") == "I see 1 picture(s)."
    parts = server.requests[0]["messages"][0]["content"]
    assert parts[1] == {"type": "text", "text": "what is this?"}
    assert base64.b64decode(parts[0]["image_url"]["url"].split(",")[1]) == png(10, 60), "a picture within the limits is sent byte for byte"
    assert len(page.all(".user .pictures img")) == 1 and not page.all(".composer .previews img")
    assert "258 of pictures" in page.text(".stats")


def test_choose(page, server):
    files = sorted((ROOT / "models/nano/test_pictures").glob("*.png"))[:2]
    page.one('input[aria-label="Pictures"]').send_keys("\n".join(map(str, files)))
    previews(page, 2)
    page.shot("pictures")
    assert page.ask("") == "I see 2 picture(s)."
    assert [part["type"] for part in server.requests[0]["messages"][0]["content"]] == ["image_url", "image_url"]


def test_what_is_no_picture(page, server):
    hand_over(page, "drop", ("a.txt", "text/plain", b"hello"))
    page.until(lambda: page.text("#toast") == "Only pictures can be added", what="refusal")
    hand_over(page, "drop", ("a.png", "image/png", b"hello"))
    page.until(lambda: page.text("#toast") == "a.png is not a PNG, JPEG, WebP, GIF or BMP picture", what="refusal")
    hand_over(page, "paste", *[(f"{i}.png", "image/png", png(4, 4)) for i in range(20)])
    previews(page, 16)
    page.until(lambda: page.text("#toast") == "At most 16 pictures in one chat", what="limit")


def test_pictures_of_the_whole_chat_count(page, server):
    hand_over(page, "paste", *[(f"{i}.png", "image/png", png(4, 4)) for i in range(15)])
    previews(page, 15)
    page.ask("look")
    hand_over(page, "paste", ("a.png", "image/png", png()), ("b.png", "image/png", png()))
    previews(page, 1)
    page.until(lambda: page.text("#toast") == "At most 16 pictures in one chat", what="limit")
    page.ask("and this?")
    assert sum(part["type"] == "image_url" for message in server.requests[1]["messages"] if isinstance(message["content"], list) for part in message["content"]) == 16


def test_edit_keeps_pictures(page, server):
    hand_over(page, "paste", ("a.png", "image/png", png()), ("b.png", "image/png", png()))
    previews(page, 2)
    page.ask("look")
    page.button("Edit message")
    page.button("Remove b.png", ".editor")
    page.one(".editor textarea").send_keys(" again", Keys.ENTER)
    page.until(lambda: len(server.requests) == 2, what="request")
    assert [part["type"] for part in server.requests[1]["messages"][0]["content"]] == ["image_url", "text"]
    page.idle()


# ---- settings, tools
def test_settings_are_sent(page, server):
    fill(page, system="Be brief.", temperature="0.5", top_p="0.9", top_k="40", min_p="0.05", seed="7", max_completion_tokens="64", reasoning_effort="high")
    page.until(lambda: not page.all("dialog"), what="closed dialog")
    page.ask("hi")
    request = server.requests[0]
    assert {k: request[k] for k in ("temperature", "top_p", "top_k", "min_p", "seed", "max_completion_tokens", "reasoning_effort")} == {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 7, "max_completion_tokens": 64, "reasoning_effort": "high"}
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    page.open()
    page.click("#settings")
    assert page.one("dialog [name=top_k]").get_attribute("value") == "40"
    page.shot("settings")
    page.js("[...document.querySelectorAll('dialog button')].find((b) => b.innerText === 'Reset').click(); document.querySelector('dialog .primary').click()")
    page.ask("again")
    assert "temperature" not in server.requests[1] and server.requests[1]["messages"][0]["role"] == "user"


def test_wrong_settings_are_refused(page, server):
    fill(page, temperature="3")
    assert page.all("dialog") and not page.js("return document.querySelector('dialog [name=temperature]').validity.valid")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.all("dialog"), what="closed dialog")
    fill(page, tools="{")
    assert page.js("return document.querySelector('dialog [name=tools]').validationMessage").startswith("Tools: ")


def test_tool_calls(page, server):
    fill(page, tools=json.dumps([{"name": "get_weather", "parameters": {"type": "object"}}]))
    page.send("weather?")
    page.one(".results textarea").send_keys("21 degrees")
    assert page.text(".call-name").strip() == "get_weather" and json.loads(page.text(".call pre")) == {"city": "Paris"}
    page.shot("tools")
    page.click(".results .primary")
    page.until(lambda: page.answers()[-1] == "The tool says: 21 degrees", what="the answer after the result")
    assert server.requests[0]["tools"] == [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    assert server.requests[1]["messages"][1]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert server.requests[1]["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"}
    assert page.text(".tool summary").strip() == "Result of get_weather"


# ---- the list of chats
def test_chats_are_kept(page, server):
    page.ask("the first chat")
    page.click(".new-chat")
    page.ask("the second chat")
    page.until(lambda: page.js("return [...document.querySelectorAll('.chat-title')].map((e) => e.innerText)") == ["the second chat", "the first chat"], what="two chats")
    page.open()
    page.until(lambda: page.answers() and "the second chat" in page.answers()[0], what="the last chat again")
    page.js("document.querySelectorAll('.chat-title')[1].click()")
    page.until(lambda: "the first chat" in page.answers()[0], what="the other chat")
    page.button("Rename the first chat")
    page.one("dialog input").send_keys(Keys.CONTROL, "a")
    page.one("dialog input").send_keys("renamed", Keys.ENTER)
    page.until(lambda: "renamed" in page.text(".chats"), what="the new name")
    page.button("Delete renamed")
    page.until(lambda: page.all("dialog .danger"), what="question")
    page.click("dialog .danger")
    page.until(lambda: len(page.all(".chat-title")) == 1 and page.all(".welcome"), what="one chat left, a new one shown")
    assert page.js("return localStorage.length") <= 5


def test_export_and_import(page, server, tmp_path):
    hand_over(page, "paste", ("a.png", "image/png", png()))
    previews(page, 1)
    page.ask("keep this")
    page.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.button("Export all chats")
    page.until(lambda: list(tmp_path.glob("chats*.json")), what="the file")
    page.button("Delete all chats")
    page.click("dialog .danger")
    page.until(lambda: not page.all(".chat-title"), what="nothing left")
    page.one('input[aria-label="File to import"]').send_keys(str(tmp_path / "chats.json"))
    page.until(lambda: page.all(".chat-title"), what="the chat is back")
    page.click(".chat-title")
    page.until(lambda: page.answers() == ["I see 1 picture(s)."] and page.all(".user .pictures img"), what="with its picture")
    (tmp_path / "bad.json").write_text("{")
    page.one('input[aria-label="File to import"]').send_keys(str(tmp_path / "bad.json"))
    page.until(lambda: page.text("#toast") == "Not imported: the file is not JSON", what="refusal")


def test_an_answer_goes_on_while_another_chat_is_open(page, server):
    page.send("slow")
    page.until(lambda: page.answers() and page.answers()[-1], what="some text")
    page.click(".new-chat")
    assert "Answer 2" in page.ask("meanwhile")
    page.js("[...document.querySelectorAll('.chat-title')].find((e) => e.innerText === 'slow').click()")
    page.until(lambda: page.all('.assistant[aria-busy="true"]'), what="the running answer")
    before = len(page.answers()[0])
    page.until(lambda: len(page.answers()[0]) > before, what="more text")
    page.click(".send")
    page.idle()


def test_a_deleted_chat_stays_deleted(page, server):
    page.send("slow")
    page.until(lambda: page.answers() and page.answers()[-1], what="some text")
    page.button("Delete slow")
    page.click("dialog .danger")
    page.until(lambda: server.disconnects == 1, what="the answer is stopped")
    time.sleep(0.3)
    page.open()
    page.until(lambda: "No chats yet." in page.text(".chats"), what="no chats")


# ---- looks
def contrast(page, css):
    return page.js("""
      const parse = (c) => { const x = document.createElement('canvas').getContext('2d', {willReadFrequently: true}); x.fillStyle = c; x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data]; };
      const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
      const e = document.querySelector(arguments[0]);
      let b = e;
      while (b && parse(getComputedStyle(b).backgroundColor)[3] < 255) b = b.parentElement;
      const [x, y] = [light(parse(getComputedStyle(e).color)), light(parse(getComputedStyle(b || document.body).backgroundColor))];
      return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);""", css)


def test_light_and_dark(page):
    page.ask("markdown")
    page.send("busy")
    page.one(".error")
    spots = [".bubble", ".assistant p", ".stats", ".hint", ".model", ".hl-keyword", ".hl-string", ".hl-comment", ".hl-call", ".hl-number", ".assistant a", ".error span", "figcaption", "summary.reasoning", ".views a:not([aria-current=page])", "blockquote"]
    background = "return getComputedStyle(document.body).backgroundColor"
    seen = set()
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        seen.add(page.js(background))
        for spot in spots:
            assert contrast(page, spot) >= 4.5, f"{scheme}: {spot} has a contrast of {contrast(page, spot):.2f}"
    assert len(seen) == 2
    for label in ("Theme: light", "Theme: dark"):
        page.click("#theme")
        assert page.one("#theme").get_attribute("aria-label") == label
    page.scheme("light")
    dark = page.js(background)
    page.open()
    assert page.js(background) == dark, "the choice outlives the page"


def test_phone(page):
    page.size(390, 780, mobile=True)
    page.open()
    page.ask("markdown")
    assert page.js("return document.documentElement.scrollWidth") <= 390
    wide = page.js("""return [...document.querySelectorAll('body *')].filter((e) => {
      const r = e.getBoundingClientRect();
      return r.width && r.right > 391 && !e.closest('pre, .table, .math-block, .history, .offscreen');
    }).map((e) => e.tagName + '.' + e.className)""")
    assert wide == []
    page.shot("phone")
    assert not page.one("#history").is_displayed()
    page.click("#menu")
    assert page.one("#history").is_displayed() and page.one("#menu").get_attribute("aria-expanded") == "true"
    page.shot("phone-chats")
    page.press(Keys.ESCAPE)
    assert not page.one("#history").is_displayed() and page.focus() == "Chats"
    page.click("#view-live")
    page.until(lambda: page.text(".heat > .hint"), what="live view")
    assert page.js("return document.documentElement.scrollWidth") <= 390
    page.shot("phone-live")


# ---- keyboard and screen readers
def test_keyboard_only(page, server):
    page.js("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    page.press(Keys.TAB)
    assert page.focus() == "Skip to the message box"
    page.press(Keys.ENTER)
    assert page.focus() == "Message"
    ActionChains(page.driver).send_keys("two lines").key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).send_keys("here").perform()
    assert page.js("return document.querySelector('#prompt').value") == "two lines\nhere"
    page.press(Keys.ENTER)
    page.until(lambda: page.answers() and "two lines" in page.answers()[-1], what="an answer")
    page.idle()
    assert page.focus() == "Message", "the focus stays in the message box"
    page.js("document.querySelector('#skip').focus()")
    order = []
    for _ in range(40):
        page.press(Keys.TAB)
        order.append(page.focus())
        visible = page.js("const r = document.activeElement.getBoundingClientRect(); return r.width > 0 && r.height > 0 && document.activeElement.matches(':focus-visible')")
        assert visible, f"{order[-1]} has the focus but cannot be seen"
        if order[-1] == "Message":
            break
    wanted = ["Chats", "Chat", "Live", "Theme: as the system", "Settings", "New chat", "Export all chats", "Edit message", "Copy answer", "Ask again", "Message"]
    assert [name for name in order if name in wanted] == wanted


def tree(page):
    nodes = page.cdp("Accessibility.getFullAXTree")["nodes"]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored") and "role" in node]


CONTROLS = {"button", "link", "textbox", "searchbox", "combobox", "checkbox", "spinbutton", "slider", "image", "img", "meter", "dialog", "alertdialog", "region", "main", "complementary", "DisclosureTriangle", "log"}


def test_everything_has_a_name(page):
    hand_over(page, "paste", ("a.png", "image/png", png()))
    previews(page, 1)
    page.ask("look")
    page.ask("markdown")
    page.button("Ask again")
    page.idle()
    hand_over(page, "paste", ("b.png", "image/png", png()))
    previews(page, 1)
    seen = tree(page)
    page.click("#settings")
    seen += tree(page)
    page.press(Keys.ESCAPE)
    page.button("Delete all chats")
    seen += tree(page)
    page.press(Keys.ESCAPE)
    page.click("#view-live")
    page.until(lambda: page.text(".about"), what="live view")
    seen += tree(page)
    nameless = [node for node in seen if node[0] in CONTROLS and not node[1].strip()]
    assert nameless == []
    roles = {role for role, _ in seen}
    assert {"button", "link", "textbox", "main", "complementary", "banner", "navigation", "spinbutton", "combobox", "alertdialog", "dialog", "meter"} <= roles
    assert ("heading", "GPT-OSS-Vision") in seen and ("heading", "Model") in seen
    ids = page.js("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids)), "an id occurs twice"


def test_answers_are_announced(page):
    page.ask("hello")
    page.until(lambda: "Answer complete." in page.js("return document.querySelector('#announce').textContent"), what="announcement")
    assert "to: hello" in page.js("return document.querySelector('#announce').textContent")
    assert page.one("#announce").get_attribute("aria-live") == "polite"


# ---- live view
def test_live_view(page, server):
    page.click("#view-live")
    page.until(lambda: page.text(".about"), what="the first state")
    text = page.text("#live")
    for part in ("mock-nano · on cpu · version 0.1.0 · up 1 h 6 min", "5 / 8", "waiting · 5 running · room for 1,024", "27 %", "full 548 of 2,048 · sliding 18 of 288 blocks of 16", "77 %", "9 hits in 12 prompts", "extra header words 2", "first token after 31.0 ms, 10.4 ms each"):
        assert part in text, part
    polls = server.polls
    page.until(lambda: server.polls >= polls + 2, seconds=5, what="polls each second")
    painted = page.js("""return [...document.querySelectorAll('.heat-body canvas')].map((c) => {
      const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, colours = new Set();
      for (let i = 0; i < data.length; i += 4 * 97) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
      return colours.size;
    })""")
    assert len(painted) == 2 and min(painted) > 20
    assert page.one(".spark path:last-child").get_attribute("d").count("L") >= 2
    page.js("document.querySelector('.heat-body canvas').focus()")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    page.until(lambda: re.match(r"Layer 1, expert 1: [\d.]+ % \([\d,]+\)", page.text(".heat > .hint")), what="a cell read by keys")
    page.shot("live-light")
    page.scheme("dark")
    page.until(lambda: server.polls >= polls + 3, what="a poll")
    page.shot("live-dark")
    page.scheme("light")
    page.js("document.querySelector('.heat details').open = true")
    page.until(lambda: len(page.all(".heat tbody tr")) == 6, what="the table")
    assert len(page.all(".heat thead th")) == 4 + 32
    page.click("#view-chat")
    time.sleep(0.3)
    polls = server.polls
    time.sleep(1.5)
    assert server.polls == polls, "polled while nobody looks"


def test_live_view_without_a_server(page, server):
    server.key = "other"
    page.click("#view-live")
    page.until(lambda: "A valid API key is needed" in page.text("#live .error"), what="the error")
    server.key = ""
    page.until(lambda: page.text(".about"), what="it comes back by itself")
    assert not page.one("#live .error").is_displayed()
