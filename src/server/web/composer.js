// The message box: text, pictures by choosing, pasting or dropping, and one button that sends or stops.

import { h, icon, icon_button } from "./dom.js";
import { prepare_image, image_files, kAccept, kLimits } from "./images.js";
import { toast } from "./dialogs.js";

// on: {send(text, images), stop(), edit_last()}
export class Composer {
  constructor(root, on) {
    this.on = on;
    this.images = [];
    this.busy = false;
    this.loading = 0;  // pictures being read
    this.text = h("textarea", {
      id: "prompt", rows: 1, placeholder: "Ask something, or show a picture", "aria-label": "Message", autocomplete: "off", enterkeyhint: "send",
      oninput: () => this.changed(), onkeydown: (event) => this.key(event),
      onpaste: (event) => {
        const files = image_files(event.clipboardData);
        if (!files.length) return;
        event.preventDefault();
        this.add(files);
      },
    });
    this.file = h("input", { type: "file", accept: kAccept, multiple: true, hidden: true, "aria-label": "Pictures", onchange: () => { this.add([...this.file.files]); this.file.value = ""; } });
    this.attach = icon_button("image", "Add pictures", () => this.file.click());
    this.send = h("button.send", { type: "submit" });
    this.previews = h("ul.previews", { "aria-label": "Pictures to send", hidden: true });
    this.note = h("div.composer-note", {});
    root.append(
      h("form.composer", { onsubmit: (event) => { event.preventDefault(); this.submit(); } },
        this.previews, this.text, h("div.composer-row", {}, this.attach, this.file, this.note, this.send)));
    this.listen_for_drops();
    this.changed();
  }

  listen_for_drops() {
    let depth = 0;
    const overlay = h("div.drop", { hidden: true, "aria-hidden": "true" }, icon("image"), "Drop pictures here");
    document.body.append(overlay);
    const leave = () => { depth = 0; overlay.hidden = true; };
    const files_in = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
    addEventListener("dragenter", (event) => {
      if (!files_in(event)) return;
      depth++;
      overlay.hidden = false;
    });
    addEventListener("dragleave", () => { if (--depth <= 0) leave(); });
    addEventListener("dragover", (event) => { if (files_in(event)) event.preventDefault(); });
    addEventListener("drop", (event) => {
      leave();
      if (!files_in(event)) return;
      event.preventDefault();  // never leave the page for a dropped file
      const files = image_files(event.dataTransfer);
      if (files.length) this.add(files);
      else toast("Only pictures can be added");
    });
  }

  async add(files) {
    for (const file of files) {
      if (this.images.length + this.loading >= kLimits.count) {
        toast(`At most ${kLimits.count} pictures in one message`);
        break;
      }
      this.loading++;
      this.changed();
      try {
        const image = await prepare_image(file);
        this.images.push(image);
        if (image.note) toast(`${image.name}: ${image.note}`);
      } catch (error) {
        toast(`${file.name || "Picture"} ${error.message}`);
      }
      this.loading--;
      this.show_previews();
    }
    this.text.focus();
  }

  show_previews() {
    this.previews.replaceChildren(...this.images.map((image, index) => h("li", {},
      h("img", { src: image.url, alt: image.name }),
      icon_button("close", `Remove ${image.name}`, () => {
        this.images.splice(index, 1);
        this.show_previews();
        this.text.focus();
      }))));
    this.previews.hidden = !this.images.length;
    this.changed();
  }

  set_busy(busy) {
    this.busy = busy;
    this.changed();
  }

  changed() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight, innerHeight * 0.4)}px`;
    const label = this.busy ? "Stop" : "Send";
    if (this.send.title !== label) {
      this.send.replaceChildren(icon(this.busy ? "stop" : "send"));
      this.send.title = label;
      this.send.setAttribute("aria-label", label);
    }
    this.send.disabled = !this.busy && (this.loading > 0 || (!this.text.value.trim() && !this.images.length));
  }

  key(event) {
    if (event.isComposing || event.keyCode === 229) return;  // the input method's own Enter
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      if (!this.busy && !this.send.disabled) this.submit();
    } else if (event.key === "ArrowUp" && !this.text.value && this.on.edit_last()) {
      event.preventDefault();
    }
  }

  submit() {
    if (this.busy) {
      this.on.stop();
      return;
    }
    const text = this.text.value.trim(), { images } = this;
    this.text.value = "";
    this.images = [];
    this.show_previews();
    this.on.send(text, images);
    this.text.focus();
  }

  fill(text) {
    this.text.value = text;
    this.changed();
    this.text.focus();
  }
  status(text) {
    this.note.textContent = text;
  }
}
