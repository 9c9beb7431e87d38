"""Write the badge and the Colab cell of every notebook from settings.ini (user, repo, branch).

`make notebooks` runs it, so a fork changes settings.ini alone. Outputs of live widgets are taken out: they show nothing
once their kernel is gone. Notebooks that say the same already are not touched.
"""

import json
from configparser import ConfigParser
from pathlib import Path

NBS = Path(__file__).resolve().parent
COLAB = "https://colab.research.google.com"
CELL = """#| hide
#| eval: false
# Colab only: install the library and let its widgets load
import sys

if "google.colab" in sys.modules:
    %pip install -q "{lib_name}[colab] @ git+{git_url}"
    from google.colab import output

    output.enable_custom_widget_manager()"""


def is_live(output: dict) -> bool:
    "Is this a widget, which needs its kernel?"
    return any("widget-view" in kind for kind in output.get("data", {}))


def main():
    ini = ConfigParser(delimiters=["="])
    ini.read(NBS.parent / "settings.ini", encoding="utf-8")
    settings = ini["DEFAULT"]
    for path in sorted([*NBS.glob("*.ipynb"), *NBS.glob("tutorials/*.ipynb")]):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        file = path.relative_to(NBS.parent).as_posix()
        link = f"{COLAB}/github/{settings['user']}/{settings['repo']}/blob/{settings['branch']}/{file}"
        badge = f"[![Open In Colab]({COLAB}/assets/colab-badge.svg)]({link})"
        cells = [cell["source"] for cell in notebook["cells"][1:3]]
        wanted = [part.splitlines(keepends=True) for part in (badge, CELL.format(**settings))]
        if "colab-badge" not in "".join(cells[0]) or "google.colab" not in "".join(cells[1]):
            raise SystemExit(f"{file}: its second cell is no badge, or its third no Colab cell: copy both from another")
        live = [cell for cell in notebook["cells"] if any(map(is_live, cell.get("outputs", [])))]
        for cell in live:
            cell["outputs"] = [output for output in cell["outputs"] if not is_live(output)]
        if cells != wanted or live:
            notebook["cells"][1]["source"], notebook["cells"][2]["source"] = wanted
            text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
            path.write_text(text + "\n", encoding="utf-8")
            print(file)


if __name__ == "__main__":
    main()
