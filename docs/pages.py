"""The site's pages (a hook of mkdocs.yml): notebooks without what only nbdev and Colab need, the pages of this folder,
and one for each module of the library"""

import json
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.structure.files import File

HERE = Path(__file__).parent
LIBRARY = HERE.parent / "toon2real"
BADGE = re.compile(r"\[!\[Open In Colab\]\([^)]*\)\]")


def on_config(config):
    "Read the notebooks from a copy that is made for readers"
    copied = Path(tempfile.mkdtemp()) / "nbs"
    shutil.copytree(config.docs_dir, copied, ignore=shutil.ignore_patterns("*.py", ".ipynb_checkpoints"))
    for path in copied.rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"] = [shown(cell) for cell in notebook["cells"] if not hidden(cell)]
        path.write_text(json.dumps(notebook), encoding="utf-8")
    config.docs_dir = str(copied)
    return config


def on_post_build(config):
    shutil.rmtree(Path(config.docs_dir).parent)


def hidden(cell: dict) -> bool:
    return re.match(r"#\| (hide$|default_exp)", "".join(cell["source"]), re.MULTILINE) is not None


def shown(cell: dict) -> dict:
    "Without directives, and with the badge as words: its picture lies on another server"
    if cell["cell_type"] == "code":
        text = "".join(cell["source"])
        if text.startswith("#| hide_input"):
            cell["metadata"]["tags"] = ["hide_input"]
        cell["source"] = re.sub(r"^#\|.*\n?", "", text, flags=re.MULTILINE)
    else:
        cell["source"] = BADGE.sub("[Open on Colab]", "".join(cell["source"]))
    return cell


def on_files(files, config):
    for path in sorted(LIBRARY.glob("[!_]*.py")):
        text = f"# {path.stem}\n\n::: toon2real.{path.stem}\n"
        files.append(File.generated(config, f"api/{path.stem}.md", content=text))
    for path in sorted(HERE.glob("*.md")):
        files.append(File.generated(config, path.name, content=path.read_text()))
    return files


def on_page_content(html, page, config, files):
    "The line that nbdev puts into each module says where the notebook would be on the web"
    return re.sub(r"<p>Docs: \S*</p>", "", html)
