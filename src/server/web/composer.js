// The message box: text, pictures by choosing, pasting or dropping, and one button that sends or stops.

import { h, icon, icon_button } from "./dom.js";
import { prepare_image, image_files, too_much, kAccept } from "./images.js";
import { show_previews } from "./message.js";
import { toast } from "./dialogs.js";

export class Composer {
  // on: {send(text, images), stop(), edit_last(), images()}; images() are those that go along from earlier messages
  constructor(root, on) {
    Object.assign(this, { on, images: [], busy: false, loading: 0 });  // loading: pictures being read
    this.text = h("textarea", {
      id: "prompt", rows: 1, placeholder: "Ask something, or show a picture", "aria-label": "Message", autocomplete: "off", enterkeyhint: "send",
      oninput: () => this.changed(), onkeydown: (event) => this.key(event), onpaste: (event) => {
        const files = image_files(event.clipboardData);
        if (!files.length) return;
        event.preventDefault();
        this.add(files);
      },
    });
    const file = h("input", { type: "file", accept: kAccept, multiple: true, hidden: true, "aria-label": "Pictures", onchange: () => { this.add([...file.files]); file.value = ""; } });
    this.previews = h("ul.previews", { "aria-label": "Pictures to send", hidden: true });
    this.note = h("span.composer-note");
    this.send = h("button.send");
    root.append(h("form.composer", { onsubmit: (event) => { event.preventDefault(); this.submit(); } },
      this.previews, this.text, h("div.composer-row", {}, icon_button("image", "Add pictures", () => file.click()), file, this.note, this.send)));
    this.listen_for_drops();
    this.changed();
  }

  listen_for_drops() {
    let depth = 0;  // dragenter and dragleave come for every element
    const overlay = h("div.drop", { hidden: true }, icon("image"), "Drop pictures here");
    document.body.append(overlay);
    const listen = (name, f) => addEventListener(name, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();  // never leave the page for a dropped file
      depth = Math.max(0, depth + f(event));
      overlay.hidden = !depth;
    });
    listen("dragenter", () => 1);
    listen("dragover", () => 0);
    listen("dragleave", () => -1);
    listen("drop", (event) => {
      const files = image_files(event.dataTransfer);
      if (files.length) this.add(files);
      else toast("Only pictures can be added");
      return -depth;
    });
  }

  async add(files) {
    let problem = "";
    for (const file of files) {
      this.loading++;
      this.changed();
      try {
        const image = await prepare_image(file);
        problem = too_much([...this.on.images(), ...this.images, image]);
        if (!problem) this.images.push(image);
        if (problem || image.note) toast(problem || `${image.name}: ${image.note}`);
      } catch (error) {
        toast(`${file.name} ${error.message}`);
      }
      this.loading--;
      this.show_images();
      if (problem) break;
    }
    this.text.focus();
  }
  show_images() {
    show_previews(this.previews, this.images, () => { this.changed(); this.text.focus(); });
    this.changed();
  }

  set_busy(busy) {
    this.busy = busy;
    this.changed();
  }
  changed() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
    const label = this.busy ? "Stop" : "Send";
    if (this.send.title !== label) {
      this.send.replaceChildren(icon(label.toLowerCase()));
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
    if (this.busy) return this.on.stop();
    const text = this.text.value.trim(), { images } = this;
    this.images = [];
    this.fill("");
    this.show_images();
    return this.on.send(text, images);
  }
  fill(text) {
    this.text.value = text;
    this.changed();
    this.text.focus();
  }
}
