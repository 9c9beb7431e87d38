"Add to the site a page for each module of the library, and those of this folder (a hook of mkdocs.yml)"

from pathlib import Path

from mkdocs.structure.files import File

HERE = Path(__file__).parent
LIBRARY = HERE.parent / "toon2real"


def on_files(files, config):
    for path in sorted(LIBRARY.glob("[!_]*.py")):
        text = f"# {path.stem}\n\n::: toon2real.{path.stem}\n"
        files.append(File.generated(config, f"api/{path.stem}.md", content=text))
    for path in sorted(HERE.glob("*.md")):
        files.append(File.generated(config, path.name, content=path.read_text()))
    return files
