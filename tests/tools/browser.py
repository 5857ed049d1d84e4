"""A page in a real browser, without a network: what a script sees of it."""

import html
import json
import os
import shutil
import subprocess
from pathlib import Path

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe style="border:0;width:WIDTHpx;height:900px" srcdoc="PAGE"></iframe><pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const inside = frame.contentWindow, found = (SCRIPT)(inside, frame.contentDocument);
  document.getElementById("found").textContent = JSON.stringify({ ...found, errors: inside.errors });
});
</script>"""
LISTENS = "<script>var errors = []; onerror = what => { errors.push(String(what)); };</script>"


def see(page: Path, script: str, folder: Path, width: int = 1200, dark: bool = False) -> dict:
    """What the script, `(window, document) => ({...})` of JavaScript, returns of a page that has been loaded,
    and `errors`, what was thrown there. A frame of that width holds it: windows are wider than phones."""
    text = html.escape(page.read_text(encoding="utf-8").replace("<head>", f"<head>{LISTENS}", 1))
    outer = FRAME.replace("WIDTH", str(width)).replace("SCRIPT", script).replace("PAGE", text)
    (folder / "frame.html").write_text(outer, encoding="utf-8")
    command = [
        PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--virtual-time-budget=4000", f"--user-data-dir={folder / 'profile'}",
        f"--window-size={max(width, 600)},1000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom",
        (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, env=os.environ | {"HOME": str(folder)})
    _, begun, rest = done.stdout.decode().partition('<pre id="found">')
    told = html.unescape(rest.partition("</pre>")[0])
    if not begun or not told:
        raise RuntimeError(f"the browser said nothing of {page}: {done.stderr.decode()[-500:]}")
    return json.loads(told)
