#!/usr/bin/env python3
"""Draws docs/images/run.png: pictures of the repository beside what the program prints for them, asked while it is drawn.

usage: docs/images/draw_run.py build/release/bin/gpt-oss-vision     (needs Pillow and the font DejaVu Sans Mono)
"""
import pathlib
import subprocess
import sys
import textwrap

from PIL import Image, ImageDraw, ImageFont

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PICTURES = "models/nano/test_pictures"
RUNS = [  # the last answer is wrong: that happens, see the model's README
    ("dog_face.png", "What is this?"),
    ("rocket.png", "Describe this picture."),
    ("strawberry.webp", "Is this a strawberry?"),
    ("octopus.jpg", "What is this?"),
]
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf"
SIDE, ROW, MARGIN, WIDTH, LINE = 96, 124, 14, 960, 20
BACKGROUND, COMMAND, ANSWER = "#1e2127", "#8fbf7f", "#e6e6e6"


def main():
    font = ImageFont.truetype(FONT, 15)
    canvas = Image.new("RGB", (WIDTH, ROW * len(RUNS) + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for index, (name, question) in enumerate(RUNS):
        command = ["generate", "--image", f"{PICTURES}/{name}", "--prompt", question]
        answer = subprocess.run([pathlib.Path(sys.argv[1]).resolve(), *command], cwd=ROOT, check=True, text=True,
                                capture_output=True).stdout.strip()
        top = MARGIN + index * ROW
        picture = Image.open(ROOT / PICTURES / name).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        white = Image.new("RGBA", picture.size, "white")
        canvas.paste(Image.alpha_composite(white, picture).convert("RGB"), (MARGIN, top))
        shown = f'$ gpt-oss-vision generate --image {name} --prompt "{question}"'
        left = SIDE + 2 * MARGIN
        draw.text((left, top + 8), shown, font=font, fill=COMMAND)
        for line, text in enumerate(textwrap.wrap(answer, 88)):
            draw.text((left, top + 8 + (line + 1) * LINE + 6), text, font=font, fill=ANSWER)
    canvas.quantize(128).save(ROOT / "docs/images/run.png", optimize=True)


if __name__ == "__main__":
    main()
