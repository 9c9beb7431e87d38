"Add a page to the site for each module of the library (a hook of mkdocs.yml)"

from pathlib import Path

from mkdocs.structure.files import File

LIBRARY = Path(__file__).parent.parent / "toon2real"


def on_files(files, config):
    for path in sorted(LIBRARY.glob("[!_]*.py")):
        text = f"# {path.stem}\n\n::: toon2real.{path.stem}\n"
        files.append(File.generated(config, f"api/{path.stem}.md", content=text))
    return files
